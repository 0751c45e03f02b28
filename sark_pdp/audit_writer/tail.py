"""Tells open calls of `Tail` of each commit, whichever writer made it: the database passes the word."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, TypeAlias

import psycopg
from msgspec import Struct
from psycopg import sql

from sark_pdp.audit_writer.columns import FIRST_US, LAST_US
from sark_pdp.audit_writer.store import CHANNEL

_MOST_COMMITS: Final = 1000
"""That one call may be behind."""
_WAIT: Final = 1.0
"""Seconds between two attempts to listen."""
_LAST_XID: Final = 2**32 - 1

_log = logging.getLogger(__name__)


class Commit(Struct, frozen=True):
    """One transaction of a writer."""

    transaction: int
    first: int
    """Time of its earliest event, microseconds since 2000-01-01."""
    last: int


class Turn(Enum):
    """What a call is told beside commits."""

    LISTENING = "listening"
    """Each commit from now on is told."""
    LOST = "lost"
    """Some were not told, or will not be: the call cannot go on without a gap. The last word."""


News: TypeAlias = "asyncio.Queue[Commit | Turn]"


class Listener:
    """One connection for all calls, open while there are any. All state belongs to one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]) -> None:
        self._connect = connect
        self._calls: set[News] = set()
        self._task: asyncio.Task[None] | None = None
        self._listens = False

    @contextmanager
    def subscribed(self) -> Iterator[News]:
        """A queue of what is told from now on."""
        queue: News = asyncio.Queue(_MOST_COMMITS)
        self._calls.add(queue)
        if self._listens:
            queue.put_nowait(Turn.LISTENING)
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        try:
            yield queue
        finally:
            self._calls.discard(queue)
            if not self._calls and self._task is not None:
                self._task.cancel()
                self._task = None
                self._listens = False

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    self._listens = True
                    self._tell(Turn.LISTENING)
                    async for notice in connection.notifies():
                        # Whoever may connect may say anything on a channel.
                        if (commit := _commit_of(notice.payload)) is not None:
                            self._tell(commit)
            except (psycopg.Error, OSError, ValueError) as error:
                _log.warning("commits cannot be followed", extra={"error": " ".join(str(error).split())})
            self._listens = False
            self.end()
            await asyncio.sleep(_WAIT)

    def end(self) -> None:
        """All calls end once they have taken what they were told."""
        for queue in tuple(self._calls):
            self._lose(queue)

    def _tell(self, news: Commit | Turn) -> None:
        for queue in tuple(self._calls):
            try:
                queue.put_nowait(news)
            except asyncio.QueueFull:
                self._lose(queue)

    def _lose(self, queue: News) -> None:
        self._calls.discard(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(Turn.LOST)


def _commit_of(payload: str) -> Commit | None:
    """None for what no writer says."""
    try:
        transaction, first, last = map(int, payload.split())
    except ValueError:
        return None
    known = 0 <= transaction <= _LAST_XID and FIRST_US <= first <= last <= LAST_US
    return Commit(transaction, first, last) if known else None
