"""L1: the verdicts that this process has seen last."""

import threading

from cachetools import LRUCache

from sark_pdp.interfaces import CacheEntry, StoreStatistics


class MemoryStore:
    """A decision store of at most `capacity` entries; the least recently used one goes first.

    `_lock` guards `_entries` and both counts. Expired entries leave when their place is needed.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries: LRUCache[bytes, CacheEntry] = LRUCache(capacity)
        self._hits = 0
        self._misses = 0

    def get(self, key: bytes) -> CacheEntry | None:
        """What was put under this key, expired or not."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: bytes, entry: CacheEntry) -> None:
        """Replaces what was there."""
        with self._lock:
            self._entries[key] = entry

    def statistics(self) -> StoreStatistics:
        """Now."""
        with self._lock:
            return StoreStatistics("l1", len(self._entries), self._capacity, self._hits, self._misses)
