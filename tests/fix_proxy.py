"""A proxy before a server: it can stall, drip, slow down, lose answers, cut, reset and refuse, as a network can."""

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final, TypeAlias

Target: TypeAlias = Path | tuple[str, int]
"""A Unix socket, or a host and a port."""

_RESET: Final = struct.pack("ii", 1, 0)
"""For SO_LINGER: whoever closes sends no end, but a reset."""
_PIECE: Final = 65536


class Proxy:
    """Listens on loopback and passes on to a server what it gets. A test sets what is public, or calls.

    `_lock` guards `_open` and `_refusing`; threads of their own pass bytes on, two for each connection.
    """

    def __init__(self, target: Target) -> None:
        self.stalled = False
        """Takes what comes, and passes nothing on until this is False again."""
        self.drips = False
        """Passes on one byte at a time, with a pause after each."""
        self.delay = 0.0
        """Seconds that each piece, of 64 KiB at most, is kept before it is passed on."""
        self.loses_answers = False
        """What the server says is taken and never passed on: it did what it was asked, and nobody hears of it. The
        connections that it hits stay so; `reset` ends them."""
        self.lost = 0
        """Bytes that were."""
        self._target = target
        self._refusing = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def lead_to(self, target: Target) -> None:
        """From now on to another server, as after a failover; what is connected stays."""
        self._target = target

    def cut(self) -> None:
        """Ends all connections; new ones are accepted."""
        for each in self._take_open():
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Breaks all connections, as a machine does that has forgotten them; new ones are accepted."""
        for each in self._take_open():
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # Wakes the thread that reads from it and tells the other side nothing: that thread closes both.
                each.shutdown(socket.SHUT_RD)

    def refuse(self) -> None:
        """Accepts no more connections, and cuts those that there are."""
        with self._lock:
            self._refusing = True
        # A thread in `accept` keeps the socket open.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def accept_again(self) -> None:
        """After `refuse`, on the same port."""
        with self._lock:
            self._refusing = False
            self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """For good."""
        self.stalled = self.drips = False
        self.refuse()

    def _take_open(self) -> set[socket.socket]:
        with self._lock:
            gone, self._open = self._open, set()
        return gone

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            try:
                server = _connected(self._target)
            except OSError:
                caller.close()
                continue
            with self._lock:
                if listener is not self._listener or self._refusing:
                    caller.close()
                    server.close()
                    return
                self._open |= {caller, server}
            for source, sink in ((caller, server), (server, caller)):
                arguments = (source, sink, source is server)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        losing = False
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                while self.stalled:
                    time.sleep(0.002)
                # What comes after something that was lost would be taken for it.
                if losing := losing or (answers and self.loses_answers):
                    self.lost += len(data)
                else:
                    self._send(data, sink)
        with self._lock:
            self._open -= {source, sink}
        for each in (source, sink):
            with contextlib.suppress(OSError):
                # The other thread is in `recv`, and a socket that somebody reads from is not closed.
                each.shutdown(socket.SHUT_RD)
            each.close()

    def _send(self, data: bytes, sink: socket.socket) -> None:
        if self.delay:
            time.sleep(self.delay)
        if not self.drips:
            sink.sendall(data)
            return
        for byte in data:
            sink.sendall(bytes((byte,)))
            time.sleep(0.02)


def _connected(target: Target) -> socket.socket:
    server = socket.socket(socket.AF_UNIX if isinstance(target, Path) else socket.AF_INET)
    try:
        server.connect(str(target) if isinstance(target, Path) else target)
    except OSError:
        server.close()
        raise
    return server
