"""The connection to audit writers that the `sark-pdp audit` commands ask over; what goes wrong with it, in words."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
import grpc

from sark_pdp._proto import audit_pb2
from sark_pdp.audit.uplink import WriterTls
from sark_pdp.errors import AuditError, ShippingError, one_line

_SERVICE: Final = "/sark.audit.v1.AuditQuery"
_TIMEOUT: Final = 40.0
"""Seconds of one answer: a writer gives its database 30."""
_PATIENCE: Final = 60.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_MOST_CHARACTERS: Final = 300
_LARGEST_ANSWER: Final = 64 << 20
"""Bytes: more than a page has, of which one event may be of 8 MiB."""
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _LARGEST_ANSWER),
    # How long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Whoever follows sends nothing, and would wait for ever for a machine that is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)
"""What may be over soon where it ended a call of Tail."""


class BrokenError(AuditError):
    """A writer is gone, or tells that something was missed: to ask again may help."""


class TooMuchError(AuditError):
    """The answer is larger than a writer gives at once."""


class Asking:
    """Questions to one of several writers, the next where one is gone. For one thread; close it."""

    def __init__(self, targets: Sequence[str], tls: WriterTls | None) -> None:
        """`targets` as gRPC takes them. Raises StartError for files of no use."""
        if tls is not None:
            tls.require_usable()
        self._targets = deque(targets)
        self._tls = tls
        self._channel: grpc.Channel | None = None
        self._answered = False
        self.patience = _PATIENCE
        """Seconds that a writer is waited for which has answered before."""

    @property
    def target(self) -> str:
        """The writer that is asked now."""
        return self._targets[0]

    def search(self, request: "audit_pb2.SearchRequest") -> "audit_pb2.SearchResponse":
        """One page. Raises AuditError, as all here."""
        page: audit_pb2.SearchResponse = self._ask("Search", request, audit_pb2.SearchResponse)
        return page

    def hourly_counts(self, wanted: "audit_pb2.Filter") -> "audit_pb2.HourlyCountsResponse":
        """Raises TooMuchError where they are too many for one answer."""
        counts: audit_pb2.HourlyCountsResponse = self._ask("HourlyCounts", wanted, audit_pb2.HourlyCountsResponse)
        return counts

    @contextmanager
    def tail(self, wanted: "audit_pb2.Filter") -> Iterator[Iterator["audit_pb2.Event"]]:
        """Events from now on; raises BrokenError where the call cannot be made, or ends."""
        call: Any = self._open().unary_stream(
            f"{_SERVICE}/Tail",
            request_serializer=audit_pb2.Filter.SerializeToString,
            response_deserializer=audit_pb2.Event.FromString,
        )(wanted)
        try:
            # Comes when the writer listens, or with the end of the call.
            call.initial_metadata()
            received = self._received(call)
            if call.done():
                next(received, None)
            yield received
        finally:
            call.cancel()

    def close(self) -> None:
        """May be called twice."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _received(self, call: Any) -> Iterator["audit_pb2.Event"]:
        try:
            yield from call
        except grpc.RpcError as error:
            failed = self._error(error)
            if error.code() not in _PASSING:
                raise failed from error
            self._try_next()
            raise BrokenError(str(failed)) from error
        raise BrokenError(f"the audit writer on {self.target} ended the call")

    def _ask(self, method: str, request: Any, kind: Any) -> Any:
        deadline, pause = time.monotonic() + self.patience, _FIRST_PAUSE
        told = False
        while True:
            for _ in range(len(self._targets)):
                try:
                    return self._answer(method, request, kind)
                except grpc.RpcError as error:
                    failed = self._error(error)
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise failed from error
                    self._try_next()
            if not self._answered or time.monotonic() > deadline:
                raise failed
            if not told:
                click.echo(f"sark-pdp: {failed}; trying again for {self.patience:.0f} s", err=True)
                told = True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _answer(self, method: str, request: Any, kind: Any) -> Any:
        call: Any = self._open().unary_unary(
            f"{_SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        answer = call(request, timeout=_TIMEOUT)
        self._answered = True
        return answer

    def _open(self) -> grpc.Channel:
        if self._channel is None:
            if self._tls is None:
                self._channel = grpc.insecure_channel(self.target, _OPTIONS)
            else:
                name = self._tls.server_name
                options = (*_OPTIONS, ("grpc.ssl_target_name_override", name)) if name else _OPTIONS
                try:
                    self._channel = grpc.secure_channel(self.target, self._tls.credentials(), options)
                except ShippingError as error:
                    raise AuditError(str(error)) from error
        return self._channel

    def _try_next(self) -> None:
        self.close()
        self._targets.rotate(-1)

    def _error(self, error: Any) -> AuditError:
        writer = f"the audit writer on {self.target}"
        code, details = error.code(), one_line(error.details() or "", _MOST_CHARACTERS)
        if code in {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
            return TooMuchError(f"{writer} refuses: {details}")
        if code is grpc.StatusCode.UNAVAILABLE:
            return BrokenError(f"{writer} does not answer: {details}")
        return AuditError(
            {
                grpc.StatusCode.PERMISSION_DENIED: f"{writer} does not let you ask: {details}",
                grpc.StatusCode.UNAUTHENTICATED: f"{writer} does not let you ask: {details}",
                grpc.StatusCode.INVALID_ARGUMENT: f"{writer} refuses the question: {details}",
                grpc.StatusCode.DEADLINE_EXCEEDED: f"{writer} took too long; ask for a shorter time with --since and"
                " --until",
                grpc.StatusCode.UNIMPLEMENTED: f"what answers on {self.target} is no audit writer",
            }.get(code, f"{writer} failed: {code.name}: {details}")
        )
