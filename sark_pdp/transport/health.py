"""`grpc.health.v1.Health`, and the readiness that it tells."""

import threading
from collections.abc import Iterable, Iterator
from typing import Final

from grpc_health.v1 import health_pb2

from sark_pdp.errors import InvalidRequestError
from sark_pdp.transport.handler import Kind, Metadata, Method, Reply, Status, refused
from sark_pdp.transport.method import NativeMethod, parsed

SERVICE: Final = "grpc.health.v1.Health"

_STILL_THERE_SECONDS: Final = 1.0

_Response = health_pb2.HealthCheckResponse


class Readiness:
    """Whether this process answers decisions, and if not, why. `_changed` guards the rest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._problem = "no policy bundle is active yet"
        self._closed = False

    @property
    def problem(self) -> str:
        """Empty while serving."""
        return self._problem

    @property
    def closed(self) -> bool:
        """Whether nothing will change any more."""
        return self._closed

    def set_serving(self) -> None:
        """Decisions are answered from now on."""
        self._set("", closed=False)

    def set_stopping(self) -> None:
        """For good; everybody who watches is told and let go."""
        self._set("the process is going down", closed=True)

    def wait_changed(self, problem: str, timeout: float) -> str:
        """The problem as soon as it differs from `problem`, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._problem != problem or self._closed, timeout)
            return self._problem

    def _set(self, problem: str, *, closed: bool) -> None:
        with self._changed:
            if self._closed:
                return
            self._problem, self._closed = problem, closed
            self._changed.notify_all()


class _Health(NativeMethod):
    def __init__(self, readiness: Readiness, services: Iterable[str]) -> None:
        self._readiness = readiness
        # The empty name stands for the process as a whole.
        self._services = frozenset(services) | {""}

    def _status(self, service: str, problem: str) -> int:
        if service not in self._services:
            return int(_Response.SERVICE_UNKNOWN)
        return int(_Response.NOT_SERVING if problem else _Response.SERVING)


class Check(_Health):
    """The status now."""

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """NOT_FOUND for a service that is not served here, as the protocol demands."""
        reply = super().answer(metadata, message)
        unknown = _Response(status=_Response.SERVICE_UNKNOWN).SerializeToString()
        if reply.message == unknown:
            return Reply(status=Status.NOT_FOUND, details="no such service is served here")
        return reply

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        del metadata
        service = parsed(health_pb2.HealthCheckRequest, message).service
        return bytes(_Response(status=self._status(service, self._readiness.problem)).SerializeToString())


class Watch(_Health):
    """The status now and whenever it changes."""

    kind = Kind.WATCH

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        """Ends when the process goes down."""
        del metadata
        try:
            service = parsed(health_pb2.HealthCheckRequest, message).service
        except InvalidRequestError as error:
            yield refused(error)
            return
        told = None
        problem = self._readiness.problem
        while True:
            status = self._status(service, problem)
            if status != told:
                told = status
                yield Reply(_Response(status=status).SerializeToString())
            else:
                yield None
            if self._readiness.closed:
                return
            problem = self._readiness.wait_changed(problem, _STILL_THERE_SECONDS)


def methods(readiness: Readiness, services: Iterable[str]) -> dict[str, Method]:
    """The methods of the service by full name; `services` are those whose health may be asked."""
    named = tuple(services)
    return {f"/{SERVICE}/Check": Check(readiness, named), f"/{SERVICE}/Watch": Watch(readiness, named)}
