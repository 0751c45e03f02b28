"""Sidecars in one process that share verdicts through a real Redis: all of the cache, and a policy that counts."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from sark_pdp.cache.choice import Choice, Mode
from sark_pdp.cache.generations import LocalGenerations
from sark_pdp.cache.keyring import Keyring
from sark_pdp.cache.l2 import SharedVerdicts
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.redis_connection import Command, RedisServer
from sark_pdp.cache.redis_link import RedisLink
from sark_pdp.cache.signed import SignedStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import EvaluationError
from sark_pdp.interfaces import Answered
from sark_pdp.model import Decision, Json, Request, Seconds, Tier
from tests.fix_audit import new_id
from tests.fix_engine import each
from tests.fix_redis import RedisProcess

PATIENT = Seconds(10.0)
"""A timeout that no busy machine reaches."""
_WAIT = 30.0


def until(condition: Callable[[], object]) -> None:
    """Waits for what must happen."""
    end = time.monotonic() + _WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Counting:
    """A policy that answers what it is told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.result: Json = {"allow": True, "reason": "because"}
        self.asked: list[Request] = []
        self.error: Exception | None = None

    def decide(self, request: Request) -> Decision:
        """As `Decider`."""
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        verdict = verdict_of(None if self.result is None else msgspec.json.encode(self.result))
        return Decision(new_id(), verdict, Tier.EVALUATED, request.projected or {})

    def decide_nowait(self, request: Request) -> Decision | None:
        """As `Decider`."""
        return self.decide(request)

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        """As `Decider`."""
        return each(self.decide, requests)


class CountingLink:
    """A link that keeps what was sent through it: one item for each round trip."""

    def __init__(self, link: RedisLink) -> None:
        self.sent: list[list[Command]] = []
        self._link = link

    @property
    def run_id(self) -> bytes | None:
        """As the link."""
        return self._link.run_id

    def execute(self, commands: Sequence[Command], waited: float = 0.0) -> list[object] | None:
        """As the link."""
        self.sent.append(list(commands))
        return self._link.execute(commands, waited)


class Sharing:
    """One sidecar's cache."""

    def __init__(self, url: str, prefix: str, key_file: Path, l1: float, l2: float, mode: Mode) -> None:
        self.policy = Counting()
        self.link = RedisLink(RedisServer(url), PATIENT)
        self.counted = CountingLink(self.link)
        self.signed = SignedStore(self.counted, Keyring(key_file), prefix)
        self.choice = Choice(mode)
        self.shared = SharedVerdicts(self.signed, verdict_of, Seconds(l2), self.choice)
        self.l1 = MemoryStore(100)
        self.generations = LocalGenerations()
        # Generations are Redis' elsewhere; here they are the same in all sidecars.
        self.generations._others = bytes(16)
        self.cached = CachedDecider(self.policy, self.l1, Seconds(l1), self.generations, self.shared)

    def start(self) -> None:
        """Returns when Redis is there."""
        self.link.start()
        self.signed.start()
        until(lambda: self.link.up)

    def close(self) -> None:
        """Ends its threads."""
        self.signed.close()
        self.link.close()

    def stored(self, server: RedisProcess, prefix: str) -> list[bytes]:
        """The names of what it and others keep."""
        with contextlib.closing(server.client()) as client:
            return sorted(client.scan_iter(match=f"{prefix}:*", count=1000))

    def fail(self) -> None:
        """From now on the policy cannot be evaluated."""
        self.policy.error = EvaluationError("the policy aborted")


StartSharing: TypeAlias = Callable[..., Sharing]


@pytest.fixture
def mac_key_file(tmp_path: Path) -> Path:
    """One key."""
    file = tmp_path / "mac.keys"
    file.write_text("0123456789abcdef\n")
    return file


@pytest.fixture
def start_sharing(
    redis_server: RedisProcess, redis_prefix: str, mac_key_file: Path, patient_links: None
) -> Iterator[StartSharing]:
    """Starts a cache on the Redis that tests share: `start(l1=…, l2=…, mode=…, url=…, key_file=…)`."""
    with contextlib.ExitStack() as running:

        def start(
            *, l1: float = 10.0, l2: float = 60.0, mode: Mode = "always", url: str = "", key_file: Path = mac_key_file
        ) -> Sharing:
            made = Sharing(url or redis_server.url, redis_prefix, key_file, l1, l2, mode)
            running.callback(made.close)
            made.start()
            return made

        yield start
