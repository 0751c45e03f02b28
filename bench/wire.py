"""A gRPC client of a few microseconds a call, for scripts whose own time must not count: unary calls on one connection.

A call of grpcio in Python takes as long as several answers of a sidecar. This one writes prepared HTTP/2 frames
(RFC 9113) and reads until the stream ends; it is for servers that are known to answer.
"""

import socket
import struct
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 2**16 - 1
_LARGEST_FRAME: Final = 2**14
"""That a server takes unless it says more."""
_INITIAL_WINDOW_SIZE: Final = 4
_HEAD: Final = 9
_MESSAGE_HEAD: Final = 5


class Caller:
    """Calls one method of one server. For one thread: `send`, then `receive`."""

    def __init__(self, address: str, method: str, timeout: float) -> None:
        """`address` is host:port, `method` a full name as in `/package.Service/Method`."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Literal fields that no table keeps, names by number where HPACK's static table has them (RFC 7541).
        self._fields = b"\x83\x86" + b"".join(
            name + _text(value)
            for name, value in (
                (b"\x01", address),
                (b"\x04", method),
                (b"\x00" + _text("te"), "trailers"),
                (b"\x00" + _text("content-type"), "application/grpc"),
            )
        )
        self._stream = -1
        self._read = b""
        self._socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW))
        )

    def send(self, message: bytes) -> None:
        """Begins a call."""
        self._stream += 2
        body = struct.pack(">?I", False, len(message)) + message  # noqa: FBT003  # it is not compressed
        if len(body) > _FIRST_WINDOW:
            raise ValueError("the message does not fit a window, and nobody here waits for a larger one")
        last = max(len(body) - 1, 0) // _LARGEST_FRAME * _LARGEST_FRAME
        frames = [_frame(_HEADERS, _END_HEADERS, self._stream, self._fields)]
        frames += [
            _frame(_DATA, 0, self._stream, body[begin : begin + _LARGEST_FRAME])
            for begin in range(0, last, _LARGEST_FRAME)
        ]
        self._socket.sendall(b"".join((*frames, _frame(_DATA, _END_STREAM, self._stream, body[last:]))))

    def receive(self) -> bytes:
        """The message of the answer; raises OSError where none comes."""
        body = b""
        while True:
            kind, flags, stream, payload = self._frame()
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            elif kind == _GOAWAY:
                raise ConnectionResetError("the server closes the connection")
            elif stream == self._stream:
                body += payload if kind == _DATA else b""
                if flags & _END_STREAM and kind in (_DATA, _HEADERS):
                    if len(body) < _MESSAGE_HEAD:
                        raise ConnectionError("the call failed")
                    return body[_MESSAGE_HEAD:]

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _frame(self) -> tuple[int, int, int, bytes]:
        head = self._exactly(_HEAD)
        return head[3], head[4], int.from_bytes(head[5:]), self._exactly(int.from_bytes(head[:3]))

    def _exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._read += received
        taken, self._read = self._read[:count], self._read[count:]
        return taken


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode("ascii")
