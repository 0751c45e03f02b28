"""Collects what all streams bring into batches and commits one after the other. All state belongs to one event loop."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from msgspec import Struct

from sark_pdp.audit_writer import turns
from sark_pdp.audit_writer.columns import Row, UnstorableError, row_of
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.audit_writer.store import Rejection, Written
from sark_pdp.model import Seconds

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 5.0
_PATIENCE: Final = 10.0
"""Seconds after which a batch that is not committed means that the database does not answer."""
_PING_INTERVAL: Final = 2.0
_ROW_REST: Final = 512
_REJECTION_REST: Final = 4096
"""Bytes that an event takes besides its payload and its row, at most."""

_log = logging.getLogger(__name__)


class Store(Protocol):
    """Where batches go; called on one thread at a time."""

    def write(self, rows: Sequence[Row], rejections: Sequence[Rejection]) -> Written:
        """Commits all or raises psycopg.Error or DatabaseError."""

    def ping(self) -> None:
        """Raises the same where nothing could be committed now."""


class Pace(Struct, frozen=True):
    """When a batch is committed, and how much may wait for one."""

    max_events: int
    max_delay: Seconds
    max_bytes: int
    """Of what is not committed yet, of all streams together."""
    late: bool = False
    """Whether it is for late events: nobody is told what their store is like, and they are no load."""


class Stream(turns.Stream, Protocol):
    """Who brings events, and is told what became of them."""

    gone: bool
    """Nobody waits for its portions any more."""

    def committed(self, portion: "Portion") -> None:
        """They are in the database."""


class Portion(Struct):
    """Consecutive events of one source that one message brought."""

    source: str
    last: int
    """The highest sequence number."""
    rows: list[Row]
    rejections: list[Rejection]
    size: int
    """Bytes that they take in memory."""
    stream: Stream
    """Which brought it."""
    oldest_us: int | None
    """The earliest time of a row, in microseconds since 2000-01-01; None where there is none."""
    late: bool = False
    """Whether it waits among the late ones."""
    came: float = 0.0
    """When it was submitted, by the monotonic clock."""

    @property
    def events(self) -> int:
        """How many."""
        return len(self.rows) + len(self.rejections)


def portion_of(source: str, events: Sequence[tuple[int, bytes, bytes]], stream: Stream) -> Portion:
    """Of events as (sequence, chain, payload), in order, at least one."""
    rows, rejections, size = [], [], 0
    for sequence, chain, payload in events:
        try:
            row = row_of(source, sequence, chain, payload)
            rows.append(row)
            size += len(row.copied) + _ROW_REST
        except UnstorableError as error:
            rejections.append(Rejection(source, sequence, chain, payload, str(error)))
            size += _REJECTION_REST
        size += len(chain) + len(payload)
    oldest_us = min((row.time_us for row in rows), default=None)
    return Portion(source, events[-1][0], rows, rejections, size, stream, oldest_us)


class Batcher:
    """Gives the store one batch at a time: when enough is there, or the oldest waited long enough."""

    def __init__(
        self,
        store: Store,
        in_thread: Callable[..., Any],
        metrics: WriterMetrics,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`in_thread(function, *arguments)` is awaited: it runs the function on the thread that owns the store."""
        self._store = store
        self._in_thread = in_thread
        self._metrics = metrics
        self._pace = pace
        self._clock = clock
        self._waiting: turns.Turns[Portion] = turns.Turns()
        self._events = 0
        self._bytes = 0
        """Waiting, or being committed."""
        self._reserved = 0
        """Of what is being read, and does not wait yet."""
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Condition()
        self._problem = "the database was not reached yet"
        self._since: float | None = None
        """When the store was asked for what it has not done yet."""

    @property
    def problem(self) -> str:
        """Why nothing can be committed now; empty where it can."""
        if self._since is not None and time.monotonic() - self._since > _PATIENCE:
            return self._problem or "the database does not answer"
        return self._problem

    async def reserve(self, message: int) -> int:
        """Waits until a message of so many bytes may be read; what it is taken to become, to be given to `release`."""
        async with self._room:
            await self._room.wait_for(lambda: self._bytes + self._reserved < self._pace.max_bytes)
            # The message, its payloads and their rows.
            self._reserved += 3 * message
        return 3 * message

    async def release(self, reserved: int) -> None:
        """What was read waits now, or is given up."""
        self._reserved -= reserved
        async with self._room:
            self._room.notify_all()

    async def submit(self, portion: Portion) -> None:
        """Takes events as soon as there is room for them; `portion.committed` tells the rest."""
        async with self._room:
            # What comes alone is taken whatever its size.
            await self._room.wait_for(lambda: not self._bytes or self._bytes + portion.size <= self._pace.max_bytes)
            self._bytes += portion.size
        portion.came = self._clock()
        self._waiting.add(portion)
        self._events += portion.events
        self._metrics.pending(self._events, self._bytes, late=self._pace.late)
        self._arrived.set()
        if self._events >= self._pace.max_events:
            self._enough.set()

    async def run(self) -> None:
        """Commits until cancelled; what is being committed then may still be, and is not acknowledged."""
        while True:
            try:
                await asyncio.wait_for(self._arrived.wait(), _PING_INTERVAL)
            except TimeoutError:
                if not self._pace.late:
                    await self._ping()
                continue
            # What came while the last batch was committed has waited for as long.
            waits = self._waiting.first.came + self._pace.max_delay - self._clock()
            if waits > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), waits)
            batch = self._take()
            # Late events take long, and come again on another stream: only what is waited for is worth it.
            wanted = [portion for portion in batch if not (self._pace.late and portion.stream.gone)]
            if wanted:
                await self._commit(wanted)
            await self._done(batch, wanted)

    def _take(self) -> list[Portion]:
        batch = [self._waiting.take()]
        events = batch[0].events
        while self._waiting and events + self._waiting.first.events <= self._pace.max_events:
            batch.append(self._waiting.take())
            events += batch[-1].events
        self._events -= events
        if not self._waiting:
            self._arrived.clear()
        if self._events < self._pace.max_events:
            self._enough.clear()
        return batch

    async def _commit(self, batch: list[Portion]) -> None:
        """Returns when it is committed, however long that takes."""
        rows = [row for portion in batch for row in portion.rows]
        rejections = [rejection for portion in batch for rejection in portion.rejections]
        wait = _FIRST_WAIT
        while True:
            began = time.monotonic()
            self._since = began
            try:
                written = await self._in_thread(self._store.write, rows, rejections)
            except Exception as error:  # noqa: BLE001 (whatever it is: events wait, and /readyz says why)
                self._failed(error)
                self._metrics.retries.inc()
            else:
                self._working()
                took = time.monotonic() - began
                self._metrics.batch(written, len(rows) + len(rejections), took, late=self._pace.late)
                return
            # Replicas that lost the same database do not come back at the same moment.
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _done(self, batch: list[Portion], committed: list[Portion]) -> None:
        async with self._room:
            self._bytes -= sum(portion.size for portion in batch)
            self._room.notify_all()
        self._metrics.pending(self._events, self._bytes, late=self._pace.late)
        for portion in committed:
            portion.stream.committed(portion)

    async def _ping(self) -> None:
        self._since = time.monotonic()
        try:
            await self._in_thread(self._store.ping)
        except Exception as error:  # noqa: BLE001 (as above)
            self._failed(error)
        else:
            self._working()

    def _working(self) -> None:
        self._since = None
        if self._problem:
            _log.info("the database takes events")
        self._problem = ""

    def _failed(self, error: Exception) -> None:
        self._since = None
        problem = " ".join(str(error).split()) or type(error).__name__
        if problem != self._problem:
            _log.warning("the database takes no events; they stay in the spools", extra={"error": problem})
        self._problem = problem
