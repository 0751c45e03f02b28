"""What one process has of generations in Redis, several of them in one test; and questions about users and tools."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from sark_pdp.cache.channel import Channel
from sark_pdp.cache.key import key_of
from sark_pdp.cache.redis_connection import RedisServer
from sark_pdp.cache.redis_generations import RedisGenerations
from sark_pdp.cache.redis_link import RedisLink
from sark_pdp.interfaces import Generations
from sark_pdp.model import Document, Entrypoint, Seconds
from sark_pdp.projection import Projection
from tests.fix_audit import FakeEntrypoint

PATIENCE = 30.0
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


class Process:
    """One process. `generations` are what its cache asks."""

    def __init__(self, url: str, prefix: str, timeout: Seconds, ttl: Seconds) -> None:
        self.link = RedisLink(RedisServer(url), timeout)
        self.generations = RedisGenerations(self.link, prefix, ttl)
        self.channel = Channel(self.link, self.generations, prefix)
        self.link.on_change(self.generations.served_by)

    def start(self) -> None:
        self.link.start()
        self.channel.start()

    def close(self) -> None:
        self.channel.close(Seconds(PATIENCE))
        self.link.close(Seconds(PATIENCE))

    def known(self, question: Question) -> bytes | None:
        """What it knows without asking."""
        return self.generations.known(*question)

    def wait_linked(self) -> None:
        """Until Redis is to be had."""
        eventually(lambda: self.link.up, "there is no link to Redis")

    def wait_trusted(self, *questions: Question) -> None:
        """Until it hears of invalidations, and knows the generations of the questions without asking."""

        def trusts() -> bool:
            asked(self.generations, *questions)
            return not self.channel.problem and all(self.known(each) for each in questions or [a_question()])

        eventually(trusts, "no generation is trusted")


StartProcess: TypeAlias = Callable[..., Process]


@pytest.fixture
def start_process(redis_prefix: str) -> Iterator[StartProcess]:
    """Starts one with the keys of this test: `start(url, timeout=…, ttl=…)`."""
    with contextlib.ExitStack() as running:

        def start(url: str, timeout: float = 5.0, ttl: float = 600.0) -> Process:
            process = Process(url, redis_prefix, Seconds(timeout), Seconds(ttl))
            process.start()
            running.callback(process.close)
            return process

        yield start
