"""An audit writer in memory, which does what a test tells it to: the other end of a shipper."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc

from sark_pdp._proto.audit_pb2 import Ack, Batch
from sark_pdp.audit.uplink import PUSH

Behave = Callable[["MemoryWriter", Iterator[Batch], grpc.ServicerContext], Iterator[Ack]]
"""What one stream does."""


class MemoryWriter(grpc.GenericRpcHandler):
    """Keeps events by source and sequence number, and acknowledges them unless `behave` does otherwise."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.events: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self.received = 0
        """Events, those that came again included."""
        self.bytes = 0
        self.streams = 0
        self.behave: Behave = acknowledge
        self.released = threading.Event()
        """For behaviours that wait for the test."""
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=(("grpc.so_reuseport", 0),))
        place = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(place)
        else:
            self.port = self._server.add_secure_port(place, credentials)
        self._server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method != PUSH:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._push, request_deserializer=Batch.FromString, response_serializer=Ack.SerializeToString
        )

    def keep(self, batch: Batch) -> None:
        """Stores a batch; one that says of an event what it did not say before fails."""
        for event in batch.events:
            key, value = (event.source or batch.source, event.sequence), (event.chain, event.payload)
            assert self.events.setdefault(key, value) == value
        self.received += len(batch.events)
        self.bytes += batch.ByteSize()

    def sequences(self, source: str) -> list[int]:
        return sorted(sequence for name, sequence in self.events if name == source)

    def stop(self) -> None:
        """Ends all streams now."""
        self.released.set()
        self._server.stop(0).wait(30)

    def _push(self, batches: Iterator[Batch], context: grpc.ServicerContext) -> Iterator[Ack]:
        self.streams += 1
        yield from self.behave(self, batches, context)


def acknowledge(writer: MemoryWriter, batches: Iterator[Batch], _: grpc.ServicerContext) -> Iterator[Ack]:
    for batch in batches:
        writer.keep(batch)
        yield ack_of(batch)


def ack_of(batch: Batch, more: int = 0) -> Ack:
    return Ack(source=batch.source, sequence=batch.events[-1].sequence + more)


def acknowledge_oddly(writer: MemoryWriter, batches: Iterator[Batch], _: grpc.ServicerContext) -> Iterator[Ack]:
    """In parts, again, and late ones after newer ones."""
    first: Ack | None = None
    for batch in batches:
        writer.keep(batch)
        yield Ack(source=batch.source, sequence=batch.events[0].sequence)
        yield ack_of(batch)
        yield ack_of(batch)
        yield first or ack_of(batch)
        first = first or ack_of(batch)


def hold(writer: MemoryWriter, batches: Iterator[Batch], _: grpc.ServicerContext) -> Iterator[Ack]:
    """Takes everything and acknowledges nothing until it is released."""
    acks: SimpleQueue[Ack | None] = SimpleQueue()

    def read() -> None:
        with contextlib.suppress(Exception):
            for batch in batches:
                writer.keep(batch)
                acks.put(ack_of(batch))
        acks.put(None)

    threading.Thread(target=read, daemon=True).start()
    writer.released.wait(60)
    yield from iter(acks.get, None)


def refuse(_: MemoryWriter, __: Iterator[Batch], context: grpc.ServicerContext) -> Iterator[Ack]:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "the certificate does not cover\nthis source")


def reset_between_acknowledgements(
    writer: MemoryWriter, batches: Iterator[Batch], context: grpc.ServicerContext
) -> Iterator[Ack]:
    """Stores two batches, acknowledges the first, and is gone."""
    for index, batch in enumerate(batches):
        writer.keep(batch)
        if index:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        yield ack_of(batch)


def acknowledge_too_much(writer: MemoryWriter, batches: Iterator[Batch], _: grpc.ServicerContext) -> Iterator[Ack]:
    """Says that it has what it was never sent."""
    for batch in batches:
        yield ack_of(batch, more=1_000_000)


def acknowledge_a_stranger(writer: MemoryWriter, batches: Iterator[Batch], _: grpc.ServicerContext) -> Iterator[Ack]:
    """Says that it has the events of a source that nobody sent."""
    for batch in batches:
        yield Ack(source=f"{batch.source}x", sequence=1)


def acknowledge_nothing_again_and_again(
    writer: MemoryWriter, batches: Iterator[Batch], context: grpc.ServicerContext
) -> Iterator[Ack]:
    """Is alive, and has stored nothing."""
    source = next(batches).source
    while context.is_active() and not writer.released.wait(0.01):
        yield Ack(source=source, sequence=0)
