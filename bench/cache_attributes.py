"""The tiers of attributes in the cache simulation: an L1, Redis behind it, and PostgreSQL behind both.

Only what is looked up counts here, so an attribute is its number. Redis forgets nothing before its time.
"""

from itertools import accumulate
from random import Random
from typing import Final

from msgspec import Struct

from bench.cache_world import zipf
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.interfaces import CacheEntry
from sark_pdp.model import Outcome, Verdict

REGISTRY: Final = {"users": 50_000, "tools": 100_000}
_BLOCK: Final = 10_000
_VALUE: Final = Verdict(Outcome.ALLOW, "")


class Sizes(Struct, frozen=True):
    """Of the tiers of one kind of attributes."""

    l1_size: int
    l1_ttl: float
    """Seconds."""
    l2_ttl: float
    """Seconds; 0 is no Redis."""


class Looked(Struct):
    """How lookups were answered."""

    l1: int = 0
    l2: int = 0
    database: int = 0
    held: int = 0
    """Entries of Redis that had not expired at the end."""

    @property
    def hits(self) -> float:
        """The share that did not need the database."""
        return 1 - self.database / (self.l1 + self.l2 + self.database)


def look_up(count: int, sizes: Sizes, *, rate: int, requests: int, warm_up: float, seed: int) -> Looked:
    """Lookups of `count` attributes by Zipf's law; those of the first `warm_up` seconds are not counted.

    It begins as if it had always been so: an attribute that is asked for `often` times a second is in Redis with the
    probability often·ttl / (1 + often·ttl), with any part of its time left. Else the longest lifetimes could not be
    seen in some minutes.
    """
    random, weights = Random(seed), zipf(count)
    expires = [_expiry_at_first(random, weight * rate, sizes.l2_ttl) for weight in weights]
    cumulated, numbers = list(accumulate(weights)), range(count)
    keys = [number.to_bytes(4) for number in numbers]
    l1, looked, done = MemoryStore(sizes.l1_size), Looked(), 0
    while done < requests:
        for number in random.choices(numbers, cum_weights=cumulated, k=min(_BLOCK, requests - done)):
            now = done / rate
            done += 1
            counted = now >= warm_up
            known = l1.get(keys[number])
            if known is not None and known.expires > now:
                looked.l1 += counted
                continue
            if expires[number] > now:
                looked.l2 += counted
            else:
                looked.database += counted
                expires[number] = now + sizes.l2_ttl
            until = min(now + sizes.l1_ttl, expires[number]) if sizes.l2_ttl else now + sizes.l1_ttl
            l1.put(keys[number], CacheEntry(_VALUE, now, until))
    looked.held = sum(expiry > requests / rate for expiry in expires)
    return looked


def _expiry_at_first(random: Random, often: float, ttl: float) -> float:
    share = often * ttl / (1 + often * ttl)
    return random.random() * ttl if random.random() < share else 0.0
