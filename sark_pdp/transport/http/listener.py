"""The listener: sockets, TLS, and a thread with the loop that carries all requests."""

import asyncio
import logging
import resource
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from uvicorn.config import Config

from sark_pdp.addresses import Address, TcpAddress, UnixAddress
from sark_pdp.certificates import Certificate, Files
from sark_pdp.errors import StartError
from sark_pdp.model import Seconds
from sark_pdp.transport.http.connection import HEAD_BYTES, HEAD_SECONDS, IDLE_SECONDS, Connection, Connections
from sark_pdp.transport.sockets import give_away, require_free
from sark_pdp.transport.tls import Tls

Application = Callable[..., Awaitable[None]]
"""ASGI."""

_MOST_CONNECTIONS: Final = 1024
_BACKLOG: Final = 512
_POLL_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 10.0
"""Between two looks at the certificate's files."""
_LEAVE_SECONDS: Final = 1.0
"""For TLS to say goodbye, and for the thread to end."""

_log = logging.getLogger(__name__)


class Listener:
    """One listener on any number of addresses."""

    def __init__(self, application: Application, tls: Tls | None) -> None:
        """`tls` holds for TCP; a Unix socket is guarded by its permissions."""
        self._tls = tls
        self._sockets: list[tuple[socket.socket, Address]] = []
        self._connections = Connections(_most_connections())
        self._config = Config(
            application,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # It tells of each stranger who speaks no HTTP.
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        self._config.load()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._started: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        self._grace = Seconds(0.0)
        self._certificate: Certificate | None = None

    def listen(self, address: Address, setting: str, socket_mode: int, socket_owner: str | None) -> Address:
        """Binds an address before the start; returns it with its real port. Raises StartError."""
        require_free(address, setting)
        if self._tls is not None and self._certificate is None:
            self._certificate = _certificate(self._tls)
        try:
            match address:
                case UnixAddress(path):
                    self._sockets.append((_unix_socket(address, socket_mode), address))
                    give_away(path, socket_owner)
                    return address
                case TcpAddress(host, port):
                    bound = _tcp_sockets(host, port)
                    port = bound[0].getsockname()[1]
                    found = TcpAddress(host, port)
                    self._sockets += [(each, found) for each in bound]
                    return found
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"{setting}: cannot listen on {address}: {reason}; set another address") from error

    def start(self) -> None:
        """Requests are answered from now on."""
        self._thread.start()
        self._started.result()

    def stop(self, grace: Seconds) -> None:
        """Takes no more requests, lets those that are being answered finish within `grace`, then cuts the rest."""
        if self._loop is not None and self._thread.is_alive():
            self._grace = grace
            self._loop.call_soon_threadsafe(self._told.set)
            self._thread.join(grace + 2 * _LEAVE_SECONDS)
        for bound, address in self._sockets:
            bound.close()
            if isinstance(address, UnixAddress):
                address.path.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 (logged, and told to who waits for the start)
            _log.exception("the listener for HTTP ended")
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_failed)
        watching = asyncio.create_task(self._watch_certificate())
        servers = [await self._server(loop, bound, address) for bound, address in self._sockets]
        self._loop = loop
        self._started.set_result(None)
        await self._told.wait()
        watching.cancel()
        for server in servers:
            server.close()
        await self._drain(loop.time() + self._grace)

    async def _server(self, loop: asyncio.AbstractEventLoop, bound: socket.socket, address: Address) -> asyncio.Server:
        secure = self._certificate is not None and isinstance(address, TcpAddress)
        options: dict[str, Any] = {}
        if secure and self._certificate is not None:
            options = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": HEAD_SECONDS,
                "ssl_shutdown_timeout": _LEAVE_SECONDS,
            }
        made = partial(Connection, self._config, self._connections, self._tls if secure else None)
        return await loop.create_server(made, sock=bound, backlog=_BACKLOG, **options)

    async def _watch_certificate(self) -> None:
        while self._certificate is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            self._certificate.refresh()

    async def _drain(self, deadline: float) -> None:
        """Idle connections are closed, the others with their answer."""
        self._connections.draining = True
        for connection in list(self._connections.connections):
            connection.shutdown()
        while self._connections.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        for connection in list(self._connections.connections):
            connection.transport.abort()
        # What they were waiting for is not waited for.
        for task in list(self._connections.tasks):
            task.cancel()


def _certificate(tls: Tls) -> Certificate:
    tls.require_usable()
    made = Certificate(Files(tls.cert_file, tls.key_file, tls.client_ca_file))
    made.context.set_alpn_protocols(["http/1.1"])
    return made


def _tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """A name may stand for several addresses; with port 0 all get the one that the first was given."""
    bound: list[socket.socket] = []
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    try:
        for family, ip in dict.fromkeys((family, str(where[0])) for family, *_, where in found):
            # With the protocol's number, by which asyncio turns Nagle's algorithm off: it held each answer back 40 ms.
            made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            bound.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((ip, port))
            port = made.getsockname()[1]
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


def _unix_socket(address: UnixAddress, mode: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(address.path))
        address.path.chmod(mode)
    except OSError:
        made.close()
        raise
    return made


def _most_connections() -> int:
    """No more than a quarter of the files that may be open: the front and the rest of the process need theirs."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if open_files == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, open_files // 4)


def _failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError):
        # Of a connection that broke, or out of files: callers are told by the connection itself.
        _log.warning("a connection of HTTP failed", extra={"reason": str(context.get("message"))})
        return
    _log.error("the listener for HTTP failed", exc_info=error, extra={"reason": str(context.get("message"))})
