"""The caching decider: answers what is known already, asks the next one for the rest."""

import time
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace
from uuid_utils import uuid7

from sark_pdp.cache.key import key_of
from sark_pdp.cache.single_flight import SingleFlight
from sark_pdp.errors import EvaluationError
from sark_pdp.interfaces import Answered, CacheEntry, Decider, DecisionStore, StoreStatistics
from sark_pdp.model import Decision, DecisionId, Document, Outcome, Request, Seconds, Tier, Verdict
from sark_pdp.observability.instruments import Counter

# The members of an enumeration take 0.15 µs each time that they are asked for.
_ERROR: Final = Outcome.ERROR
_L1: Final = Tier.L1


class CachedDecider:
    """A decorator that keeps verdicts for at most `ttl`, shorter where the policy says so."""

    def __init__(self, decider: Decider, store: DecisionStore, ttl: Seconds) -> None:
        self._next = decider
        self._store = store
        self._ttl = ttl
        self._flights = SingleFlight()
        self._hits = Counter()
        self._misses = Counter()

    def decide(self, request: Request) -> Decision:
        """From the store, else from the next decider; once for all who ask the same at a time, where it may be kept."""
        projected = request.projected
        if projected is None:
            projected = request.entrypoint.projection.project(request.document)
        key = key_of(request.entrypoint.fingerprint, projected)
        known = self._known(key, projected, request.max_age)
        if known is not None:
            return known
        if request.projected is None:
            request = _with(request, projected)
        self._misses.value += 1
        if request.max_age is not None:
            # An evaluation that another caller began may already be older than this one accepts.
            return self._evaluate(key, request)
        decision, own = self._flights.run(key, request.deadline, lambda: self._evaluate(key, request))
        if own:
            return decision
        if not self._lifetime(decision.verdict, deterministic=request.entrypoint.deterministic):
            # To share an evaluation that began before is to reuse its verdict: this one is for one request.
            return self._evaluate(key, request)
        return replace(decision, id=DecisionId(str(uuid7())))

    def decide_nowait(self, request: Request) -> Decision | None:
        """From the store, else from the next decider where it knows at once and nobody is evaluating the same.

        It is no flight that others could join: they would have to wait for less than it takes to find out.
        """
        projected = request.projected
        if projected is None:
            projected = request.entrypoint.projection.project(request.document)
        key = key_of(request.entrypoint.fingerprint, projected)
        known = self._known(key, projected, request.max_age)
        if known is not None:
            return known
        if request.projected is None:
            request = _with(request, projected)
        if request.max_age is None and self._flights.has(key):
            return None
        began = time.monotonic()
        try:
            decision = self._next.decide_nowait(request)
        except EvaluationError:
            self._misses.value += 1
            raise
        if decision is None:
            # Whoever asks again, where it may wait, counts the miss.
            return None
        self._misses.value += 1
        return self._kept(key, request, decision, began)

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        """From the store, the rest from the next decider at once; it waits for no evaluation of another caller."""
        answers: dict[int, Answered] = {}
        asked: dict[int, tuple[bytes, Request]] = {}
        for index, request in enumerate(requests):
            projected = request.projected
            if projected is None:
                projected = request.entrypoint.projection.project(request.document)
            key = key_of(request.entrypoint.fingerprint, projected)
            known = self._known(key, projected, request.max_age)
            if known is not None:
                answers[index] = known
            else:
                asked[index] = key, _with(request, projected)
        first = {(key, request.max_age): index for index, (key, request) in reversed(asked.items())}
        self._evaluate_many({index: asked.pop(index) for index in sorted(first.values())}, answers)
        # What was asked twice is known now, unless it may not be kept.
        for index, (key, request) in list(asked.items()):
            known = self._known(key, request.projected or {}, request.max_age)
            if known is not None:
                answers[index] = known
                del asked[index]
        self._evaluate_many(asked, answers)
        return [answers[index] for index in range(len(requests))]

    def _evaluate_many(self, asked: dict[int, tuple[bytes, Request]], answers: dict[int, Answered]) -> None:
        if not asked:
            return
        self._misses.value += len(asked)
        began = time.monotonic()
        decided = self._next.decide_many([request for _, request in asked.values()])
        for (index, (key, request)), answered in zip(asked.items(), decided, strict=True):
            answers[index] = self._kept(key, request, answered, began) if isinstance(answered, Decision) else answered

    def statistics(self) -> StoreStatistics:
        """Now."""
        store = self._store
        return StoreStatistics("l1", len(store), store.capacity, self._hits.value, self._misses.value)

    def _known(self, key: bytes, projected: Document, max_age: Seconds | None) -> Decision | None:
        if max_age is not None and max_age <= 0:
            return None
        entry = self._store.get(key)
        if entry is None:
            return None
        now = time.monotonic()
        age = now - entry.as_of
        left = entry.expires - now
        if left <= 0 or (max_age is not None and age > max_age):
            return None
        self._hits.value += 1
        return Decision(DecisionId(str(uuid7())), entry.verdict, _L1, projected, Seconds(age), Seconds(left))

    def _evaluate(self, key: bytes, asked: Request) -> Decision:
        began = time.monotonic()
        return self._kept(key, asked, self._next.decide(asked), began)

    def _kept(self, key: bytes, asked: Request, decision: Decision, began: float) -> Decision:
        verdict = decision.verdict
        ttl = self._lifetime(verdict, deterministic=asked.entrypoint.deterministic)
        left = began + ttl - time.monotonic()
        if left <= 0:
            return decision
        self._store.put(key, CacheEntry(verdict, began, began + ttl))
        return Decision(decision.id, verdict, decision.tier, decision.projected, decision.age, Seconds(left))

    def _lifetime(self, verdict: Verdict, *, deterministic: bool) -> Seconds:
        """From the beginning of the evaluation; zero where it must not be kept."""
        if verdict.outcome is _ERROR:
            return Seconds(0.0)
        if verdict.cache_ttl is not None:
            return min(verdict.cache_ttl, self._ttl)
        # Without a word from the policy nobody knows when the clock or chance would change its mind.
        return self._ttl if deterministic else Seconds(0.0)


def _with(request: Request, projected: Document) -> Request:
    # A quarter of the time of `replace`.
    return Request(
        request.entrypoint,
        request.document,
        request.request_id,
        request.deadline,
        request.max_age,
        request.origin,
        projected,
        request.size,
        request.as_of,
        request.stale,
    )
