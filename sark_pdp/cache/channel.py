"""The channel on which invalidations are heard: one connection of its own, and a proof that it works.

A subscriber cannot tell silence from a channel that is cut. So this one sends itself a heartbeat each second, through
the connections on which everybody publishes. One that came back proves that whatever was published before it was sent
has been heard, for Redis writes to a subscriber in order. The sender of messages is not looked at: one that was forged
costs a read, one that was suppressed is what heartbeats and the lifetime of what was read are for.
"""

import logging
import socket
import threading
import time
from secrets import token_bytes, token_hex
from typing import Any, Final, Protocol

import hiredis
from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from sark_pdp.cache.generation_commands import InvalidationError, subjects_in
from sark_pdp.cache.redis_generations import Link, RedisGenerations
from sark_pdp.model import Seconds
from sark_pdp.observability.instruments import Counter

_INTERVAL: Final = 1.0
"""Seconds between heartbeats."""
TRUST: Final = 2.0
"""Seconds that a heartbeat which came back vouches for, from when it was sent."""
_PATIENCE: Final = 3.0
"""Seconds; a connection on which a heartbeat does not come back by then is given up."""
_RETRY: Final = 0.2
"""Seconds to the next heartbeat where one could not be sent."""
_LEAVE: Final = Seconds(1.0)
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to connect."""
_QUIET: Final = 60.0
"""Seconds between log lines about a channel that stays away."""
_PIECE: Final = 16 * 1024
_CHANNELS: Final = 2
_PUSHED: Final = 3
"""Kind, channel and content."""
_SUBSCRIBED: Final = b"subscribe"
_MESSAGE: Final = b"message"

_log = logging.getLogger(__name__)


class ChannelLink(Link, Protocol):
    """What is needed of `RedisLink`."""

    def connection(self) -> AbstractConnection:
        """One more, not yet connected. Raises OSError."""


class Channel:
    """Hears for `generations`. Its state is its thread's, but `_stopping`, and `_socket`, which `close` shuts down."""

    def __init__(self, link: ChannelLink, generations: RedisGenerations, prefix: str) -> None:
        self._link, self._generations = link, generations
        self._own = f"{prefix}:heartbeat:{token_hex(8)}".encode()
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="invalidations", daemon=True)
        self._sent: dict[bytes, float] = {}
        self._subscribed = 0
        self._failures = 0
        self._lost = Counter()
        self._malformed = Counter()
        self._heard = Counter()
        self._problem = "the channel of invalidations is not there yet"
        self._said = float("-inf")

    def start(self) -> None:
        """Begins to connect; returns at once."""
        self._thread.start()

    def close(self, patience: Seconds = _LEAVE) -> None:
        """Ends the thread; nothing is trusted any more."""
        self._stopping.set()
        sock = self._socket
        if sock is not None:
            _shut(sock)
        if self._thread.is_alive():
            self._thread.join(patience)

    @property
    def problem(self) -> str:
        """Why invalidations may not be heard, in one clause; empty where they are."""
        return self._problem or (
            "" if self._generations.trusted else "no heartbeat of invalidations comes back in time"
        )

    @property
    def counts(self) -> dict[str, int]:
        """Since the start: messages `heard`, those of them that were `malformed`, and times the channel was `lost`."""
        return {"heard": self._heard.value, "malformed": self._malformed.value, "lost": self._lost.value}

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it was, nothing is heard, and it is tried again
                self._generations.distrust()
                self._tell(error)
            lasted = time.monotonic() - began > _PATIENCE
            attempt = 0 if lasted else attempt + 1
            self._stopping.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        self._generations.distrust()

    def _listen(self) -> None:
        """As long as the connection lasts. Raises OSError, RedisError or HiredisError."""
        connection: Any = self._link.connection()
        try:
            connection.connect()
            # What redis-py reads with begins its timeout anew with each piece of a reply.
            sock = self._socket = connection._sock  # noqa: SLF001
            self._sent.clear()
            self._subscribed = 0
            sock.settimeout(_INTERVAL)
            subscribe: tuple[Any, ...] = ("SUBSCRIBE", self._generations.commands.channel, self._own)
            sock.sendall(hiredis.pack_command(subscribe))
            self._hear(sock)
        finally:
            self._socket = None
            connection.disconnect()

    def _hear(self, sock: Any) -> None:
        reader = hiredis.Reader()
        subscribing_until = time.monotonic() + _PATIENCE
        next_beat = subscribing_until
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= next_beat:
                sent = self._beat(now, subscribing_until)
                next_beat = now + (_INTERVAL if sent else _RETRY)
            sock.settimeout(max(next_beat - time.monotonic(), 0.001))
            try:
                received = sock.recv(_PIECE)
            except TimeoutError:
                continue
            if not received:
                raise ConnectionResetError("Redis closed the connection")
            reader.feed(received)
            while (pushed := reader.gets()) is not False:
                if self._take(pushed):
                    next_beat = 0.0

    def _beat(self, now: float, subscribing_until: float) -> bool:
        """Sends a heartbeat, where Redis takes it. Raises TimeoutError where one that was sent does not come back."""
        if self._subscribed < _CHANNELS and now >= subscribing_until:
            raise TimeoutError("Redis does not confirm the subscription")
        if any(now - sent > _PATIENCE for sent in self._sent.values()):
            raise TimeoutError("a heartbeat did not come back")
        self._generations.deliver()
        token = token_bytes(8)
        # On a replica, which hears nothing of what is invalidated elsewhere, a write is refused: so is the heartbeat.
        if self._link.execute([("DEL", self._own), ("PUBLISH", self._own, token)]) is None:
            return False
        self._sent[token] = now
        self._generations.refresh()
        return True

    def _take(self, pushed: Any) -> bool:
        """Takes what Redis pushed; True where the subscription is complete with it."""
        if isinstance(pushed, hiredis.ReplyError):
            raise RedisError(f"Redis refuses the subscription: {pushed}")
        if type(pushed) is not list or len(pushed) != _PUSHED:
            raise RedisError("Redis pushes what is no message")
        kind, channel, content = pushed
        if kind == _SUBSCRIBED:
            self._subscribed += 1
            return self._subscribed == _CHANNELS
        if kind == _MESSAGE and channel == self._own:
            sent = self._sent.pop(content, None)
            if sent is not None:
                self._generations.trust(sent + TRUST)
                self._restored()
        elif kind == _MESSAGE:
            self._heard.value += 1
            try:
                subjects = subjects_in(content)
            except InvalidationError:
                self._malformed.value += 1
            else:
                self._generations.heard(subjects)
        return False

    def _restored(self) -> None:
        self._failures = 0
        if self._problem:
            self._problem = ""
            _log.info("invalidations are heard")

    def _tell(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        was_well = not self._problem
        self._problem = f"the channel of invalidations is cut: {type(error).__name__}"
        self._lost.value += was_well
        now = time.monotonic()
        # Where Redis is away the link says so; one failure alone is a connection that has to be made anew.
        self._failures += 1
        if self._failures > 1 and self._link.run_id is not None and now - self._said >= _QUIET:
            self._said = now
            _log.warning("the channel of invalidations is cut", extra={"error": str(error)[:200]})


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It is closed already.
        return
