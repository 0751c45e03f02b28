"""L1 keeps what was used last."""

from sark_pdp.cache.memory import MemoryStore
from sark_pdp.interfaces import CacheEntry
from sark_pdp.model import Outcome, Verdict

ENTRY = CacheEntry(Verdict(Outcome.ALLOW, "because"), 0.0, 1.0)


def test_the_entry_that_was_not_used_for_longest_goes_first() -> None:
    store = MemoryStore(3)
    for key in (b"a", b"b", b"c"):
        store.put(key, ENTRY)
    assert store.get(b"a") is ENTRY
    store.put(b"b", ENTRY)
    store.put(b"d", ENTRY)
    assert [key for key in (b"a", b"b", b"c", b"d") if store.get(key) is not None] == [b"a", b"b", b"d"]
