"""One connection to Redis: redis-py makes it, with TLS and authentication; what is asked on it is bounded as a whole.

redis-py starts its timeout anew with each piece that arrives, so a server that answers drop by drop holds a caller for
as long as it likes. Here commands go out and replies come in under one deadline.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from ssl import SSLWantReadError
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import hiredis
from msgspec import Struct
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from sark_pdp.cache.redis_errors import ReplyError
from sark_pdp.model import Seconds

Command: TypeAlias = tuple[bytes | str | int, ...]

_DEFAULT_PORT: Final = 6379
_PIECE: Final = 64 * 1024
_LEAST: Final = 0.0001
"""Seconds; zero would mean something else to a socket."""
_NOT_YET: Final = object()
_pack: Final[Callable[[Command], bytes]] = hiredis.pack_command  # type: ignore[assignment]  # takes any length

# redis-py's classes have annotations that contradict each other.
_KINDS: Final[Mapping[str, Callable[..., Any]]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}


class RedisServer(Struct, frozen=True):
    """Where Redis is, and what proves who asks."""

    url: str
    """`redis://host:port/db`, `rediss://host:port/db` or `unix:///path`."""
    username_file: Path | None = None
    password_file: Path | None = None
    """Read for each connection, for both may rotate."""
    ca_file: Path | None = None
    """PEM; None: the authorities that this machine trusts."""
    client_cert_file: Path | None = None
    client_key_file: Path | None = None


def redis_py_connection(server: RedisServer, timeout: Seconds) -> Any:
    """A `redis.connection.AbstractConnection`, not yet connected.

    `timeout` bounds each step of connecting, and each wait for a piece of a reply.
    Raises OSError where a file of the credentials cannot be read.
    """
    url = urlsplit(server.url)
    common: dict[str, Any] = {
        "username": _secret(server.username_file),
        "password": _secret(server.password_file),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # Without push messages each command has one reply; what `CLIENT SETINFO` would tell costs two round trips.
        "protocol": 2,
        "driver_info": None,
    }
    make = _KINDS[url.scheme]
    if url.scheme == "unix":
        return make(path=unquote(url.path), **common)
    common |= {
        "host": url.hostname,
        "port": url.port or _DEFAULT_PORT,
        "db": int(url.path.strip("/") or 0),
        "socket_keepalive": True,
    }
    if url.scheme == "redis":
        return make(**common)
    return make(
        ssl_ca_certs=_text(server.ca_file),
        ssl_certfile=_text(server.client_cert_file),
        ssl_keyfile=_text(server.client_key_file),
        **common,
    )


class RedisConnection:
    """A connection that is there. Used by one thread at a time; closed for good after whatever went wrong on it."""

    def __init__(self, server: RedisServer, timeout: Seconds) -> None:
        """Connects, in as many steps as it takes, each within `timeout`. Raises OSError or RedisError."""
        self._connection: Any = redis_py_connection(server, timeout)
        self._connection.connect()
        # No public name gives the socket, and redis-py's own reading cannot be bounded as a whole.
        self._socket: Any = self._connection._sock  # noqa: SLF001
        self._reader: Any = hiredis.Reader(replyError=ReplyError, notEnoughData=_NOT_YET)
        self._buffer = bytearray(_PIECE)
        self._late = False

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """The reply to each, in order; what Redis refused is a ReplyError among them.

        `deadline` is on `time.monotonic()`. Raises TimeoutError past it, another OSError where the connection broke,
        `hiredis.ProtocolError` for what is no reply: in each case the connection is of no use any more.
        """
        reader, buffer = self._reader, self._buffer
        self._late = False
        self._socket.settimeout(max(deadline - time.monotonic(), _LEAST))
        self._socket.sendall(b"".join([_pack(command) for command in commands]))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = reader.gets()
            if reply is not _NOT_YET:
                replies.append(reply)
                continue
            reader.feed(buffer, 0, self._receive(deadline))
        return replies

    def _receive(self, deadline: float) -> int:
        """How many bytes there are in the buffer now."""
        left = deadline - time.monotonic()
        if left <= 0 and self._late:
            raise TimeoutError("Redis did not answer in time")
        # Where it was this thread that came late, the reply is there already: it is looked for once more.
        self._late = left <= 0
        self._socket.settimeout(max(left, 0.0))
        try:
            received = self._socket.recv_into(self._buffer)
        except (BlockingIOError, SSLWantReadError):
            raise TimeoutError("Redis did not answer in time") from None
        if not received:
            raise ConnectionResetError("Redis closed the connection")
        return int(received)

    def close(self) -> None:
        """Never fails."""
        self._connection.disconnect()


def _secret(file: Path | None) -> str | None:
    return None if file is None else file.read_text("utf-8").rstrip("\r\n")


def _text(file: Path | None) -> str | None:
    return None if file is None else str(file)
