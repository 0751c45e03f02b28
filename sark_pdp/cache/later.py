"""Writes behind the answers: a bounded queue and one thread."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MOST_ITEMS: Final = 4096
_MOST_BYTES: Final = 8 * 1024 * 1024
"""What may wait; more is dropped and counted."""
_GROUP_ITEMS: Final = 1000
_GROUP_BYTES: Final = 256 * 1024
"""What is written at once: a batch of calls at its default limit, and not more than a network takes in a moment."""
_PAUSE: Final = 0.002
"""Seconds in which more may come for one write: the thread takes its turns from answers, so it should run seldom."""
_TICK: Final = 5.0

_log = logging.getLogger(__name__)


class LaterQueue(Generic[T]):
    """Any thread puts; the thread of the queue writes. `_lock` guards `_waiting`, `_bytes` and `dropped`."""

    def __init__(self, write: Callable[[Sequence[T]], None], tick: Callable[[], None]) -> None:
        """`write` gets some of what waited; `tick` is called every few seconds. Both run on the queue's thread."""
        self._write, self._tick = write, tick
        self._lock = threading.Lock()
        self._waiting: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self.dropped = 0
        """Items since the start."""
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cache_writer", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; what waits is forgotten."""
        self._stopping.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def put(self, items: Sequence[tuple[T, int]]) -> None:
        """Items and their sizes in bytes. Never waits: what there is no room for is dropped."""
        with self._lock:
            for item, size in items:
                if len(self._waiting) >= _MOST_ITEMS or self._bytes + size > _MOST_BYTES:
                    self.dropped += 1
                else:
                    self._waiting.append((item, size))
                    self._bytes += size
        if not self._work.is_set():
            self._work.set()

    def _run(self) -> None:
        ticked = time.monotonic()
        while not self._stopping.is_set():
            if self._work.wait(_TICK):
                self._stopping.wait(_PAUSE)
                self._work.clear()
                if group := self._group():
                    self._attempt(self._write, group)
                if self._waiting:
                    self._work.set()
            if time.monotonic() - ticked >= _TICK:
                ticked = time.monotonic()
                self._attempt(self._tick)

    def _group(self) -> list[T]:
        group: list[T] = []
        taken = 0
        with self._lock:
            while self._waiting and len(group) < _GROUP_ITEMS and taken < _GROUP_BYTES:
                item, size = self._waiting.popleft()
                group.append(item)
                taken += size
            self._bytes -= taken
        return group

    @staticmethod
    def _attempt(do: Callable[..., None], *arguments: object) -> None:
        try:
            do(*arguments)
        except Exception:  # noqa: BLE001  # what was to be written is lost; the next one is not
            _log.exception("the cache could not be written")
