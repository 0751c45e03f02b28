"""Streams to and from a real `sark-pdp audit-writer`, with and without certificates."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import msgspec
import pytest
import uuid_utils

from sark_pdp._proto.audit_pb2 import Ack, Batch, Event
from sark_pdp.audit_writer.batcher import Portion
from tests.fix_writer_process import AuditWriter

PUSH = "/sark.audit.v1.AuditIngest/Push"
QUERY = "/sark.audit.v1.AuditQuery"
SOURCE = "pod-1/0123456789abcdef"
TIMEOUT = 30.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Stream:
    """One open call of Push."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._batches: queue.Queue[Batch | None] = queue.Queue()
        self.call: Any = channel.stream_stream(
            PUSH, request_serializer=Batch.SerializeToString, response_deserializer=Ack.FromString
        )(iter(self._batches.get, None))

    def send(self, *events: Event, source: str = SOURCE) -> None:
        self._batches.put(Batch(source=source, events=events))

    def finish(self) -> None:
        self._batches.put(None)

    def wait_acknowledged(self, sequence: int) -> None:
        for ack in self.call:
            if ack.sequence == sequence:
                return
        raise AssertionError("the stream ended")

    def wait_refused(self) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError):
            list(self.call)
        code: grpc.StatusCode = self.call.code()
        return code


def event(sequence: int, source: str = SOURCE, **columns: Any) -> Event:
    payload = {
        "id": str(uuid_utils.uuid7()),
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "source": source,
        "sequence": sequence,
        "event_type": "authorization_allowed",
        "severity": "low",
        "user_id": "alice",
        "details": {},
        **columns,
    }
    return Event(sequence=sequence, chain=bytes(32), payload=msgspec.json.encode(payload))


Connect: TypeAlias = Callable[[AuditWriter], grpc.Channel]


@pytest.fixture
def channel_to() -> Iterator[Connect]:
    """Connects without TLS."""
    opened: list[grpc.Channel] = []

    def connect(writer: AuditWriter) -> grpc.Channel:
        opened.append(grpc.insecure_channel(writer.address))
        return opened[-1]

    yield connect
    for channel in opened:
        channel.close()


def writer_tls(certificates: Path) -> dict[str, str]:
    """Settings of a writer whose clients need certificates."""
    files = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
    return {f"tls__{key}": str(certificates / name) for key, name in files.items()}


def secure_channel(writer: AuditWriter, certificates: Path) -> grpc.Channel:
    """As client.test."""
    credentials = grpc.ssl_channel_credentials(
        *((certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    )
    options = (("grpc.ssl_target_name_override", "server.test"),)
    return grpc.secure_channel(writer.address, credentials, options)


class Told:
    """A stream that keeps what it is told."""

    def __init__(self) -> None:
        self.turn = 0
        self.gone = False
        self.ends: list[int] = []

    def committed(self, portion: Portion) -> None:
        """Called by the batcher."""
        self.ends.append(portion.last)
