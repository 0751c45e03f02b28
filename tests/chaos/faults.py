"""How each fault is done and undone. What a fault needs to have done before it may end, it says itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeAlias

from tests.chaos.schedule import Kind
from tests.chaos.world import World
from tests.fix_proxy import Proxy
from tests.fix_writer_process import AuditWriter

Bite: TypeAlias = Callable[[], bool]
"""Whether a fault had an effect."""
Inflict: TypeAlias = Callable[[World, int], AbstractContextManager[Bite]]
"""Does it to the world; the number is that of what it hits. Undone where the context ends."""

_SLOW: Final = 0.2
_HELD_BACK: Final = "audit events are held back"
"""What a sidecar logs that cannot commit."""


def _at_once() -> bool:
    return True


@contextmanager
def _writer_killed(world: World, number: int) -> Iterator[Bite]:
    world.end_writer(number, AuditWriter.kill)
    yield _at_once
    world.writers[number].start()


@contextmanager
def _writer_stopped(world: World, number: int) -> Iterator[Bite]:
    world.end_writer(number, AuditWriter.stop)
    yield _at_once
    world.writers[number].start()


@contextmanager
def _database_restarted(world: World, _: int) -> Iterator[Bite]:
    world.database.stop()
    yield _at_once
    world.database.start()


@contextmanager
def _database_crashed(world: World, _: int) -> Iterator[Bite]:
    world.database.crash()
    yield _at_once
    world.database.start()


@contextmanager
def _database_frozen(world: World, _: int) -> Iterator[Bite]:
    world.database.freeze()
    yield _at_once
    world.database.thaw()


@contextmanager
def _cut(proxies: list[Proxy]) -> Iterator[Bite]:
    for proxy in proxies:
        proxy.refuse()
    yield _at_once
    for proxy in proxies:
        proxy.accept_again()


@contextmanager
def _slowed(proxy: Proxy) -> Iterator[Bite]:
    proxy.delay = _SLOW
    yield _at_once
    proxy.delay = 0.0


@contextmanager
def _stalled(proxy: Proxy) -> Iterator[Bite]:
    proxy.stalled = True
    yield _at_once
    proxy.stalled = False


@contextmanager
def _answers_lost(proxies: list[Proxy]) -> Iterator[Bite]:
    """Whoever asks is cut off after the deed was done, and before hearing of it."""
    before = _lost(proxies)
    for proxy in proxies:
        proxy.loses_answers = True
    yield lambda: _lost(proxies) > before
    for proxy in proxies:
        proxy.loses_answers = False
        proxy.reset()


def _lost(proxies: list[Proxy]) -> int:
    return sum(proxy.lost for proxy in proxies)


@contextmanager
def _sidecar_killed(world: World, number: int) -> Iterator[Bite]:
    since = world.kill_sidecar(number)
    yield _at_once
    world.bring_back(number, since)


@contextmanager
def _sidecar_stopped(world: World, number: int) -> Iterator[Bite]:
    since = world.stop_sidecar(number)
    yield _at_once
    world.bring_back(number, since)


@contextmanager
def _disk_filled(world: World, number: int) -> Iterator[Bite]:
    """With no writer, for the room of what was shipped is used again."""
    with _cut(world.uplinks):
        before = world.sidecars[number].log.count(_HELD_BACK)
        world.disks[number].fill()
        yield lambda: world.sidecars[number].log.count(_HELD_BACK) > before
        world.disks[number].free()


@contextmanager
def _killed_when_full(world: World, number: int) -> Iterator[Bite]:
    full_since = time.monotonic()
    with _disk_filled(world, number) as bites:
        yield bites
        since = world.kill_sidecar(number, full_since)
        # One that finds its disk full ends, and is started again.
        world.sidecars[number].start()
    world.bring_back(number, since)


INFLICT: Final[dict[Kind, Inflict]] = {
    Kind.WRITER_KILLED: _writer_killed,
    Kind.WRITER_STOPPED: _writer_stopped,
    Kind.DATABASE_RESTARTED: _database_restarted,
    Kind.DATABASE_CRASHED: _database_crashed,
    Kind.DATABASE_FROZEN: _database_frozen,
    Kind.UPLINK_CUT: lambda world, number: _cut([world.uplinks[number]]),
    Kind.UPLINK_SLOWED: lambda world, number: _slowed(world.uplinks[number]),
    Kind.UPLINK_STALLED: lambda world, number: _stalled(world.uplinks[number]),
    Kind.ACKS_LOST: lambda world, _: _answers_lost(world.uplinks),
    Kind.LINK_CUT: lambda world, number: _cut([world.links[number]]),
    Kind.LINK_SLOWED: lambda world, number: _slowed(world.links[number]),
    Kind.LINK_STALLED: lambda world, number: _stalled(world.links[number]),
    Kind.COMMITS_LOST: lambda world, _: _answers_lost(world.links),
    Kind.SIDECAR_KILLED: _sidecar_killed,
    Kind.SIDECAR_STOPPED: _sidecar_stopped,
    Kind.DISK_FILLED: _disk_filled,
    Kind.KILLED_WHEN_FULL: _killed_when_full,
}
