"""L1: the verdicts that this process has seen last."""

import threading

from cachetools import LRUCache

from sark_pdp.interfaces import CacheEntry


class MemoryStore:
    """A decision store of at most `capacity` entries; the least recently used one goes first.

    `_lock` guards `_entries`. Expired entries leave when their place is needed.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._entries: LRUCache[bytes, CacheEntry] = LRUCache(capacity)

    def get(self, key: bytes) -> CacheEntry | None:
        """What was put under this key, expired or not."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: bytes, entry: CacheEntry) -> None:
        """Replaces what was there."""
        with self._lock:
            self._entries[key] = entry

    def __len__(self) -> int:
        return len(self._entries)
