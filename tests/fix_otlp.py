"""A collector of OTLP over HTTP that keeps the spans it gets, and can be told to hold its answers back."""

import gzip
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from msgspec import Struct

from tests.fix_native import wait_until


class Span(Struct, frozen=True):
    """One span, with what its resource and scope say."""

    name: str
    trace: str
    id: str
    parent: str
    """Empty where it has none."""
    kind: int
    status: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: tuple[str, str]


class Collector:
    """Listens on loopback from the start; `close` ends it."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.spans: list[Span] = []
        """In the order in which they came."""
        self.paths: set[str] = set()
        self.statuses: list[int] = []
        """What the next exports are answered with; 200 where there is none."""
        self.answering = threading.Event()
        """While it is not set, nothing is answered."""
        self.answering.set()
        self.held = threading.Event()
        """Set once an export came that is not answered."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["content-type"] == "application/x-protobuf"
                status = collector.take(self.path, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, path: str, body: bytes) -> int:
        """The status of the answer."""
        if not self.answering.is_set():
            self.held.set()
            self.answering.wait()
        self.paths.add(path)
        if self.statuses:
            return self.statuses.pop(0)
        self.spans += spans_in(body)
        return 200

    def wait_for(self, parent: str = "", number: int = 1) -> list[Span]:
        """The spans below a span, or all, as soon as there are so many."""

        def found() -> list[Span]:
            spans = [span for span in self.spans if not parent or span.parent == parent]
            return spans if len(spans) >= number else []

        spans: list[Span] = wait_until(found)
        assert len(spans) == number
        return spans

    def close(self) -> None:
        """Lets go of whoever waits."""
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def spans_in(body: bytes) -> list[Span]:
    """Those of an `ExportTraceServiceRequest`."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            span.status.code,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _values(span.attributes),
            _values(group.resource.attributes),
            (scoped.scope.name, scoped.scope.version),
        )
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scoped in group.scope_spans
        for span in scoped.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One of its own for a test."""
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared_collector() -> Iterator[Collector]:
    """One for tests that look at their own traces alone."""
    made = Collector()
    yield made
    made.close()
