"""The real Envoy in front of a small HTTP server, asking a decision point about each request."""

import http.client
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from msgspec import Struct

START_TIMEOUT = 60.0
PATIENCE = 30
"""Seconds for an answer that takes milliseconds on an idle machine."""
MAX_BODY_BYTES = 8192
"""Of a request's body, Envoy sends this much to the decision point."""

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_METADATA = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz{})%"


class Response(Struct, frozen=True):
    """What a client of Envoy gets."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        """Each value of a header."""
        return [value for key, value in self.headers if key.lower() == name]


class Upstream(ThreadingHTTPServer):
    """Answers a request with a description of it, and counts what reaches it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.reached = 0


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        assert isinstance(self.server, Upstream)
        self.server.reached += 1
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        seen = {"method": self.command, "path": self.path, "headers": self.headers.items(), "body": body.decode()}
        answer = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-upstream", "echo")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # the names that the server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the signature of the base class
        """Keeps standard error for what went wrong."""


class Envoy:
    """One Envoy; `asks` is the address of the decision point, `host:port` or `unix:///path`."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        upstream: Upstream,
        asks: str,
        filter_: Mapping[str, Any],
        before: Sequence[Mapping[str, Any]] = (),
        forwards_to: int | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`filter_` are fields of the ext_authz filter that differ from the usual ones, `before` filters before it.

        `forwards_to` is the port of another server than `upstream`; `change` may alter the configuration in place.
        """
        # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
        from tests.fix_serve import free_port

        self.port = free_port()
        self.upstream = upstream
        self._folder = folder
        config = folder / "envoy.json"
        made = _config(self.port, forwards_to or upstream.server_port, asks, filter_, folder / "access.log", before)
        if change is not None:
            change(made)
        config.write_text(json.dumps(made))
        flags = [
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "20",
        ]
        with (folder / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-c", config, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )

    def wait_ready(self) -> None:
        """Until its listener answers; fails with its log where it ends or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._listens():
            assert self._process.poll() is None, f"Envoy ended:\n{self.log}"
            assert time.monotonic() < deadline, f"Envoy is not ready after {START_TIMEOUT} s:\n{self.log}"
            time.sleep(0.02)

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """One request through Envoy, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2 * PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, tuple(response.getheaders()), response.read())
        finally:
            connection.close()

    def wait_logged(self, request_id: str) -> dict[str, Any]:
        """The line of the access log about the request with this `x-request-id`."""
        deadline = time.monotonic() + PATIENCE
        log = self._folder / "access.log"
        while time.monotonic() < deadline:
            # A last line that is not yet written whole has no end.
            lines = log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []
            for line in map(json.loads, lines):
                if line["request_id"] == request_id:
                    assert isinstance(line, dict)
                    return line
            time.sleep(0.02)
        pytest.fail(f"Envoy did not log request {request_id}:\n{self.log}")

    @property
    def log(self) -> str:
        """What it complained about."""
        return (self._folder / "envoy.log").read_text()

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        # A path that Envoy answers itself, without asking anyone.
        try:
            return self.request("GET", "/envoy-is-ready").status == 204
        except OSError:
            return False


def _config(
    port: int,
    upstream: int,
    asks: str,
    filter_: Mapping[str, Any],
    access_log: Path,
    before: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "access_log": [_access_log(access_log)],
        # So that a test finds its own line.
        "preserve_external_request_id": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}]},
        "http_filters": [
            *before,
            {"name": "envoy.filters.http.ext_authz", "typed_config": _ext_authz(filter_)},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            },
        ],
    }
    listener = {
        "name": "ingress",
        "address": _socket("127.0.0.1", port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    clusters = [
        _cluster("upstream", _socket("127.0.0.1", upstream)),
        {**_cluster("decision_point", _address(asks)), "typed_extension_protocol_options": http2},
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _routes() -> list[dict[str, Any]]:
    unasked = {
        "envoy.filters.http.ext_authz": {
            "@type": f"{_EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "disabled": True,
        }
    }
    return [
        {
            "match": {"path": "/envoy-is-ready"},
            "direct_response": {"status": 204},
            "typed_per_filter_config": unasked,
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
    ]


def _ext_authz(filter_: Mapping[str, Any]) -> dict[str, Any]:
    fields = {
        "@type": f"{_EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "decision_point"}, "timeout": f"{PATIENCE}s"},
        "with_request_body": {"max_request_bytes": MAX_BODY_BYTES, "allow_partial_message": True},
        **filter_,
    }
    # A field that is null is left out.
    return {name: value for name, value in fields.items() if value is not None}


def _access_log(path: Path) -> dict[str, Any]:
    fields = {
        "request_id": "%REQ(X-REQUEST-ID)%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "metadata": _METADATA.format(""),
        "decision_id": _METADATA.format(":decision_id"),
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "connect_timeout": f"{PATIENCE}s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _address(asks: str) -> dict[str, Any]:
    if asks.startswith("unix://"):
        return {"pipe": {"path": asks.removeprefix("unix://")}}
    host, _, port = asks.rpartition(":")
    return _socket(host, int(port))


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


StartEnvoy: TypeAlias = Callable[..., Envoy]


@contextmanager
def running_envoy(
    program: Path,
    asks: str,
    filter_: Mapping[str, Any] | None = None,
    before: Sequence[Mapping[str, Any]] = (),
    forwards_to: int | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Envoy]:
    """An Envoy that is ready, and ended afterwards."""
    upstream = Upstream()
    serving = threading.Thread(target=upstream.serve_forever, args=(0.02,), daemon=True)
    serving.start()
    try:
        with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as folder:
            started = Envoy(program, Path(folder), upstream, asks, filter_ or {}, before, forwards_to, change)
            try:
                started.wait_ready()
                yield started
            finally:
                started.stop()
    finally:
        upstream.shutdown()
        serving.join()
        upstream.server_close()


@pytest.fixture
def start_envoy(envoy: Path) -> Iterator[StartEnvoy]:
    """Starts one that asks the decision point at an address, with a filter of its own; ends it after the test."""
    with ExitStack() as stack:

        def start(asks: str, filter_: Mapping[str, Any] | None = None, **options: Any) -> Envoy:
            return stack.enter_context(running_envoy(envoy, asks, filter_, **options))

        yield start
