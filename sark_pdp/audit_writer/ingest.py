"""`AuditIngest`: one stream for each sidecar, its events acknowledged when they are committed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import grpc
from msgspec import Struct

from sark_pdp._proto import audit_pb2
from sark_pdp.audit_writer.batcher import Batcher, Portion, portion_of
from sark_pdp.audit_writer.columns import microseconds_of
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.audit_writer.peers import covers, is_one_of, names_of

PUSH: Final = "/sark.audit.v1.AuditIngest/Push"

_WINDOW_BYTES: Final = 24 << 20
"""Of one stream that are not committed yet, as they are in memory; it is not read on until some are. Some twice what a
sidecar sends before it waits, so that the next batch is here when one is committed."""
_LONGEST_SOURCE: Final = 512
"""Characters: what its column holds."""
_MOST_EVENTS: Final = 10_000
"""Of one message, of which a sidecar sends some 256: each takes memory, however small it is."""
_LAST_SEQUENCE: Final = 2**63 - 1

_log = logging.getLogger(__name__)


class Clients(Struct, frozen=True):
    """Which certificates may send."""

    required: bool = False
    """Whether a client has one at all: then it must cover each source that the client sends for."""
    allowed: tuple[str, ...] = ()
    """Where these are stated, it has one of these names as well."""


class _RefusedError(Exception):
    """The stream ends with this status."""

    def __init__(self, code: grpc.StatusCode, details: str, reason: str) -> None:
        super().__init__(details)
        self.code, self.reason = code, reason


class Lanes(Struct, frozen=True):
    """Who takes events. Late ones may take long where the database has compressed their day: others do not wait."""

    usual: Batcher
    late: Batcher
    late_after: timedelta
    """The age from which events are late."""
    late_events: int
    """That are one portion: a sidecar waits for a minute, and each may take half a second."""


class _Stream:
    """What one stream still waits for."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        """Of the client's certificate."""
        self.acknowledged: dict[str, int] = {}
        """Sequence numbers to be told, by source."""
        self.waiting: dict[str, tuple[int, bool]] = {}
        """Of each source that has any: how many portions are not committed, and whether they are among the late."""
        self.bytes = 0
        """Not committed yet."""
        self.turn = 0
        self.gone = False
        self.changed = asyncio.Event()
        """There is something to tell, or to end for."""
        self.room = asyncio.Event()
        """It may be read on."""
        self.room.set()
        self.reading: asyncio.Task[None] | None = None

    def goes_late(self, portion: Portion, late_us: int) -> bool:
        """Whether it belongs among the late ones, being older than `late_us`.

        Those of a source stay in order, because an acknowledgement covers all that came before: as long as one of them
        is not committed, the next ones wait behind it, whatever their age.
        """
        waiting = self.waiting.get(portion.source)
        if waiting is not None:
            return waiting[1]
        return portion.oldest_us is not None and portion.oldest_us < late_us

    def submitted(self, portion: Portion) -> None:
        """A batcher has it."""
        self.bytes += portion.size
        number, _ = self.waiting.get(portion.source, (0, portion.late))
        self.waiting[portion.source] = number + 1, portion.late
        if self.bytes > _WINDOW_BYTES:
            self.room.clear()

    def committed(self, portion: Portion) -> None:
        """Called by the batcher."""
        self.bytes -= portion.size
        number, late = self.waiting.pop(portion.source)
        if number > 1:
            self.waiting[portion.source] = number - 1, late
        self.acknowledged[portion.source] = portion.last
        if self.bytes <= _WINDOW_BYTES:
            self.room.set()
        self.changed.set()


class Ingest:
    """The method. Belongs to one event loop."""

    def __init__(self, lanes: Lanes, metrics: WriterMetrics, clients: Clients) -> None:
        self._lanes = lanes
        self._metrics = metrics
        self._clients = clients
        self._streams: set[_Stream] = set()

    async def push(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answers batches with acknowledgements until the client has sent everything and all of it is committed."""
        stream = _Stream(names_of(context))
        reading = stream.reading = asyncio.create_task(self._read(stream, messages))
        reading.add_done_callback(lambda _: stream.changed.set())
        self._streams.add(stream)
        self._metrics.streams.set(len(self._streams))
        try:
            while stream.acknowledged or stream.bytes or not reading.done():
                await stream.changed.wait()
                stream.changed.clear()
                acknowledged, stream.acknowledged = stream.acknowledged, {}
                for source, sequence in acknowledged.items():
                    yield audit_pb2.Ack(source=source, sequence=sequence).SerializeToString()
        finally:
            reading.cancel()
            stream.gone = True
            self._streams.discard(stream)
            self._metrics.streams.set(len(self._streams))
        await self._end(reading, context)

    def stop(self) -> None:
        """No stream is read on; each ends when what was read of it is committed and acknowledged."""
        for stream in self._streams:
            if stream.reading is not None:
                stream.reading.cancel()

    async def _end(self, reading: "asyncio.Task[None]", context: Any) -> None:
        """Says how the stream ended, where the client did not end it."""
        if reading.cancelled():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this writer is going down; another one takes the rest")
        error = reading.exception()
        if isinstance(error, _RefusedError):
            self._metrics.refused.labels(error.reason).inc()
            _log.warning("a stream was refused", extra={"peer": context.peer(), "reason": error.reason})
            await context.abort(error.code, str(error))
        if error is not None:
            raise error

    async def _read(self, stream: _Stream, messages: AsyncIterator[bytes]) -> None:
        usual = self._lanes.usual
        async for message in messages:
            reserved = await usual.reserve(len(message))
            try:
                late_us = microseconds_of(datetime.now(UTC) - self._lanes.late_after)
                for portion in self._portions(stream, message, late_us):
                    if portion.late:
                        # It waits for another room than the others.
                        await usual.release(reserved)
                        reserved = 0
                    await (self._lanes.late if portion.late else usual).submit(portion)
                    stream.submitted(portion)
            finally:
                await usual.release(reserved)
            await stream.room.wait()

    def _portions(self, stream: _Stream, message: bytes, late_us: int) -> Iterator[Portion]:
        """One at a time: where the next one goes depends on what the stream waits for by then."""
        for source, events in self._events(stream, message):
            portion = portion_of(source, events, stream)
            late = stream.goes_late(portion, late_us)
            most = self._lanes.late_events
            parts = [portion]
            if late and len(events) > most:
                parts = [
                    portion_of(source, events[start : start + most], stream) for start in range(0, len(events), most)
                ]
            for part in parts:
                part.late = late
                yield part

    def _events(self, stream: _Stream, message: bytes) -> list[tuple[str, list[tuple[int, bytes, bytes]]]]:
        """Of a message, by source."""
        try:
            batch = audit_pb2.Batch.FromString(message)
        except Exception as error:  # protobuf's decode error has no public name that stays
            raise _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the message is no Batch", "malformed") from error
        if len(batch.events) > _MOST_EVENTS:
            raise _RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, f"events: expected at most {_MOST_EVENTS} in a message", "malformed"
            )
        found = []
        for source, events in groupby(batch.events, key=lambda event: event.source or batch.source):
            self._check(source, stream.names)
            listed = [(event.sequence, event.chain, event.payload) for event in events]
            if not all(0 < sequence <= _LAST_SEQUENCE for sequence, _, _ in listed):
                raise _RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT, "events[].sequence: expected 1 to 2^63 - 1", "malformed"
                )
            found.append((source, listed))
        return found

    def _check(self, source: str, names: Sequence[str]) -> None:
        if not source or len(source) > _LONGEST_SOURCE or not source.isprintable():
            raise _RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "source: expected 1 to 512 printable characters", "malformed"
            )
        clients = self._clients
        if not clients.required:
            return
        if clients.allowed and not is_one_of(names, clients.allowed):
            raise _RefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                "the client's certificate has none of the names in tls.allowed_sans",
                "sans",
            )
        if not covers(names, source):
            raise _RefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the client's certificate does not cover the source {source!r}: a subject alternative name must be"
                " the part before the slash",
                "source",
            )
