"""The listener for scrapes and probes: `/metrics`, `/healthz`, `/readyz`."""

import logging
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sark_pdp.addresses import TcpAddress
from sark_pdp.errors import StartError

_MAX_CONNECTIONS = 16
_MAX_HEAD_BYTES = 16 * 1024
_TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""


class ProbeListener:
    """Serves a registry and two probes over plain HTTP, each connection on a thread of its own, a few at a time."""

    def __init__(
        self,
        address: TcpAddress,
        registry: CollectorRegistry,
        not_ready: Callable[[], str | None],
        patience: float = 2.0,
    ) -> None:
        """`not_ready` says why calls would be refused now, None where they are answered.

        A client gets `patience` seconds for all of its request, and again for taking the answer.
        """
        self._address = address
        self._registry = registry
        self._not_ready = not_ready
        self._patience = patience
        self._server: _Server | None = None
        self._thread: Thread | None = None

    @property
    def address(self) -> TcpAddress:
        """Where it listens, with the port that was free where 0 was asked for."""
        if self._server is None:
            return self._address
        return TcpAddress(self._address.host, self._server.server_address[1])

    def start(self) -> None:
        """Raises StartError where the address cannot be listened on."""
        try:
            server = _Server(self._address, self._answer, self._patience)
        except OSError as error:
            raise StartError(
                f"listen.metrics: cannot listen on {self._address}: {error.strerror or error}; free it or set another"
            ) from error
        self._server = server
        self._thread = Thread(target=server.serve_forever, args=(0.2,), name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening; may be called twice, or without a start."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._thread = None

    def _answer(self, path: str, accept: str) -> Answer:
        match path:
            case "/metrics":
                encode, content_type = choose_encoder(accept)
                return HTTPStatus.OK, content_type, encode(self._registry)
            case "/healthz":
                return HTTPStatus.OK, _TEXT, b"ok\n"
            case "/readyz":
                reason = self._not_ready()
                if reason is None:
                    return HTTPStatus.OK, _TEXT, b"ready\n"
                return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"not ready: {reason}\n".encode()
            case _:
                return HTTPStatus.NOT_FOUND, _TEXT, b"there are /metrics, /healthz and /readyz\n"


class _Server(ThreadingMixIn, TCPServer):
    """Not `http.server.HTTPServer`, whose bind asks the DNS for the host's name."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: TcpAddress, answer: Callable[[str, str], Answer], patience: float) -> None:
        self.answer = answer
        self.patience = patience
        self._free = BoundedSemaphore(_MAX_CONNECTIONS)
        self.address_family, *_, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        super().__init__(where[:2], _Connection)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        # Those who are being served leave within their patience, so this waits for a bounded time.
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread could be started.
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up in the middle is nobody's problem here.
        _log.debug("a probe's connection broke", exc_info=True)


class _Connection(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so the connection ends with it."""

    server: _Server
    server_version = "sark-pdp"
    sys_version = ""
    default_request_version = "HTTP/1.0"
    """0.9, the base's, would answer nonsense without a status."""

    def setup(self) -> None:
        super().setup()
        self.rfile = BytesIO(self._read_head())

    def do_GET(self) -> None:
        try:
            status, content_type, body = self.server.answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
        except Exception:  # noqa: BLE001 (logged)
            _log.exception("a probe could not be answered", extra={"path": self.path})
            status, content_type, body = HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"failed; the log has the reason\n"
        self._send(status, content_type, body)

    do_HEAD = do_GET  # noqa: N815 (the name that the base class looks up)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._send(HTTPStatus(code), _TEXT, f"{message or HTTPStatus(code).phrase}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (overrides)
        """Probes come every few seconds: nothing to tell."""

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # `sendall` has one deadline for all that it sends, however slowly that is taken.
        self.connection.settimeout(self.server.patience)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _read_head(self) -> bytes:
        """All up to the empty line, by one deadline that single bytes do not renew; empty where it is missed."""
        deadline = time.monotonic() + self.server.patience
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) > _MAX_HEAD_BYTES:
                return b""
            self.connection.settimeout(left)
            try:
                received = self.connection.recv(4096)
            except TimeoutError:
                return b""
            if not received:
                return head
            head += received
        return head
