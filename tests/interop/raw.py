"""HTTP/2 by hand, for what no client library would send. <https://www.rfc-editor.org/rfc/rfc9113>"""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
_SETTINGS: Final = {"header_table_size": 1, "max_concurrent_streams": 3, "initial_window_size": 4}
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = 9
_CHUNK: Final = 16_384
"""The longest payload that every peer takes."""
TIMEOUT: Final = 30.0


class Frame(NamedTuple):
    """One frame as it was read."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; `length` is what it says of its payload where that is not the truth."""
    said = len(payload) if length is None else length
    return said.to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A frame of settings, by their names."""
    return frame(SETTINGS, payload=b"".join(struct.pack(">HL", _SETTINGS[name], values[name]) for name in values))


def _string(text: bytes) -> bytes:
    length, prefix = len(text), b""
    if length < 127:
        return bytes([length]) + text
    length -= 127
    while length >= 128:
        prefix += bytes([length % 128 + 128])
        length //= 128
    return b"\x7f" + prefix + bytes([length]) + text


def block(fields: Mapping[str, str]) -> bytes:
    """Headers in HPACK, as literals that are not indexed."""
    return b"".join(b"\x00" + _string(name.encode()) + _string(value.encode()) for name, value in fields.items())


def call_head(path: str, **more: str) -> dict[str, str]:
    """The headers of a gRPC call."""
    return {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "front.test",
        "content-type": "application/grpc",
        "te": "trailers",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def message(body: bytes) -> bytes:
    """A message as gRPC frames it."""
    return b"\x00" + struct.pack(">L", len(body)) + body


class Raw:
    """A connection; a context manager."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        """Nothing is sent. A small `receive_buffer` makes a peer that does not read felt soon."""
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(("127.0.0.1", port))
        self._unread = b""
        self._credit = 65_535

    @classmethod
    def greeted(cls, port: int, **values: int) -> Self:
        """A connection on which both have sent settings; `values` are ours."""
        made = cls(port)
        made.socket.sendall(PREFACE + settings(**values))
        for come in made.frames():
            if come.kind == SETTINGS and not come.flags & ACK:
                made.socket.sendall(frame(SETTINGS, ACK))
            elif come.kind == SETTINGS:
                break
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> bool:
        """False where the peer has closed the connection, which it may."""
        try:
            self.socket.sendall(b"".join(frames))
        except (ConnectionError, TimeoutError):
            return False
        return True

    def send_now(self, data: bytes) -> int:
        """Sends what the socket takes at once, and tells how much."""
        self.socket.setblocking(False)
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        finally:
            self.socket.settimeout(TIMEOUT)

    def receive_now(self) -> bool:
        """Drops what has come; False where the peer has closed."""
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1 << 16))
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT)

    def call(self, stream: int, path: str, body: bytes, *, announced: int | None = None) -> bool:
        """Begins a call and sends its message, as far as the peer allows; with `announced`, this many bytes of `body`
        are not all of the message."""
        length = len(body) if announced is None else announced
        data = b"\x00" + struct.pack(">L", length) + body
        sent = self.send(frame(HEADERS, END_HEADERS, stream, block(call_head(path))))
        for at in range(0, len(data), _CHUNK):
            chunk = data[at : at + _CHUNK]
            last = at + _CHUNK >= len(data) and announced is None
            while sent and self._credit < len(chunk):
                sent = next(self.frames(), None) is not None
            self._credit -= len(chunk)
            sent = sent and self.send(frame(DATA, END_STREAM if last else 0, stream, chunk))
        return sent

    def frames(self) -> Iterator[Frame]:
        """All that come, until the peer closes."""
        with suppress(ConnectionError):
            while True:
                while len(self._unread) >= _HEAD:
                    length = int.from_bytes(self._unread[:3], "big")
                    if len(self._unread) < _HEAD + length:
                        break
                    kind, flags, stream = struct.unpack(">BBL", self._unread[3:_HEAD])
                    payload = self._unread[_HEAD : _HEAD + length]
                    self._unread = self._unread[_HEAD + length :]
                    if (kind, stream) == (WINDOW_UPDATE, 0):
                        self._credit += int.from_bytes(payload, "big")
                    yield Frame(kind, flags, stream & 0x7FFF_FFFF, payload)
                more = self.socket.recv(1 << 16)
                if not more:
                    return
                self._unread += more

    def is_closed(self, seconds: float = TIMEOUT) -> bool:
        """Whether the peer closes within so long; what it says before is dropped."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(1 << 16):
                    return True
            except ConnectionError:
                return True
            except TimeoutError:
                return False
        return False
