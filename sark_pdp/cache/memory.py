"""L1: what this process has seen last."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from sark_pdp.interfaces import CacheEntry

Key = TypeVar("Key", bytes, tuple[str, ...])
Value = TypeVar("Value")


class RecentlyUsed(Generic[Key, Value]):
    """A store of at most `capacity` entries; the least recently used one goes first.

    `_lock` guards additions to `_entries`. Reading takes none: each step of it is one call of C code on keys of bytes
    or of strings, which nothing interrupts. Expired entries leave when their place is needed.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """What was put under this key, expired or not."""
        entry = self._entries.get(key)
        if entry is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:
                # Another thread needed its place meanwhile; it is good all the same.
                return entry
        return entry

    def put(self, key: Key, entry: Value) -> None:
        """Replaces what was there."""
        with self._lock:
            entries = self._entries
            if key not in entries and len(entries) >= self.capacity:
                entries.popitem(last=False)
            entries[key] = entry
            entries.move_to_end(key)

    def __len__(self) -> int:
        return len(self._entries)


class MemoryStore(RecentlyUsed[bytes, CacheEntry]):
    """Keeps verdicts: a decision store."""
