"""What every decider promises to the layer above. Whoever writes another one adds it to `DECIDERS`."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.decision.service import DecisionService
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedPolicies, load
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.errors import DeadlineExceededError, EvaluationError
from sark_pdp.interfaces import Decider
from sark_pdp.model import Deadline, Decision, Outcome, Request, Seconds, Tier
from sark_pdp.projection import Path
from sark_pdp.transport.ext_authz import Answers, ReviewedDecider
from tests.fix_audit import MemorySink
from tests.fix_engine import Loaded, a_bundle, a_question


def bare(_policies: LoadedPolicies) -> Decider:
    return Evaluator(lambda *_: None)


def cached(policies: LoadedPolicies) -> Decider:
    return CachedDecider(bare(policies), MemoryStore(100), Seconds(60.0))


def reviewed(policies: LoadedPolicies) -> Decider:
    return ReviewedDecider(cached(policies), Answers())


def served(policies: LoadedPolicies) -> Decider:
    return DecisionService(Loaded(policies), cached(policies), MemorySink(), lambda *_: None)


DECIDERS: dict[str, Callable[[LoadedPolicies], Decider]] = {
    "evaluator": bare,
    "cached": cached,
    "reviewed": reviewed,
    "service": served,
}

READS: dict[str, tuple[list[Path], list[Path]]] = {
    "t/yes": ([("user", "id")], []),
    "t/answer": ([("name",)], []),
    "t/conflict": ([()], []),
    "t/loop": ([("many",)], []),
    "t/whole": ([()], []),
}
ANSWERS: list[tuple[str, Any, Outcome]] = [
    ("t/yes", {"user": {"id": "alice"}}, Outcome.ALLOW),
    ("t/yes", {"user": {"id": "eve"}}, Outcome.DENY),
    ("t/yes", {"user": {}}, Outcome.UNDEFINED),
    ("t/answer", {"name": "bob"}, Outcome.ALLOW),
    ("t/whole", {"allow": 7}, Outcome.ERROR),
    ("t/whole", {"allow": True, "cache_ttl": 0}, Outcome.ALLOW),
]


@pytest.fixture
def policies(patient_runtime: Runtime, general_wasm: bytes) -> LoadedPolicies:
    return load(a_bundle(general_wasm, READS), patient_runtime)


@pytest.fixture(params=DECIDERS)
def decider(request: pytest.FixtureRequest, policies: LoadedPolicies) -> Decider:
    return DECIDERS[request.param](policies)


def question(policies: LoadedPolicies, name: str, document: Any) -> Request:
    return a_question(policies.entrypoint(name), {**document, "port": 7} if name != "t/whole" else document)


def said(decision: Decision) -> tuple[Any, ...]:
    return decision.verdict.outcome, decision.verdict.reason, decision.verdict.result, decision.projected


@pytest.mark.parametrize(("name", "document", "outcome"), ANSWERS)
def test_every_answer_to_a_question_is_the_same_but_for_its_id(
    decider: Decider, policies: LoadedPolicies, name: str, document: Any, outcome: Outcome
) -> None:
    request = question(policies, name, document)
    decisions = [decider.decide(request) for _ in range(3)]
    decisions += [known for known in [decider.decide_nowait(request)] if known is not None]
    assert decisions[0].verdict.outcome is outcome
    assert decisions[0].projected == request.entrypoint.projection.project(request.document)
    assert len({repr(said(decision)) for decision in decisions}) == 1
    assert len({decision.id for decision in decisions}) == len(decisions)
    assert {UUID(decision.id).version for decision in decisions} == {7}
    assert min(decision.age for decision in decisions) >= 0


@pytest.mark.parametrize(("name", "document", "outcome"), ANSWERS)
def test_what_is_quick_is_answered_at_once_and_alike(
    decider: Decider, policies: LoadedPolicies, name: str, document: Any, outcome: Outcome
) -> None:
    request = question(policies, name, document)
    decision = at_once(decider, request)
    assert decision.verdict.outcome is outcome
    assert said(decision) == said(decider.decide(request))


def at_once(decider: Decider, request: Request) -> Decision:
    """The answer without waiting; on a busy machine not the first attempt may be quick enough."""
    end = time.monotonic() + 30
    while (decision := decider.decide_nowait(request)) is None:
        assert time.monotonic() < end
        decider.decide(request)
    return decision


def test_what_is_slow_is_not_answered_at_once(decider: Decider, policies: LoadedPolicies) -> None:
    request = question(policies, "t/loop", {"many": ["a"] * 40})
    for _ in range(3):
        assert decider.decide_nowait(request) is None
    assert decider.decide(request).verdict.outcome is Outcome.UNDEFINED


def test_only_what_may_be_kept_may_be_reused(decider: Decider, policies: LoadedPolicies) -> None:
    for name, document, outcome in ANSWERS:
        for _ in range(2):
            decision = decider.decide(question(policies, name, document))
            lasting = outcome is not Outcome.ERROR and "cache_ttl" not in document
            assert lasting or not decision.reusable
            assert lasting or decision.tier is Tier.EVALUATED


def test_an_evaluation_that_fails_is_an_error_of_that_question_alone(
    decider: Decider, policies: LoadedPolicies
) -> None:
    failing = question(policies, "t/conflict", {"left": 1, "right": 1})
    for _ in range(2):
        if isinstance(decider, DecisionService):
            assert decider.decide(failing).verdict.outcome is Outcome.ERROR
        else:
            with pytest.raises(EvaluationError, match="the policy aborted"):
                decider.decide(failing)
        assert reason_at_once(decider, failing) in ("", "the policy aborted: eval_conflict_error")
        assert decider.decide(question(policies, *ANSWERS[0][:2])).verdict.outcome is Outcome.ALLOW


def reason_at_once(decider: Decider, request: Request) -> str:
    """Why a decision is an error; empty where it is not known at once."""
    try:
        decision = decider.decide_nowait(request)
    except EvaluationError as error:
        return str(error)
    assert decision is None or decision.verdict.outcome is Outcome.ERROR
    return "" if decision is None else decision.verdict.reason


def many_of(decider: Decider, requests: Sequence[Request]) -> list[tuple[Any, ...] | str]:
    """What was said to each of several questions at once, or what it failed with."""
    answers = decider.decide_many(requests)
    assert len(answers) == len(requests)
    return [said(each) if isinstance(each, Decision) else str(each) for each in answers]


def test_several_at_once_get_each_the_answer_that_it_gets_alone(decider: Decider, policies: LoadedPolicies) -> None:
    asked = [question(policies, name, document) for name, document, _ in ANSWERS] * 2
    together = many_of(decider, asked)
    assert together == [said(decider.decide(request)) for request in asked]
    assert together == many_of(decider, asked)
    ids = {each.id for each in decider.decide_many(asked) if isinstance(each, Decision)}
    assert len(ids) == len(asked)
    assert many_of(decider, []) == []


def test_one_of_several_that_fails_is_alone(decider: Decider, policies: LoadedPolicies) -> None:
    good, failing = question(policies, *ANSWERS[0][:2]), question(policies, "t/conflict", {"left": 1, "right": 1})
    first, second, third = decider.decide_many([good, failing, good])
    for each in (first, third):
        assert isinstance(each, Decision)
        assert each.verdict.outcome is Outcome.ALLOW
    if isinstance(decider, DecisionService):
        assert isinstance(second, Decision)
        assert (second.verdict.outcome, second.verdict.reason[:18]) == (Outcome.ERROR, "the policy aborted")
    else:
        assert isinstance(second, EvaluationError)


def test_of_several_those_that_are_late_are_not_evaluated(decider: Decider, policies: LoadedPolicies) -> None:
    good = question(policies, *ANSWERS[0][:2])
    late = replace(question(policies, "t/yes", {"user": {"id": "mallory"}}), deadline=Deadline(time.monotonic() - 1))
    first, second = decider.decide_many([good, late])
    assert isinstance(first, Decision)
    assert isinstance(second, DeadlineExceededError)


def test_threads_get_each_the_answer_to_its_own_question(decider: Decider, policies: LoadedPolicies) -> None:
    def run(thread: int) -> None:
        for turn in range(100):
            name = str((thread * 31 + turn) % 40)
            request = question(policies, "t/answer", {"name": name})
            known = decider.decide_nowait(request) if turn % 2 else None
            decision = known or decider.decide(request)
            assert said(decision) == (
                Outcome.ALLOW,
                f"hello {name}",
                {"allow": True, "reason": f"hello {name}"},
                {"name": name},
            )

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run, thread) for thread in range(8)]:
            done.result()
