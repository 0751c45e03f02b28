"""L2: the verdicts that sidecars share through Redis.

What is kept is the result as the policy returned it; what it means is found anew by whoever reads it.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from sark_pdp.cache.choice import Choice
from sark_pdp.cache.signed import SignedStore, Stored
from sark_pdp.interfaces import CacheEntry, StoreStatistics
from sark_pdp.model import Entrypoint, Outcome, Seconds, Verdict
from sark_pdp.observability.instruments import Counter
from sark_pdp.observability.shared_cache import EntrypointCosts

VerdictOf = Callable[[bytes | None], Verdict]
"""What a result, as the policy returned it, means; None is undefined."""

_KIND: Final = "decision"
_JITTER: Final = 0.1
"""The share of a lifetime that chance takes, so that what was kept together does not expire together."""
_MOST_ENTRYPOINTS: Final = 256
_ERROR: Final = Outcome.ERROR


class Kept(Struct, frozen=True):
    """A verdict on its way to Redis."""

    key: bytes
    verdict: Verdict
    as_of: float
    """On `time.monotonic()`."""
    expires: float
    """On `time.monotonic()`."""


class SharedVerdicts:
    """The tier behind L1. Thread-safe."""

    def __init__(self, store: SignedStore, verdict_of: VerdictOf, ttl: Seconds, choice: Choice) -> None:
        self.ttl = ttl
        """The longest that a verdict is kept."""
        self._store, self._verdict_of, self._choice = store, verdict_of, choice
        # Names are those of loaded entrypoints; to add one is one call of C code.
        self._lasting: set[str] = set()
        self._hits = Counter()
        self._misses = Counter()

    @property
    def run_id(self) -> bytes | None:
        """Of the server now; read before generations are, and given to `put_later`."""
        return self._store.run_id

    def asks(self, entrypoint: Entrypoint, *, measured: bool) -> bool:
        """Whether to ask for a verdict of this entrypoint. `measured`: what it takes will be told, or what a miss does.

        Not while Redis is away, nor where a miss costs less, nor where there cannot be one: of an entrypoint that is
        not deterministic only those are kept to which the policy gave a lifetime, so that has to be seen first.
        """
        if self._store.run_id is None or not (entrypoint.deterministic or entrypoint.name in self._lasting):
            return False
        return self._choice.asks(entrypoint.name) if measured else self._choice.prefers(entrypoint.name)

    def lasts(self, entrypoint: str) -> None:
        """A verdict of this entrypoint may be kept."""
        if entrypoint not in self._lasting and len(self._lasting) < _MOST_ENTRYPOINTS:
            self._lasting.add(entrypoint)

    def get(self, entrypoint: str, key: bytes, waited: float = 0.0) -> CacheEntry | None:
        """What one of the sidecars decided, where that is good now. `waited` as for `SignedStore`."""
        began = time.monotonic()
        (found,) = self.get_many([key], waited)
        # Another round trip came before where the caller has waited; this one was left out where that took long.
        self._choice.asked(entrypoint, max(time.monotonic() - began, waited))
        return found

    def get_many(self, keys: Sequence[bytes], waited: float = 0.0) -> list[CacheEntry | None]:
        """The same for several, in one round trip."""
        stored = self._store.get_many(_KIND, keys, waited)
        found = [None if each is None else self._entry(each) for each in stored]
        hits = sum(entry is not None for entry in found)
        self._hits.value += hits
        self._misses.value += len(found) - hits
        return found

    def put_later(self, kept: Sequence[Kept], run_id: bytes | None) -> None:
        """Keeps them for others; never waits."""
        if run_id is None or not kept:
            return
        offset = time.time() - time.monotonic()
        items = []
        for each in kept:
            shortened = (each.expires - each.as_of) * _JITTER * random.random()  # noqa: S311  # no secret
            stored = Stored(each.verdict.result_json, each.as_of + offset, each.expires + offset - shortened)
            items.append((each.key, stored))
        self._store.put_later(_KIND, items, run_id)

    def missed(self, entrypoint: str, took: float) -> None:
        """A policy was evaluated, in so many seconds."""
        self._choice.missed(entrypoint, took)

    def costs(self) -> list[EntrypointCosts]:
        """Of each entrypoint that was asked."""
        return self._choice.costs()

    def statistics(self) -> StoreStatistics:
        """Now. How many entries Redis holds is not asked."""
        return StoreStatistics("l2", 0, 0, self._hits.value, self._misses.value)

    def _entry(self, stored: Stored) -> CacheEntry | None:
        verdict = self._verdict_of(stored.payload or None)
        if verdict.outcome is _ERROR:
            return None
        offset = time.time() - time.monotonic()
        as_of, expires = stored.as_of - offset, stored.expires - offset
        now = time.monotonic()
        # The signer's settings may differ from those here, and its clock by a moment.
        lifetime = self.ttl if verdict.cache_ttl is None else min(self.ttl, verdict.cache_ttl)
        return CacheEntry(verdict, min(as_of, now), min(expires, as_of + lifetime))
