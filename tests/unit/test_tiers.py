"""The caching decider: what is kept, for how long, and for whom it is good enough."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace

from sark_pdp.cache import tiers
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.errors import DeadlineExceededError, EvaluationError
from sark_pdp.interfaces import Answered
from sark_pdp.model import Deadline, Decision, Outcome, Request, Seconds, Tier, Verdict
from sark_pdp.projection import Projection
from tests.fix_audit import FakeEntrypoint, new_id
from tests.fix_engine import a_question, each

TTL = Seconds(10.0)
USER = Projection([("user",)])
PURE = FakeEntrypoint(USER)
CLOCKED = FakeEntrypoint(USER, deterministic=False)
ALLOWED = Verdict(Outcome.ALLOW, "because", {"allow": True}, b'{"allow":true}')


class Time:
    """`time.monotonic()` as the cache sees it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now


class Evaluating:
    """Answers with what it holds, and takes as long as it is told."""

    def __init__(self, clock: Time) -> None:
        self.verdict = ALLOWED
        self.error: Exception | None = None
        self.takes = 0.0
        self.at_once = False
        self.asked: list[Request] = []
        self._clock = clock

    def decide(self, request: Request) -> Decision:
        self.asked.append(request)
        self._clock.now += self.takes
        if self.error is not None:
            raise self.error
        assert request.projected == request.entrypoint.projection.project(request.document)
        return Decision(new_id(), self.verdict, Tier.EVALUATED, request.projected, Seconds(self.takes))

    def decide_nowait(self, request: Request) -> Decision | None:
        return self.decide(request) if self.at_once else None

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        return each(self.decide, requests)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(tiers, "time", made)
    return made


@pytest.fixture
def evaluating(clock: Time) -> Evaluating:
    return Evaluating(clock)


@pytest.fixture
def cached(evaluating: Evaluating) -> CachedDecider:
    return CachedDecider(evaluating, MemoryStore(100), TTL)


def question(user: Any = "alice", entrypoint: FakeEntrypoint = PURE, **fields: Any) -> Request:
    return a_question(entrypoint, {"user": user, "request": fields}, **fields)


def counts(cached: CachedDecider) -> tuple[int, int, int]:
    """Hits, misses, entries."""
    now = cached.statistics()
    assert (now.name, now.capacity) == ("l1", 100)
    return now.hits, now.misses, now.entries


def test_the_second_answer_is_the_first_one_remembered(
    cached: CachedDecider, evaluating: Evaluating, clock: Time
) -> None:
    evaluating.takes = 0.25
    first = cached.decide(question())
    assert (first.tier, first.age, first.reusable) == (Tier.EVALUATED, 0.25, 9.75)
    clock.now += 3
    for remembered in (cached.decide(question()), cached.decide_nowait(question())):
        assert remembered is not None
        assert remembered.verdict is first.verdict
        assert (remembered.tier, remembered.age, remembered.reusable) == (Tier.L1, 3.25, 6.75)
        assert remembered.projected == {"user": "alice"}
        assert remembered.id != first.id
    assert len(evaluating.asked) == 1
    assert counts(cached) == (2, 1, 1)


def test_what_the_policy_does_not_read_does_not_count(cached: CachedDecider, evaluating: Evaluating) -> None:
    for number in range(3):
        cached.decide(a_question(PURE, {"user": "alice", "port": number}))
    assert len(evaluating.asked) == 1
    others: list[Any] = ["bob", 1, 1.0, True, None, {}]
    for user in others:
        cached.decide(question(user))
    cached.decide(a_question(PURE, {}))
    cached.decide(question(entrypoint=FakeEntrypoint(USER, fingerprint=b"2" * 32)))
    assert len(evaluating.asked) == 9


# What the policy says of the lifetime, whether the entrypoint is deterministic, and the seconds that it is kept.
LIFETIMES: list[tuple[float | None, bool, float]] = [
    (None, True, 10.0),
    (None, False, 0.0),
    (3.0, True, 3.0),
    (3.0, False, 3.0),
    (0.5, False, 0.5),
    (0.0, True, 0.0),
    (0.0, False, 0.0),
    (60.0, True, 10.0),
    (60.0, False, 10.0),
]


@pytest.mark.parametrize("outcome", [Outcome.ALLOW, Outcome.DENY, Outcome.UNDEFINED])
@pytest.mark.parametrize(("cache_ttl", "deterministic", "kept"), LIFETIMES)
def test_an_answer_lives_as_long_as_policy_and_settings_both_allow(
    cached: CachedDecider,
    evaluating: Evaluating,
    clock: Time,
    outcome: Outcome,
    cache_ttl: float | None,
    deterministic: bool,
    kept: float,
) -> None:
    evaluating.verdict = Verdict(outcome, "because", cache_ttl=None if cache_ttl is None else Seconds(cache_ttl))
    asked = question(entrypoint=PURE if deterministic else CLOCKED)
    assert cached.decide(asked).reusable == kept
    assert counts(cached)[2] == (1 if kept else 0)
    clock.now += kept * 0.99
    assert (cached.decide_nowait(asked) is not None) is bool(kept)
    clock.now += kept * 0.02
    assert cached.decide_nowait(asked) is None
    assert cached.decide(asked).tier is Tier.EVALUATED


def test_an_answer_that_took_longer_than_it_lives_is_not_kept(cached: CachedDecider, evaluating: Evaluating) -> None:
    evaluating.verdict = replace(ALLOWED, cache_ttl=Seconds(0.5))
    evaluating.takes = 0.5
    assert not cached.decide(question()).reusable
    assert counts(cached) == (0, 1, 0)


def test_errors_are_never_kept(cached: CachedDecider, evaluating: Evaluating) -> None:
    evaluating.verdict = Verdict(Outcome.ERROR, "unusable", cache_ttl=Seconds(60.0))
    for _ in range(2):
        decision = cached.decide(question())
        assert decision.tier is Tier.EVALUATED
        assert not decision.reusable
    evaluating.error = EvaluationError("the policy aborted")
    for _ in range(2):
        with pytest.raises(EvaluationError):
            cached.decide(question())
    assert cached.decide_nowait(question()) is None
    assert counts(cached) == (0, 4, 0)


def test_a_caller_may_ask_for_a_fresh_answer(cached: CachedDecider, evaluating: Evaluating, clock: Time) -> None:
    cached.decide(question())
    clock.now += 4
    for max_age, tier in ((None, Tier.L1), (5.0, Tier.L1), (4.0, Tier.L1), (3.9, Tier.EVALUATED)):
        assert cached.decide(question(max_age=max_age)).tier is tier
    # What was evaluated for one is known to all.
    assert cached.decide(question(max_age=0.1)).tier is Tier.L1
    assert len(evaluating.asked) == 2


def test_zero_bypasses_what_is_known_and_refreshes_it(
    cached: CachedDecider, evaluating: Evaluating, clock: Time
) -> None:
    cached.decide(question())
    evaluating.verdict = Verdict(Outcome.DENY, "not any more")
    for _ in range(2):
        assert cached.decide_nowait(question(max_age=Seconds(0.0))) is None
        assert cached.decide(question(max_age=Seconds(0.0))).verdict.outcome is Outcome.DENY
    clock.now += 9
    assert cached.decide(question()).verdict.outcome is Outcome.DENY
    assert len(evaluating.asked) == 3


def test_what_cannot_be_kept_leaves_what_is_known(cached: CachedDecider, evaluating: Evaluating) -> None:
    """An error of one evaluation says nothing about the verdict before it."""
    cached.decide(question())
    evaluating.error = EvaluationError("the policy aborted")
    with pytest.raises(EvaluationError):
        cached.decide(question(max_age=Seconds(0.0)))
    assert cached.decide(question()).verdict is ALLOWED


def test_what_takes_long_is_neither_answered_at_once_nor_counted(cached: CachedDecider) -> None:
    """Who asks again where it may wait is counted."""
    assert cached.decide_nowait(question()) is None
    assert counts(cached) == (0, 0, 0)
    cached.decide(question())
    assert counts(cached) == (0, 1, 1)


def test_what_is_evaluated_at_once_is_kept_and_counted_once(
    cached: CachedDecider, evaluating: Evaluating, clock: Time
) -> None:
    evaluating.at_once = True
    evaluating.takes = 0.25
    first = cached.decide_nowait(question())
    assert first is not None
    assert (first.tier, first.age, first.reusable) == (Tier.EVALUATED, 0.25, 9.75)
    clock.now += 1
    for remembered in (cached.decide_nowait(question()), cached.decide(question())):
        assert remembered is not None
        assert remembered.verdict is first.verdict
        assert (remembered.tier, remembered.age, remembered.reusable) == (Tier.L1, 1.25, 8.75)
    assert len(evaluating.asked) == 1
    assert counts(cached) == (2, 1, 1)


def test_what_fails_at_once_is_a_miss_and_is_not_kept(cached: CachedDecider, evaluating: Evaluating) -> None:
    evaluating.at_once = True
    evaluating.error = EvaluationError("the policy aborted")
    with pytest.raises(EvaluationError):
        cached.decide_nowait(question())
    assert counts(cached) == (0, 1, 0)


@pytest.mark.parametrize("max_age", [None, 5.0, 0.0])
def test_the_age_that_a_caller_accepts_counts_at_once_as_well(
    cached: CachedDecider, evaluating: Evaluating, clock: Time, max_age: float | None
) -> None:
    evaluating.at_once = True
    cached.decide_nowait(question())
    clock.now += 6
    again = cached.decide_nowait(question(max_age=max_age))
    assert again is not None
    assert again.tier is (Tier.L1 if max_age is None else Tier.EVALUATED)
    # What was evaluated for one is known to all.
    latest = cached.decide_nowait(question())
    assert latest is not None
    assert (latest.tier, latest.age) == (Tier.L1, 6.0 if max_age is None else 0.0)


def test_a_projection_that_is_there_already_is_taken_as_it_is(cached: CachedDecider, evaluating: Evaluating) -> None:
    """And is the same key."""
    cached.decide(question())
    told = a_question(PURE, {"user": "alice", "more": "of it"}, projected={"user": "alice"})
    decision = cached.decide_nowait(told)
    assert decision is not None
    assert decision.tier is Tier.L1
    assert decision.projected is told.projected


def test_a_refusal_that_lasts_replaces_nothing_but_its_own_key(cached: CachedDecider, evaluating: Evaluating) -> None:
    for number in range(150):
        cached.decide(question(number))
    assert counts(cached) == (0, 150, 100)
    assert cached.decide(question(149)).tier is Tier.L1
    assert cached.decide(question(0)).tier is Tier.EVALUATED


class Gate:
    """An evaluation that waits until it is let through."""

    def __init__(self, error: Exception | None = None, verdict: Verdict = ALLOWED) -> None:
        self.evaluations = 0
        self._verdict = verdict
        self.begun = threading.Event()
        self.open = threading.Event()
        self._error = error

    def decide(self, request: Request) -> Decision:
        self.evaluations += 1
        self.begun.set()
        assert self.open.wait(30)
        if self._error is not None:
            raise self._error
        projected = request.entrypoint.projection.project(request.document)
        return Decision(new_id(), self._verdict, Tier.EVALUATED, projected)

    def decide_nowait(self, _request: Request) -> Decision | None:
        raise AssertionError("what is being evaluated already is not evaluated again")

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        return each(self.decide, requests)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting(cached: CachedDecider) -> int:
    """Callers who wait for an evaluation that another one began."""
    flights: list[Any] = [*cached._flights._flights.values()]
    return sum(len(flight._condition._waiters) for flight in flights)


def test_who_asks_the_same_at_the_same_time_shares_one_evaluation() -> None:
    gate = Gate()
    cached = CachedDecider(gate, MemoryStore(100), TTL)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(cached.decide, question()) for _ in range(8)]
        wait_until(lambda: waiting(cached) == 7)
        # This one wants no evaluation that began before it asked.
        fresh = pool.submit(cached.decide, question(max_age=Seconds(0.0)))
        wait_until(lambda: gate.evaluations == 2)
        # Nor does anyone who may not wait.
        assert cached.decide_nowait(question()) is None
        gate.open.set()
        decisions = [done.result() for done in asked] + [fresh.result()]
    assert gate.evaluations == 2
    assert len({decision.id for decision in decisions}) == 9
    assert {(decision.verdict.reason, decision.tier) for decision in decisions} == {("because", Tier.EVALUATED)}
    assert counts(cached) == (0, 9, 1)


@pytest.mark.parametrize(
    ("entrypoint", "verdict"),
    [(CLOCKED, ALLOWED), (PURE, replace(ALLOWED, cache_ttl=Seconds(0.0)))],
    ids=["not deterministic", "not for reuse"],
)
def test_what_may_not_be_kept_is_not_shared(entrypoint: FakeEntrypoint, verdict: Verdict) -> None:
    gate = Gate(verdict=verdict)
    cached = CachedDecider(gate, MemoryStore(100), TTL)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cached.decide, question(entrypoint=entrypoint)) for _ in range(4)]
        wait_until(lambda: waiting(cached) == 3)
        gate.open.set()
        decisions = [done.result() for done in asked]
    assert gate.evaluations == 4
    assert len({decision.id for decision in decisions}) == 4


def test_all_who_share_an_evaluation_share_its_error() -> None:
    gate = Gate(EvaluationError("the policy aborted"))
    cached = CachedDecider(gate, MemoryStore(100), TTL)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cached.decide, question()) for _ in range(4)]
        wait_until(lambda: waiting(cached) == 3)
        gate.open.set()
        assert [str(done.exception()) for done in asked] == ["the policy aborted"] * 4
    assert gate.evaluations == 1


def test_who_shares_an_evaluation_waits_until_its_own_deadline() -> None:
    gate = Gate()
    cached = CachedDecider(gate, MemoryStore(100), TTL)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(cached.decide, question())
        assert gate.begun.wait(30)
        with pytest.raises(DeadlineExceededError):
            cached.decide(question(deadline=Deadline(time.monotonic() + 0.05)))
        gate.open.set()
        assert leader.result().verdict is ALLOWED
