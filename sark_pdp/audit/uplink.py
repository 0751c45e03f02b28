"""Connections to audit writers: channels, certificates, and one stream of batches and acknowledgements.

The only module here that imports grpcio: a sidecar without `audit.writer` does not pay for it.
"""

import json
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import grpc
from msgspec import Struct

from sark_pdp._proto.audit_pb2 import Ack, Batch
from sark_pdp.audit.source import Sealed
from sark_pdp.errors import ShippingError, StartError, one_line

PUSH: Final = "/sark.audit.v1.AuditIngest/Push"

_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # A name that stands for several writers: each stream goes to another one.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # A channel is tried once and then made anew; how long one attempt may take.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
)
_LONGEST_DETAILS: Final = 200

Signature = tuple[tuple[int, int, int], ...]
"""Changes with the files."""


class WriterTls(Struct, frozen=True):
    """Files of PEM, read anew for each connection."""

    ca_file: Path
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None

    def signature(self) -> Signature:
        """Raises ShippingError where a file cannot be looked at."""
        return tuple((at.st_ino, at.st_size, at.st_mtime_ns) for at in map(_stat, self._files))

    def require_usable(self) -> None:
        """Raises StartError; gRPC itself would say no more than that it cannot connect."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        wanted = f"audit.tls.ca_file: {self.ca_file} must be certificates"
        try:
            context.load_verify_locations(self.ca_file)
            if self.cert_file is not None:
                wanted = "audit.tls.cert_file and audit.tls.key_file: "
                wanted += f"{self.cert_file} and {self.key_file} must be a certificate and its key"
                # With an empty password OpenSSL asks nobody for one.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:
            raise StartError(f"{wanted}, in PEM and without a password") from error

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ShippingError where a file cannot be read."""
        ca, *pair = (_read(file) for file in self._files)
        chain, key = pair or (None, None)
        return grpc.ssl_channel_credentials(ca, key, chain)

    @property
    def _files(self) -> list[Path]:
        return [file for file in (self.ca_file, self.cert_file, self.key_file) if file is not None]


class Uplink:
    """Where to ship to. For one thread."""

    def __init__(self, targets: Sequence[str], tls: WriterTls | None) -> None:
        """`targets` as gRPC takes them; each connection is to the next. Raises StartError for files of no use."""
        if tls is not None:
            tls.require_usable()
        self.reloads = tls is not None
        """Whether there are files that may change."""
        self._tls = tls
        # Sidecars that start together shall not all begin with the same one.
        self._targets = deque(random.sample(targets, len(targets)))
        self._signature: Signature = ()

    @property
    def target(self) -> str:
        """The writer that is tried now."""
        return self._targets[0]

    def changed(self) -> bool:
        """Whether the files are other ones than those of the connection; False where they cannot be read now."""
        try:
            return self._tls is not None and self._tls.signature() != self._signature
        except ShippingError:
            return False

    def open(self, on_news: Callable[[], None]) -> "Stream":
        """A new stream; `on_news` is called from other threads. Raises ShippingError."""
        tls, options = self._tls, _OPTIONS
        if tls is None:
            return Stream(grpc.insecure_channel(self.target, options), on_news)
        self._signature = tls.signature()
        if tls.server_name:
            options = (*options, ("grpc.ssl_target_name_override", tls.server_name))
        return Stream(grpc.secure_channel(self.target, tls.credentials(), options), on_news)

    def try_next(self) -> None:
        """The next connection is to another writer, where there are several."""
        self._targets.rotate(-1)


class Stream:
    """One call of Push. `send`, `finish` and `close` are for one thread, acknowledgements come from another."""

    def __init__(self, channel: grpc.Channel, on_news: Callable[[], None]) -> None:
        self.ended = False
        """No acknowledgement will be added any more."""
        self.problem = ""
        """Why it ended; empty where the writer ended it in order."""
        self.acknowledged: deque[tuple[str, int]] = deque()
        """Source and sequence number, in the order in which they came; taken out by the user."""
        self._channel = channel
        self._on_news = on_news
        # Bounded by the window of its user.
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        call: Any = channel.stream_stream(PUSH, request_serializer=None, response_deserializer=Ack.FromString)
        self._call = call(iter(self._outgoing.get, None))
        self._thread = threading.Thread(target=self._receive, name="shipper_acks", daemon=True)
        self._thread.start()

    def send(self, batch: bytes) -> None:
        """Hands a message over; it leaves when the connection takes it."""
        self._outgoing.put(batch)

    def finish(self) -> None:
        """Nothing more will be sent; the writer acknowledges the rest and ends the stream."""
        self._outgoing.put(None)

    def close(self) -> None:
        """Ends it now."""
        self._call.cancel()
        self._outgoing.put(None)
        self._channel.close()

    def _receive(self) -> None:
        try:
            for ack in self._call:
                self.acknowledged.append((ack.source, ack.sequence))
                self._on_news()
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            self.problem = f"{code.name}: {one_line(details, _LONGEST_DETAILS)}"
        finally:
            self.ended = True
            self._on_news()


def batch_of(source: str, first: int, events: Sequence[Sealed], slice_: int, pause: Callable[[], None]) -> bytes:
    """The message for consecutive events; `pause` is called after each `slice_` of them."""
    batch = Batch(source=source)
    add = batch.events.add
    for sequence, event in enumerate(events, first):
        add(sequence=sequence, chain=event.chain, payload=event.payload)
        if (sequence - first) % slice_ == slice_ - 1:
            pause()
    return batch.SerializeToString()


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError as error:
        raise ShippingError(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ShippingError(f"{path} cannot be read: {error.strerror}") from error
