"""What one process has of generations in Redis, several of them in one test; and questions about users and tools."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pytest

from sark_pdp.cache import channel
from sark_pdp.cache.channel import Channel
from sark_pdp.cache.key import key_of
from sark_pdp.cache.redis_connection import Command, RedisServer
from sark_pdp.cache.redis_generations import RedisGenerations
from sark_pdp.cache.redis_link import RedisLink
from sark_pdp.interfaces import Generations
from sark_pdp.model import Document, Entrypoint, Seconds
from sark_pdp.projection import Projection
from tests.fix_audit import FakeEntrypoint

PATIENCE = 30.0
LASTING = Seconds(60.0)
"""Trust that no busy machine outlasts."""
_UNHEARD = 8.0
"""Seconds after which a channel is made anew, well below the patience of tests."""
PASSING = Seconds(channel.TRUST)
"""Trust as it is, for tests that wait for its end."""
DECISION = FakeEntrypoint(Projection([()]), "sark/mcp/decision", reads_data=(("roles",), ("catalog", "tools")))
LISTING = FakeEntrypoint(
    Projection([("user",)]), "sark/mcp/listing", fingerprint=b"l" * 32, reads_data=(("catalog", "levels"),)
)

Question: TypeAlias = tuple[Entrypoint, Document, bytes]


def a_question(user: Any = "ada", tool: str = "query", entrypoint: FakeEntrypoint = DECISION) -> Question:
    """May this user use this tool?"""
    document = {"user": {"id": user}, "tool": {"id": f"id of {tool}", "name": tool}, "server": {"id": "s1"}}
    projected = entrypoint.projection.project(document)
    return entrypoint, projected, key_of(entrypoint.fingerprint, projected)


def asked(generations: Generations, *questions: Question) -> list[bytes]:
    """The generation of each, waited for."""
    return generations.read_many(questions or [a_question()])


def eventually(condition: Callable[[], Any], what: str) -> None:
    """Waits until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


class Hooked:
    """A link whose replies, once they are there, wait until `meanwhile` has run; its channel may be led elsewhere."""

    def __init__(self, link: RedisLink, channel_url: str | None) -> None:
        self.meanwhile: Callable[[], None] | None = None
        self._link = link
        self._channel = None if channel_url is None else RedisLink(RedisServer(channel_url), Seconds(PATIENCE))

    @property
    def run_id(self) -> bytes | None:
        """As the link."""
        return self._link.run_id

    def execute(self, commands: Sequence[Command]) -> list[Any] | None:
        """As the link; `meanwhile` runs once, after a read."""
        replies = self._link.execute(commands)
        if self.meanwhile is not None and commands[-1][0] == "MGET":
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return replies

    def connection(self) -> Any:
        """As the link, or to where the channel is led."""
        return (self._channel or self._link).connection()


class Process:
    """One process. `generations` are what its cache asks."""

    def __init__(self, url: str, prefix: str, timeout: Seconds, ttl: Seconds, channel_url: str | None) -> None:
        self.link = RedisLink(RedisServer(url), timeout)
        self.hooked = Hooked(self.link, channel_url)
        self.generations = RedisGenerations(self.hooked, prefix, ttl)
        self.channel = Channel(self.hooked, self.generations, prefix)
        self.link.on_change(self.generations.served_by)

    def start(self) -> None:
        self.link.start()
        self.channel.start()

    def close(self) -> None:
        self.channel.close(Seconds(PATIENCE))
        self.link.close(Seconds(PATIENCE))

    def known(self, question: Question | None = None) -> bytes | None:
        """What it knows without asking."""
        return self.generations.known(*question or a_question())

    def ask(self, question: Question | None = None) -> bytes:
        """What it finds out."""
        return asked(self.generations, question or a_question())[0]

    def wait_linked(self) -> None:
        """Until Redis is to be had."""
        eventually(lambda: self.link.up, "there is no link to Redis")

    def wait_trusted(self, *questions: Question) -> None:
        """Until it hears of invalidations, and knows the generations of the questions without asking."""

        def trusts() -> bool:
            asked(self.generations, *questions)
            return self.generations.trusted and all(self.known(each) for each in questions or [a_question()])

        eventually(trusts, "no generation is trusted")


StartProcess: TypeAlias = Callable[..., Process]


@pytest.fixture
def start_process(redis_prefix: str, patient_links: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartProcess]:
    """Starts one with the keys of this test: `start(url, timeout=…, ttl=…, channel_url=…, trust=…)`.

    `trust` is that of all of them: how long a heartbeat vouches for what is held.
    """
    with contextlib.ExitStack() as running:

        def start(
            url: str,
            timeout: float = 5.0,
            ttl: float = 600.0,
            channel_url: str | None = None,
            trust: Seconds = LASTING,
        ) -> Process:
            monkeypatch.setattr(channel, "TRUST", trust)
            monkeypatch.setattr(channel, "_PATIENCE", min(trust + 1.0, _UNHEARD))
            process = Process(url, redis_prefix, Seconds(timeout), Seconds(ttl), channel_url)
            process.start()
            running.callback(process.close)
            return process

        yield start
