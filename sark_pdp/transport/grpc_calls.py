"""Lets grpcio's calls be answered by methods: one behaviour for each kind of call."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc

from sark_pdp.model import NO_DEADLINE, Deadline, Origin
from sark_pdp.observability.metrics import CallMetrics
from sark_pdp.transport.handler import Kind, Metadata, Method, Refusal, Reply, Status, wants_pairs
from sark_pdp.transport.tls import FOREIGN_PEER, Tls, peer_identity
from sark_pdp.transport.trace import HEADER

_log = logging.getLogger(__name__)

STATUS: Final = {code.value[0]: code for code in grpc.StatusCode}


class Load:
    """What one server has on its hands. `_lock` guards `_bytes`, which are being answered now."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._bytes = 0
        self.idle: set[grpc.ServicerContext] = set()
        """Streams of which each message is answered and every answer sent."""

    def enter(self, size: int) -> bool:
        """Whether a message of this size may be answered now; `leave` ends it."""
        with self._lock:
            # A message that comes alone is answered whatever its size.
            if self._bytes and self._bytes + size > self._max_bytes:
                return False
            self._bytes += size
            return True

    def leave(self, size: int) -> None:
        """The message was answered."""
        with self._lock:
            self._bytes -= size


class Calls:
    """The calls of one method on one server."""

    def __init__(
        self,
        method: Method,
        metrics: CallMetrics,
        shed: Callable[[], None],
        load: Load,
        max_message_bytes: int,
        tls: Tls | None,
    ) -> None:
        """`tls` is None where clients need no certificate."""
        self._method = method
        self._metrics = metrics
        self._shed = shed
        self._load = load
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._wants_pairs = wants_pairs(method)

    def behaviours(self, kind: Kind) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What grpcio runs for a call of this kind, and what it runs where the call is refused."""
        match kind:
            case Kind.UNARY:
                return self._unary, self._refused_unary
            case Kind.STREAM:
                return self._stream, self._refused_stream
            case Kind.WATCH:
                return self._watch, self._refused_stream

    def _unary(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """One message each way."""
        began = time.monotonic()
        metadata = self._metadata(context)
        reply = FOREIGN_PEER if metadata is None else self._answer(metadata, message)
        self._metrics.handled(reply.status, time.monotonic() - began)
        return _sent(reply, context)

    def _stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each message is answered, in order; a status that is not OK ends the call."""
        began = time.monotonic()
        status = Status.CANCELLED
        idle = self._load.idle
        try:
            metadata = self._metadata(context)
            if metadata is None:
                status = Status.PERMISSION_DENIED
                _abort(FOREIGN_PEER, context)
            idle.add(context)
            for message in messages:
                idle.discard(context)
                reply = self._answer(metadata, message)
                if reply.status is not Status.OK:
                    status = reply.status
                yield _sent(reply, context)
                idle.add(context)
            status = Status.OK
        finally:
            idle.discard(context)
            self._metrics.handled(status, time.monotonic() - began)

    def _watch(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One message is answered with many, until the caller is gone."""
        began = time.monotonic()
        status = Status.CANCELLED
        try:
            metadata = self._metadata(context)
            if metadata is None:
                status = Status.PERMISSION_DENIED
                _abort(FOREIGN_PEER, context)
            for reply in self._watched(metadata, message):
                if not context.is_active():
                    return
                if reply is not None:
                    if reply.status is not Status.OK:
                        status = reply.status
                    yield _sent(reply, context)
            status = Status.OK
        finally:
            self._metrics.handled(status, time.monotonic() - began)

    def _refused_unary(self, _message: bytes, context: grpc.ServicerContext) -> bytes:
        """Too many calls are in flight."""
        return _sent(self._refused_call(), context)

    def _refused_stream(self, _messages: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        """The same for a call that would stay open."""
        yield _sent(self._refused_call(), context)

    def _refused_call(self) -> Reply:
        reply = self._refusal(Refusal.TOO_MANY_CALLS)
        self._metrics.handled(reply.status, 0.0)
        return reply

    def _answer(self, metadata: Metadata, message: bytes) -> Reply:
        size = len(message)
        if size > self._max_message_bytes:
            return self._method.refusal(Refusal.TOO_LARGE)
        if not self._load.enter(size):
            return self._refusal(Refusal.TOO_MANY_BYTES)
        try:
            return self._method.answer(metadata, message)
        except Exception:  # noqa: BLE001  # grpcio would tell the caller its text
            return self._failed()
        finally:
            self._load.leave(size)

    def _watched(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        try:
            yield from self._method.watch(metadata, message)
        except Exception:  # noqa: BLE001  # see above
            yield self._failed()

    def _failed(self) -> Reply:
        _log.exception("a call failed", extra={"method": type(self._method).__name__})
        return self._method.refusal(Refusal.INTERNAL)

    def _refusal(self, reason: Refusal) -> Reply:
        self._shed()
        return self._method.refusal(reason)

    def _metadata(self, context: grpc.ServicerContext) -> Metadata | None:
        """None where the client's certificate is not one that may call."""
        identity: str | None = ""
        peer = context.peer()
        # A Unix socket is guarded by its permissions: there is no TLS on it, and no certificate.
        if self._tls is not None and not peer.startswith("unix:"):
            identity = peer_identity(_sans(context), self._tls, _origin(peer, "", "").ip_address)
            if identity is None:
                return None
        remaining = context.time_remaining()
        return Metadata(
            NO_DEADLINE if remaining is None else Deadline(time.monotonic() + remaining),
            _origin(peer, _user_agent(context), identity),
            tuple(
                (name, value) for name, value in context.invocation_metadata() if self._wants_pairs or name == HEADER
            ),
        )


def _sans(context: grpc.ServicerContext) -> list[str]:
    # The stubs of grpcio take each property for one value; it is a list of them.
    properties: Mapping[str, Any] = context.auth_context()
    names: Sequence[bytes] = properties.get("x509_subject_alternative_name", ())
    return [name.decode(errors="replace") for name in names]


def _user_agent(context: grpc.ServicerContext) -> str:
    for name, value in context.invocation_metadata():
        if name == "user-agent":
            return str(value)
    return ""


@lru_cache(maxsize=1024)
def _origin(peer: str, user_agent: str, identity: str) -> Origin:
    """`peer` is `ipv4:127.0.0.1:1234`, `ipv6:%5B::1%5D:1234` or `unix:…`."""
    kind, _, rest = unquote(peer).partition(":")
    address = rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else ""
    return Origin(address, user_agent, identity)


def _sent(reply: Reply, context: grpc.ServicerContext) -> bytes:
    if reply.status is not Status.OK:
        _abort(reply, context)
    if reply.initial:
        context.send_initial_metadata(reply.initial)
    if reply.trailing:
        context.set_trailing_metadata(reply.trailing)
    return reply.message


def _abort(reply: Reply, context: grpc.ServicerContext) -> NoReturn:
    context.set_trailing_metadata(reply.trailing)
    context.abort(STATUS[reply.status], reply.details)
    raise AssertionError("abort raises")
