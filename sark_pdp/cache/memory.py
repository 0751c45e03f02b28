"""L1: the verdicts that this process has seen last."""

import threading
from collections import OrderedDict

from sark_pdp.interfaces import CacheEntry


class MemoryStore:
    """A decision store of at most `capacity` entries; the least recently used one goes first.

    `_lock` guards additions to `_entries`. Reading takes none: each step of it is one call of C code on keys of bytes,
    which nothing interrupts. Expired entries leave when their place is needed.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, CacheEntry] = OrderedDict()

    def get(self, key: bytes) -> CacheEntry | None:
        """What was put under this key, expired or not."""
        entry = self._entries.get(key)
        if entry is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:
                # Another thread needed its place meanwhile; it is good all the same.
                return entry
        return entry

    def put(self, key: bytes, entry: CacheEntry) -> None:
        """Replaces what was there."""
        with self._lock:
            entries = self._entries
            if key not in entries and len(entries) >= self.capacity:
                entries.popitem(last=False)
            entries[key] = entry
            entries.move_to_end(key)

    def __len__(self) -> int:
        return len(self._entries)
