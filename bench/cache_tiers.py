"""Pods of the cache simulation: each with its own L1, before an L2 that they share, on a simulated clock."""

from collections.abc import Callable
from random import Random
from typing import Final

from bench.cache_world import Asked
from sark_pdp.cache.key import key_of
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.interfaces import CacheEntry
from sark_pdp.model import Tier, Verdict
from sark_pdp.projection import Projection

L1_SIZE: Final = 1000
L1_TTL: Final = 10.0
L2_TTL: Final = 60.0
_JITTER = 0.1


class Pods:
    """L2 is a dictionary whose entries expire; lifetimes are as in the design, and vary by up to a tenth."""

    def __init__(
        self, pods: int, projection: Projection, *, shared: bool, evaluate: Callable[[Asked], Verdict]
    ) -> None:
        self._l1 = [MemoryStore(L1_SIZE) for _ in range(pods)]
        self._l2: dict[bytes, CacheEntry] | None = {} if shared else None
        self._project = projection.project
        self._evaluate = evaluate
        self._random = Random(1)
        self._tidied = 0.0

    def decide(self, pod: int, asked: Asked) -> tuple[Verdict, Tier]:
        now = asked.at
        key = key_of(b"f" * 32, self._project(asked.document))
        l1, l2 = self._l1[pod], self._l2
        known = l1.get(key)
        if known is not None and known.expires > now:
            return known.verdict, Tier.L1
        if l2 is not None:
            known = l2.get(key)
            if known is not None and known.expires > now:
                l1.put(key, CacheEntry(known.verdict, known.as_of, min(known.expires, now + L1_TTL)))
                return known.verdict, Tier.L2
        verdict = self._evaluate(asked)
        ttl = L2_TTL if verdict.cache_ttl is None else min(verdict.cache_ttl, L2_TTL)
        ttl *= 1 - _JITTER * self._random.random()
        if ttl > 0:
            l1.put(key, CacheEntry(verdict, now, now + min(ttl, L1_TTL)))
            if l2 is not None:
                l2[key] = CacheEntry(verdict, now, now + ttl)
                if now > self._tidied + 10:
                    self._tidied = now
                    self._l2 = {key: entry for key, entry in l2.items() if entry.expires > now}
        return verdict, Tier.EVALUATED
