"""Values in Redis that are believed only where they are signed, for this key, in this run of the server, and in time.

Who can write to Redis can at worst put an answer back until its signed expiry. A value is a version byte, a MAC of 32
bytes, two times (8 bytes each, big-endian doubles, seconds since the epoch) and the payload. The MAC is over version,
kind, run id and key, each with its length before it, both times and the payload.
"""

import logging
import time
from collections.abc import Sequence
from struct import Struct as Layout
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias

from msgspec import Struct

from sark_pdp.cache.keyring import MAC_BYTES, Keyring
from sark_pdp.cache.later import LaterQueue
from sark_pdp.observability.instruments import Counter

ODDITIES: Final = ("unknown_version", "wrong_mac", "expired", "from_the_future", "too_large")
"""Why a value was not believed, or not kept (`too_large`), as metrics call it. `wrong_mac`: or it belongs elsewhere."""

_VERSION: Final = 1
_HEAD: Final = Layout(f">B{MAC_BYTES}sdd")
_TIMES: Final = Layout(">dd")
_LARGEST: Final = 16 * 1024
"""Bytes of a value; a larger one is neither kept nor believed."""
_SKEW: Final = 1.0
"""Seconds that the clocks of two machines may differ."""
_LOG_INTERVAL: Final = 60.0

Command: TypeAlias = tuple[bytes | str | int, ...]
"""What Redis is told, by words."""

_log = logging.getLogger(__name__)


class Link(Protocol):
    """What is needed of `RedisLink`."""

    @property
    def run_id(self) -> bytes | None:
        """Of the server that is asked now; None while there is none."""

    def execute(self, commands: Sequence[Command], waited: float = 0.0) -> list[Any] | None:
        """The replies, in one round trip of bounded time, less what was waited; None where Redis is not to be had."""


class Stored(Struct, frozen=True):
    """A value with its lifetime; both points are seconds since the epoch."""

    payload: bytes
    as_of: float
    """When what it tells was read."""
    expires: float


class SignedStore:
    """Thread-safe. `_lock` guards `_logged` alone; values are written later, by the thread of the queue."""

    def __init__(self, link: Link, keyring: Keyring, prefix: str) -> None:
        self._link, self._keyring, self._prefix = link, keyring, prefix.encode()
        self._later: LaterQueue[tuple[str, bytes, Stored, bytes]] = LaterQueue(self._write, keyring.refresh)
        self._oddities = {oddity: Counter() for oddity in ODDITIES}
        self._lock = Lock()
        self._logged = float("-inf")

    @property
    def run_id(self) -> bytes | None:
        """Of the server now; to be read before what a value is made of, and given to `put_later`."""
        return self._link.run_id

    def start(self) -> None:
        """Begins to write."""
        self._later.start()

    def close(self) -> None:
        """Writes no more; what waits is forgotten."""
        self._later.close()

    def get_many(self, kind: str, keys: Sequence[bytes], waited: float = 0.0) -> list[Stored | None]:
        """What was put under each key, where it is good now. One round trip; Redis away is a miss of all.

        `waited`: seconds that the caller has waited for Redis before, for the same request.
        """
        run_id = self._link.run_id
        if run_id is None or not keys:
            return [None] * len(keys)
        replies = self._link.execute([("MGET", *[self._name(kind, run_id, key) for key in keys])], waited)
        # What stands between here and Redis may answer with anything.
        if replies is None or type(replies[0]) is not list or len(replies[0]) != len(keys):
            return [None] * len(keys)
        now = time.time()
        return [
            None if value is None else self._believed(kind, run_id, key, value, now)
            for key, value in zip(keys, replies[0], strict=True)
        ]

    def put_later(self, kind: str, items: Sequence[tuple[bytes, Stored]], run_id: bytes | None) -> None:
        """Keeps them soon, if nothing comes between; never waits.

        `run_id` is what `run_id` was before anything that they are made of was read: another server may not know what
        was invalidated since.
        """
        if run_id is None:
            return
        waiting = []
        for key, stored in items:
            size = _HEAD.size + len(stored.payload)
            if size <= _LARGEST:
                waiting.append(((kind, key, stored, run_id), size))
            else:
                self._oddities["too_large"].value += 1
        self._later.put(waiting)

    @property
    def dropped(self) -> int:
        """Values that were not kept because too many waited."""
        return self._later.dropped

    @property
    def oddities(self) -> dict[str, int]:
        """How many values were not believed, by reason."""
        return {oddity: count.value for oddity, count in self._oddities.items()}

    def _name(self, kind: str, run_id: bytes, key: bytes) -> bytes:
        return b"%b:%b:%b:%b" % (self._prefix, kind.encode(), run_id[:8], key)

    def _write(self, items: Sequence[tuple[str, bytes, Stored, bytes]]) -> None:
        now, present = time.time(), self._link.run_id
        commands: list[Command] = []
        for kind, key, stored, run_id in items:
            left = int((stored.expires - now) * 1000)
            if left <= 0 or run_id != present:
                continue
            commands.append(("SET", self._name(kind, run_id, key), self._signed(kind, run_id, key, stored), "PX", left))
        if commands:
            self._link.execute(commands)

    def _signed(self, kind: str, run_id: bytes, key: bytes, stored: Stored) -> bytes:
        mac = self._keyring.mac(_message(kind, run_id, key, stored.as_of, stored.expires, stored.payload))
        return _HEAD.pack(_VERSION, mac, stored.as_of, stored.expires) + stored.payload

    def _believed(self, kind: str, run_id: bytes, key: bytes, value: Any, now: float) -> Stored | None:
        if not isinstance(value, bytes) or not value or value[0] != _VERSION:
            return self._not_believed("unknown_version", kind)
        if len(value) > _LARGEST:
            return self._not_believed("too_large", kind)
        if len(value) < _HEAD.size:
            return self._not_believed("wrong_mac", kind)
        _, mac, as_of, expires = _HEAD.unpack_from(value)
        payload = value[_HEAD.size :]
        if not self._keyring.verifies(_message(kind, run_id, key, as_of, expires, payload), mac):
            return self._not_believed("wrong_mac", kind)
        if expires <= now:
            return self._not_believed("expired", kind)
        if as_of > now + _SKEW:
            return self._not_believed("from_the_future", kind)
        return Stored(payload, as_of, expires)

    def _not_believed(self, oddity: str, kind: str) -> Stored | None:
        """None, always; counts why, and logs it once a minute."""
        self._oddities[oddity].value += 1
        now = time.monotonic()
        with self._lock:
            quiet = now - self._logged < _LOG_INTERVAL
            if not quiet:
                self._logged = now
        if not quiet:
            _log.warning("a value in Redis was not believed", extra={"oddity": oddity, "kind": kind})
        return None


def _message(kind: str, run_id: bytes, key: bytes, as_of: float, expires: float, payload: bytes) -> bytes:
    parts = b"".join(len(part).to_bytes(2, "big") + part for part in (kind.encode(), run_id, key))
    return b"%c%b%b%b" % (_VERSION, parts, _TIMES.pack(as_of, expires), payload)
