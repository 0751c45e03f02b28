"""A small bundle server for trials and tests: one folder, ETag, long polling as OPA's bundle services have it."""

import contextlib
import hmac
import re
import time
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Event
from typing import Any, Final

from sark_pdp.addresses import TcpAddress
from sark_pdp.errors import StartError

LONG_POLLING: Final = "application/vnd.openpolicyagent.bundles"
_MOST_CONNECTIONS: Final = 256
_LONGEST_WAIT: Final = 300.0
_PATIENCE: Final = 10.0
"""Seconds for a request to come in, and for each piece of the answer to be taken."""
_LOOK: Final = 0.1
"""Seconds between two looks at a file that somebody waits for."""
_WAIT = re.compile(r"(?:^|[;,]\s*)wait=([0-9]{1,6})(?:$|[;,])")


class BundleServer(ThreadingHTTPServer):
    """Serves the files directly in a folder, to anybody or to whoever has the token. `close` ends it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, address: TcpAddress, token: str | None = None) -> None:
        """Raises StartError where the address cannot be listened on."""
        self.folder = folder
        self.token = token
        self.closing = Event()
        self._room = BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            super().__init__((address.host, address.port), _Handler)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}") from None
        self.address = TcpAddress(address.host, self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread for each connection, up to a number; who comes then is turned away."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers what comes on one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell of."""
        del request, client_address

    def close(self) -> None:
        """Lets go of whoever waits, and of the port. Not from the thread that serves."""
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: BundleServer
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """The file that the path names, or 304 where the caller has it already."""
        token = self.server.token
        given = self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            self._refuse(HTTPStatus.UNAUTHORIZED)
            return
        name = self.path.partition("?")[0].removeprefix("/")
        file = self.server.folder / name
        if not name or "/" in name or "%" in name or name.startswith(".") or not file.is_file():
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        known = {etag.strip() for etag in self.headers.get("If-None-Match", "").split(",")}
        wait = _WAIT.search(self.headers.get("Prefer", ""))
        deadline = time.monotonic() + (min(float(wait[1]), _LONGEST_WAIT) if wait else 0.0)
        content, etag = self._read(file)
        while etag in known and time.monotonic() < deadline and not self.server.closing.wait(_LOOK):
            content, etag = self._read(file)
        if etag in known:
            self._answer(HTTPStatus.NOT_MODIFIED, etag, b"")
        else:
            self._answer(HTTPStatus.OK, etag, content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the base class
        """Nothing: who wants to know looks at the sidecar."""

    def _read(self, file: Path) -> tuple[bytes, str]:
        with contextlib.suppress(OSError):
            content = file.read_bytes()
            return content, f'"{sha256(content).hexdigest()}"'
        return b"", '""'

    def _answer(self, status: HTTPStatus, etag: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", etag)
        if status is HTTPStatus.OK:
            self.send_header("Content-Type", LONG_POLLING)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
