"""Bundles from an HTTP server, asked as OPA asks its bundle services: ETag, long polling, bearer token, client
certificate (https://www.openpolicyagent.org/docs/latest/management-bundles/#bundle-service-api).

`http.client` is in the process already, for the probes; an HTTP library would be megabytes more in each pod.
"""

import contextlib
import gzip
import http.client
import io
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from msgspec import Struct

from sark_pdp.addresses import TcpAddress
from sark_pdp.engine.bundles.sources import Delivery, InterruptedFetchError, Versions, mark_of
from sark_pdp.errors import BundleSizeError, BundleSourceError
from sark_pdp.model import Seconds

if TYPE_CHECKING:
    import ssl

_PATIENCE: Final = 10.0
"""Seconds until a connection is there, and between two pieces of an answer."""
_DOWNLOAD: Final = 300.0
"""Seconds that a whole answer may take."""
_MOST_REDIRECTS: Final = 5
_CHUNK: Final = 256 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_LONG_POLLING: Final = "application/vnd.openpolicyagent.bundles"
"""The content type by which a server says that it takes `wait`."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class HttpLocation(Struct, frozen=True):
    """Where to ask, and what proves who asks."""

    url: str
    token_file: Path | None = None
    """Holds a bearer token; read for each request, for it may rotate."""
    ca_file: Path | None = None
    """PEM; None: the authorities that this machine trusts."""
    client_cert_file: Path | None = None
    client_key_file: Path | None = None


class HttpSource:
    """One URL. `_lock` guards what `interrupt` touches; the rest belongs to the thread that fetches."""

    def __init__(self, location: HttpLocation, max_bytes: int, patience: float = _PATIENCE) -> None:
        self.label = urlsplit(location.url)._replace(query="", fragment="").geturl()
        self._location = location
        self._max_bytes = max_bytes
        self._patience = patience
        # Until a server shows that it does not wait.
        self._waits = True
        self._tls: tuple[object, ssl.SSLContext] | None = None
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._interrupted = False

    def fetch(self, known: Versions, wait: Seconds) -> Delivery:
        """Asks once, and follows redirects."""
        wait = wait if self._waits else Seconds(0.0)
        began = time.monotonic()
        try:
            delivery = self._fetch(urlsplit(self._location.url), known, wait)
        except (BundleSourceError, OSError, http.client.HTTPException, ValueError) as error:
            if self._interrupted:
                raise InterruptedFetchError from None
            if isinstance(error, BundleSourceError):
                raise
            raise BundleSourceError(f"bundle {self.label}: {_said(error)}") from None
        finally:
            with self._lock:
                interrupted, self._interrupted = self._interrupted, False
        if interrupted:
            # An answer without a length looks whole wherever it is cut.
            raise InterruptedFetchError
        if delivery.packed is None and wait and time.monotonic() - began < wait / 2:
            # It says that nothing changed without having waited for it.
            self._waits = False
        return delivery

    def interrupt(self) -> None:
        """Cuts the connection of a fetch that is going on, or of the next: one may be about to begin."""
        with self._lock:
            self._interrupted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _fetch(self, url: SplitResult, known: Versions, wait: Seconds) -> Delivery:
        headers = self._headers(known, wait)
        for _ in range(_MOST_REDIRECTS + 1):
            with self._connected(url, wait) as connection:
                connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""), headers=headers)
                if connection.sock is not None:
                    connection.sock.settimeout(self._patience + wait)
                answer = connection.getresponse()
                if answer.status not in _REDIRECTS:
                    return self._read(answer, known)
                target = urlsplit(urljoin(url.geturl(), answer.headers.get("Location", "")))
            if not _may_redirect(url, target):
                raise BundleSourceError(f"bundle {self.label}: the server redirects to where anybody could answer")
            if (target.scheme, target.netloc) != (url.scheme, url.netloc):
                # The token is for the server that is configured.
                headers.pop("Authorization", None)
            url = target
        raise BundleSourceError(f"bundle {self.label}: the server redirects more than {_MOST_REDIRECTS} times")

    def _headers(self, known: Versions, wait: Seconds) -> dict[str, str]:
        modes = "modes=snapshot" if known.whole else "modes=snapshot,delta"
        headers = {
            "Accept-Encoding": "gzip",
            "User-Agent": "sark-pdp",
            "Prefer": f"{modes};wait={int(wait)}" if wait else modes,
        }
        if known.active:
            headers["If-None-Match"] = known.active
        if (file := self._location.token_file) is not None:
            try:
                token = file.read_text("ascii").strip()
            except (OSError, UnicodeDecodeError):
                raise BundleSourceError(f"bundle {self.label}: the token file {file} cannot be read") from None
            headers["Authorization"] = f"Bearer {token}"
        return headers

    @contextlib.contextmanager
    def _connected(self, url: SplitResult, wait: Seconds) -> Iterator[http.client.HTTPConnection]:
        """A connection that `interrupt` can cut, and that is cut when an answer takes too long, however it drips."""
        host = url.hostname or ""
        tls = self._tls_context() if url.scheme == "https" else None
        connection = (
            http.client.HTTPConnection(host, url.port)
            if tls is None
            else http.client.HTTPSConnection(host, url.port, context=tls)
        )
        watch: threading.Timer | None = None
        try:
            # Kept here: the connection forgets its socket when the answer says that it closes.
            opened = connection.sock = socket.create_connection((host, connection.port), self._patience)
            secured: ssl.SSLSocket | None = None
            if tls is not None:
                # Its handshake comes later, when it can be cut: a server could drip it for hours.
                secured = tls.wrap_socket(opened, server_hostname=host, do_handshake_on_connect=False)
                opened = connection.sock = secured
            with self._lock:
                if self._interrupted:
                    raise InterruptedFetchError
                self._socket = opened
            watch = threading.Timer(wait + _DOWNLOAD, _cut, (opened,))
            watch.daemon = True
            watch.start()
            if secured is not None:
                secured.do_handshake()
            yield connection
        finally:
            if watch is not None:
                watch.cancel()
            with self._lock:
                self._socket = None
            connection.close()

    def _tls_context(self) -> "ssl.SSLContext":
        """Made again where a file changed: certificates rotate."""
        import ssl

        location = self._location
        files = (location.ca_file, location.client_cert_file, location.client_key_file)
        marks = tuple(file and mark_of(file) for file in files)
        if self._tls is None or self._tls[0] != marks:
            context = ssl.create_default_context(cafile=location.ca_file)
            if location.client_cert_file is not None:
                # With an empty password OpenSSL asks nobody for one.
                context.load_cert_chain(location.client_cert_file, location.client_key_file, password="")
            self._tls = (marks, context)
        return self._tls[1]

    def _read(self, answer: http.client.HTTPResponse, known: Versions) -> Delivery:
        if answer.status == HTTPStatus.NOT_MODIFIED and known.active:
            return Delivery(None, known.active)
        if answer.status != HTTPStatus.OK:
            reason = answer.reason if answer.reason.isprintable() else ""
            raise BundleSourceError(f"bundle {self.label}: the server answers {answer.status} {reason}".rstrip())
        body = bytearray()
        while chunk := answer.read1(_CHUNK):
            body += chunk
            if len(body) > self._max_bytes:
                raise self._too_large()
        if answer.length:
            raise BundleSourceError(f"bundle {self.label}: the server cut the answer, {answer.length} bytes early")
        if not body:
            raise BundleSourceError(f"bundle {self.label}: the server answers without a bundle")
        self._waits = answer.headers.get_content_type() == _LONG_POLLING
        packed = bytes(body)
        if answer.headers.get("Content-Encoding", "").lower() == "gzip":
            packed = self._decoded(packed)
        return Delivery(packed, answer.headers.get("ETag", ""))

    def _decoded(self, body: bytes) -> bytes:
        """Without the encoding of the transfer. Some servers call the archive itself encoded: then it is the body."""
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as zipped:
                inner = zipped.read(self._max_bytes + 1)
        except (OSError, EOFError, zlib.error):
            raise BundleSourceError(f"bundle {self.label}: the answer is not gzip, as its header says") from None
        if not inner.startswith(_GZIP_MAGIC):
            return body
        if len(inner) > self._max_bytes:
            raise self._too_large()
        return inner

    def _too_large(self) -> BundleSizeError:
        return BundleSizeError(f"bundle {self.label}: is larger than the {self._max_bytes} bytes allowed")


def _may_redirect(url: SplitResult, target: SplitResult) -> bool:
    """Plain HTTP leads to other machines only from where it did already: there a bundle has to be signed."""
    if not target.hostname or target.scheme not in {"http", "https"}:
        return False
    return target.scheme == "https" or (url.scheme == "http" and (_is_here(target) or not _is_here(url)))


def _is_here(url: SplitResult) -> bool:
    return TcpAddress(url.hostname or "", 0).loopback


def _cut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _said(error: Exception) -> str:
    """The end of a sentence; what a server sent is not repeated."""
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, http.client.IncompleteRead | ConnectionError | http.client.RemoteDisconnected):
        return "the server cut the connection"
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    if isinstance(error, OSError):
        # Of TLS above all: a certificate that is not trusted, or one that is missing.
        return f"the server cannot be asked: {getattr(error, 'verify_message', '') or error.strerror or error}"
    return "the server does not answer as HTTP servers do"
