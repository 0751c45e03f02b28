"""Tells open calls of `Tail` of each commit, whichever writer made it: the database passes the word."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg import sql

from sark_pdp.audit_writer.store import CHANNEL

_MOST_COMMITS: Final = 1000
"""That one call may be behind."""
_WAIT: Final = 1.0
"""Seconds between two attempts to listen."""

_log = logging.getLogger(__name__)


class Commit(Struct, frozen=True):
    """One transaction of a writer."""

    transaction: int
    first: int
    """Time of its earliest event, microseconds since 2000-01-01."""
    last: int


class LostError(Exception):
    """The word of some commits was lost: the call cannot go on without a gap."""


class Listener:
    """One connection for all calls, open while there are any. All state belongs to one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]) -> None:
        self._connect = connect
        self._calls: set[asyncio.Queue[Commit | None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def calls(self) -> int:
        """That are open."""
        return len(self._calls)

    @contextmanager
    def subscribed(self) -> Iterator["asyncio.Queue[Commit | None]"]:
        """A queue of commits from now on; None says that some were lost, and is the last."""
        queue: asyncio.Queue[Commit | None] = asyncio.Queue(_MOST_COMMITS)
        self._calls.add(queue)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        try:
            yield queue
        finally:
            self._calls.discard(queue)
            if not self._calls and self._listening is not None:
                self._listening.cancel()
                self._listening = None
                self._ready.clear()

    async def wait_ready(self) -> None:
        """Until each commit from now on is told."""
        await self._ready.wait()

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    self._ready.set()
                    async for notice in connection.notifies():
                        # Whoever may connect may say anything on a channel.
                        if (commit := _commit_of(notice.payload)) is not None:
                            self._tell(commit)
            except (psycopg.Error, OSError) as error:
                _log.warning("commits cannot be followed", extra={"error": " ".join(str(error).split())})
            self._ready.clear()
            for queue in tuple(self._calls):
                self._lose(queue)
            await asyncio.sleep(_WAIT)

    def end(self) -> None:
        """All calls end, for the process goes down."""
        for queue in tuple(self._calls):
            self._lose(queue)

    def _tell(self, commit: Commit) -> None:
        for queue in tuple(self._calls):
            try:
                queue.put_nowait(commit)
            except asyncio.QueueFull:
                self._lose(queue)

    def _lose(self, queue: "asyncio.Queue[Commit | None]") -> None:
        """The call ends once it has taken what is before."""
        self._calls.discard(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(None)


def _commit_of(payload: str) -> Commit | None:
    try:
        transaction, first, last = map(int, payload.split())
    except ValueError:
        return None
    return Commit(transaction, first, last)
