"""One connection: uvicorn's HTTP/1.1 on h11, with bounds for callers who are slow, odd or many."""

import asyncio
import socket
import struct
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sark_pdp.transport.http.caller import Peer
from sark_pdp.transport.http.errors import Problem, encoded
from sark_pdp.transport.tls import Tls, peer_identity

HEAD_BYTES: Final = 16 * 1024
"""Of one request's line and headers."""
HEAD_SECONDS: Final = 10.0
"""That they may take to come, from the first byte, or from when the connection was made."""
IDLE_SECONDS: Final = 75
"""That a connection may wait for its next request."""
TAKE_SECONDS: Final = 30.0
"""That the caller may let an answer lie."""

_CLOSE: Final = (b"connection", b"close")
_MALFORMED: Final = encoded(Problem("malformed", f"this is no HTTP/1.1, or its headers exceed {HEAD_BYTES} bytes"))
_CREDENTIALS: Final = struct.Struct("iII")
"""`struct ucred` of Linux: process, user, group (unix(7))."""


class Connections(ServerState):
    """All connections of the listener, and the header that every answer has: the date."""

    def __init__(self, most: int) -> None:
        self._second = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self.most = most
        self.draining = False
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Made when it is asked for: nobody has to wake up every second."""
        second = int(time.time())
        if second != self._second:
            self._second, self._fields = second, [(b"date", formatdate(second, usegmt=True).encode())]
        return self._fields

    @default_headers.setter
    def default_headers(self, _headers: list[tuple[bytes, bytes]]) -> None:
        """Of the base, which has none yet."""


class Connection(H11Protocol):
    """Made for each connection."""

    def __init__(self, config: Config, connections: Connections, tls: Tls | None) -> None:
        """`tls` is None where clients need no certificate."""
        super().__init__(config, connections, {})
        self._all = connections
        self._tls = tls
        self._late: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Closed at once where there are too many."""
        if len(self.connections) >= self._all.most or self._all.draining:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        self.app_state = {"peer": _peer(transport, self._tls)}
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        for timer in (self._late, self._untaken):
            if timer is not None:
                timer.cancel()
        self._late = self._untaken = None
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer was given."""
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """Closes it now, or with the answer that is under way, which says so."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """No request came for long."""
        super().timeout_keep_alive_handler()
        # What the caller has not taken by now he need not have.
        self.transport.abort()

    def pause_writing(self) -> None:
        """The caller does not take what was sent."""
        super().pause_writing()
        if self._untaken is None:
            self._untaken = self.loop.call_later(TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """He did."""
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. Where an answer is under way, it cannot be said."""
        del msg
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            if self.cycle is not None:
                # It would answer as well.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            fields = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(_MALFORMED)).encode()),
                _CLOSE,
            ]
            answer = h11.Response(status_code=400, headers=fields, reason=b"Bad Request")
            for event in (answer, h11.Data(data=_MALFORMED), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """A request whose headers have not come yet has to be there soon; one that was answered may have a next."""
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            if self._late is None:
                self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
        elif self._late is not None:
            self._late.cancel()
            self._late = None


def _peer(transport: asyncio.Transport, tls: Tls | None) -> Peer:
    at: socket.socket | None = transport.get_extra_info("socket")
    if at is not None and at.family == socket.AF_UNIX:
        # A Unix socket is guarded by its permissions: there is no TLS on it, and no certificate.
        _, uid, _ = _CREDENTIALS.unpack(at.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer("", "", uid)
    name: Any = transport.get_extra_info("peername")
    address = str(name[0]) if name else ""
    if tls is None or tls.client_ca_file is None:
        return Peer(address, "")
    return Peer(address, peer_identity(_names(transport.get_extra_info("peercert")), tls, address))


def _names(certificate: Any) -> Sequence[str]:
    """The subject alternative names, in order."""
    return [value for _, value in (certificate or {}).get("subjectAltName", ())]
