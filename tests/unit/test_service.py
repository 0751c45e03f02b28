"""The decision service: whatever goes wrong below is a denial with a reason, and every answer is recorded once."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from sark_pdp.decision.service import DecisionService
from sark_pdp.errors import (
    AuditError,
    DeadlineExceededError,
    EvaluationError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnknownEntrypointError,
)
from sark_pdp.interfaces import Answered, PolicySet
from sark_pdp.model import (
    AuditRecord,
    Deadline,
    Decision,
    DecisionRecord,
    Entrypoint,
    FilterRecord,
    Outcome,
    Request,
    Seconds,
    Tier,
    Verdict,
)
from sark_pdp.projection import Projection
from tests.fix_audit import FakeEntrypoint, new_id
from tests.fix_engine import a_question, each

ENTRYPOINT = FakeEntrypoint(Projection([("user",)]))
REQUEST = a_question(ENTRYPOINT, {"user": "alice", "port": 7})
FULL = "the audit trail cannot take the decision, and audit.on_full is deny"


class Answering:
    """A decider that answers as it is told, and knows nothing at once unless told."""

    def __init__(self) -> None:
        self.outcome = Outcome.ALLOW
        self.error: BaseException | None = None
        self.known = True
        self.asked: list[Request] = []

    def decide(self, request: Request) -> Decision:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        projected = request.entrypoint.projection.project(request.document)
        return Decision(new_id(), Verdict(self.outcome, "because"), Tier.L1, projected, reusable=Seconds(5.0))

    def decide_nowait(self, request: Request) -> Decision | None:
        return self.decide(request) if self.known else None

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        return each(self.decide, requests)


class Sink:
    """Takes records, until it is told to drop or to refuse them."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.takes = True
        self.accepting = True
        self.required = False
        self.keeps = True

    def put_nowait(self, record: AuditRecord) -> bool:
        if self.takes:
            self.records.append(record)
        return self.takes

    def accepts(self) -> bool:
        return self.accepting


class NoPolicies:
    """Not asked by a decision."""

    def active(self) -> PolicySet:
        raise NotReadyError("no policy bundle is active yet")

    def entrypoint(self, name: str) -> Entrypoint:
        raise UnknownEntrypointError(name, ())


class Parts:
    def __init__(self) -> None:
        self.below = Answering()
        self.audit = Sink()
        self.observed: Counter[tuple[Outcome, Tier]] = Counter()

        def observe(outcome: Outcome, tier: Tier) -> None:
            self.observed[outcome, tier] += 1

        self.service = DecisionService(NoPolicies(), self.below, self.audit, observe)


@pytest.fixture
def parts() -> Parts:
    return Parts()


Ask = Callable[[DecisionService, Request], Decision | None]


def filtered(service: DecisionService, request: Request) -> Decision:
    [decision] = service.filter("tool", (request,))
    return decision


WAYS: list[Ask] = [DecisionService.decide, filtered]
EACH_WAY = pytest.mark.parametrize("ask", WAYS, ids=["decide", "filter"])


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("ask", [DecisionService.decide, DecisionService.decide_nowait], ids=["decide", "nowait"])
def test_an_answer_is_the_one_below_recorded_once(parts: Parts, ask: Ask, outcome: Outcome) -> None:
    parts.below.outcome = outcome
    before = time.time_ns()
    decision = ask(parts.service, REQUEST)
    assert decision is not None
    assert (decision.verdict, decision.reusable) == (Verdict(outcome, "because"), 5.0)
    [record] = parts.audit.records
    assert isinstance(record, DecisionRecord)
    assert (record.id, record.request, record.decision) == (decision.id, REQUEST, decision)
    assert before <= record.time_ns <= time.time_ns()
    assert 0 <= record.latency_ns <= time.time_ns() - before + 1_000_000_000
    assert parts.observed == {(outcome, Tier.L1): 1}


def test_what_is_not_known_is_neither_answered_nor_recorded(parts: Parts) -> None:
    parts.below.known = False
    assert parts.service.decide_nowait(REQUEST) is None
    assert (parts.audit.records, parts.observed) == ([], {})


FAILURES: list[tuple[BaseException, str]] = [
    (EvaluationError("the policy aborted: conflict"), "the policy aborted: conflict"),
    (AuditError("secret"), "the decision point failed; its log has the reason"),
    (ZeroDivisionError("secret"), "the decision point failed; its log has the reason"),
    (TimeoutError("secret"), "the decision point failed; its log has the reason"),
    (MemoryError("secret"), "the decision point failed; its log has the reason"),
    (RecursionError("secret"), "the decision point failed; its log has the reason"),
    (UnicodeEncodeError("utf-8", "secret", 0, 1, "secret"), "the decision point failed; its log has the reason"),
]


@EACH_WAY
@pytest.mark.parametrize(("error", "reason"), FAILURES, ids=[type(error).__name__ for error, _ in FAILURES])
def test_whatever_fails_below_is_a_recorded_denial(
    parts: Parts, caplog: pytest.LogCaptureFixture, ask: Ask, error: BaseException, reason: str
) -> None:
    parts.below.error = error
    decision = ask(parts.service, REQUEST)
    assert decision is not None
    assert decision.verdict == Verdict(Outcome.ERROR, reason)
    assert (decision.tier, decision.projected) == (Tier.EVALUATED, {"user": "alice"})
    assert not decision.reusable
    [record] = parts.audit.records
    assert record.id == decision.id
    assert parts.observed == {(Outcome.ERROR, Tier.EVALUATED): 1}
    expected = [] if isinstance(error, EvaluationError) else [(logging.ERROR, error)]
    assert [(logged.levelno, logged.exc_info and logged.exc_info[1]) for logged in caplog.records] == expected


@pytest.mark.parametrize(("error", "reason"), FAILURES[1:], ids=[type(error).__name__ for error, _ in FAILURES[1:]])
def test_what_fails_at_once_is_left_to_the_one_who_may_wait(parts: Parts, error: BaseException, reason: str) -> None:
    parts.below.error = error
    assert parts.service.decide_nowait(REQUEST) is None
    assert (parts.audit.records, parts.observed) == ([], {})
    assert parts.service.decide(REQUEST).verdict.reason == reason


def test_an_evaluation_that_fails_at_once_is_a_recorded_denial(parts: Parts) -> None:
    parts.below.error = EvaluationError("the policy aborted: conflict")
    decision = parts.service.decide_nowait(REQUEST)
    assert decision is not None
    assert decision.verdict == Verdict(Outcome.ERROR, "the policy aborted: conflict")
    assert (decision.tier, decision.projected) == (Tier.EVALUATED, {"user": "alice"})
    [record] = parts.audit.records
    assert record.id == decision.id
    assert parts.observed == {(Outcome.ERROR, Tier.EVALUATED): 1}


REFUSALS: list[RequestError] = [
    DeadlineExceededError("too late"),
    OverloadedError("too much"),
    InvalidRequestError("input", "no"),
    NotReadyError("not yet"),
]


@EACH_WAY
@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_call_that_gets_no_decision_is_not_recorded(parts: Parts, ask: Ask, error: RequestError) -> None:
    parts.below.error = error
    with pytest.raises(type(error)):
        ask(parts.service, REQUEST)
    assert (parts.audit.records, parts.observed) == ([], {})


@EACH_WAY
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()], ids=["interrupt", "exit"])
def test_the_end_of_the_process_is_no_decision(parts: Parts, ask: Ask, error: BaseException) -> None:
    parts.below.error = error
    with pytest.raises(type(error)):
        ask(parts.service, REQUEST)
    assert parts.audit.records == []


@pytest.mark.parametrize("ask", [*WAYS, DecisionService.decide_nowait], ids=["decide", "filter", "nowait"])
def test_after_the_deadline_nobody_is_asked(parts: Parts, ask: Ask) -> None:
    late = a_question(ENTRYPOINT, {}, deadline=Deadline(time.monotonic() - 0.001))
    with pytest.raises(DeadlineExceededError, match="the deadline had passed"):
        ask(parts.service, late)
    assert (parts.below.asked, parts.audit.records, parts.observed) == ([], [], {})
    soon = a_question(ENTRYPOINT, {}, deadline=Deadline(time.monotonic() + 60))
    assert ask(parts.service, soon) is not None


@EACH_WAY
def test_where_nothing_may_be_unrecorded_a_full_trail_denies_unasked(parts: Parts, ask: Ask) -> None:
    parts.audit.required = True
    parts.audit.accepting = parts.audit.takes = False
    decision = ask(parts.service, REQUEST)
    assert decision is not None
    assert decision.verdict == Verdict(Outcome.ERROR, FULL)
    assert parts.below.asked == []
    assert parts.service.decide_nowait(REQUEST) is None
    assert parts.below.asked == []
    assert parts.observed == {(Outcome.ERROR, Tier.EVALUATED): 1}


@pytest.mark.parametrize("ask", [*WAYS, DecisionService.decide_nowait], ids=["decide", "filter", "nowait"])
def test_where_nothing_may_be_unrecorded_an_answer_that_was_dropped_denies(parts: Parts, ask: Ask) -> None:
    # Full for a moment only: there is room again by the time that anyone looks.
    parts.audit.required = True
    parts.audit.takes = False
    decision = ask(parts.service, REQUEST)
    assert decision is not None
    assert decision.verdict == Verdict(Outcome.ERROR, FULL)
    assert not decision.reusable
    assert len(parts.below.asked) == 1
    assert parts.observed == {(Outcome.ERROR, Tier.EVALUATED): 1}


@pytest.mark.parametrize("ask", [*WAYS, DecisionService.decide_nowait], ids=["decide", "filter", "nowait"])
def test_where_records_may_be_dropped_the_answer_stands(parts: Parts, ask: Ask) -> None:
    parts.audit.takes = False
    decision = ask(parts.service, REQUEST)
    assert decision is not None
    assert decision.verdict.outcome is Outcome.ALLOW
    assert parts.observed == {(Outcome.ALLOW, Tier.L1): 1}


def test_where_nothing_is_kept_no_record_is_made() -> None:
    below, audit = Answering(), Sink()
    audit.keeps = False
    observed: Counter[Outcome] = Counter()
    service = DecisionService(NoPolicies(), below, audit, lambda outcome, _tier: observed.update([outcome]))
    for ask in (DecisionService.decide, DecisionService.decide_nowait):
        decision = ask(service, REQUEST)
        assert decision is not None
        assert decision.verdict.outcome is Outcome.ALLOW
    assert not service.recording
    assert (audit.records, observed) == ([], {Outcome.ALLOW: 2})


def test_a_filter_is_one_record_whose_id_its_decisions_share(parts: Parts) -> None:
    requests = tuple(a_question(ENTRYPOINT, {"user": "alice", "tool": {"id": str(number)}}) for number in range(5))
    outcomes: list[Any] = [Outcome.ALLOW, Outcome.DENY, EvaluationError("the policy aborted"), Outcome.UNDEFINED]
    asked = parts.below.decide

    def decide(request: Request) -> Decision:
        told = outcomes[len(parts.below.asked) % len(outcomes)]
        parts.below.error = told if isinstance(told, Exception) else None
        parts.below.outcome = Outcome.ALLOW if isinstance(told, Exception) else told
        return asked(request)

    parts.below.decide = decide  # type: ignore[method-assign]
    decisions = parts.service.filter("tool", requests)
    assert [decision.verdict.outcome for decision in decisions] == [
        Outcome.ALLOW,
        Outcome.DENY,
        Outcome.ERROR,
        Outcome.UNDEFINED,
        Outcome.ALLOW,
    ]
    [record] = parts.audit.records
    assert isinstance(record, FilterRecord)
    assert {record.id} == {decision.id for decision in decisions}
    assert (record.resource_field, record.requests, record.decisions) == ("tool", requests, decisions)
    assert sum(parts.observed.values()) == 5


def test_a_record_counts_what_its_message_took(parts: Parts) -> None:
    sizes = (100, 20, 3)
    requests = tuple(replace(REQUEST, size=size) for size in sizes)
    for request in requests:
        parts.service.decide(request)
        parts.service.decide_nowait(request)
    parts.service.filter("tool", requests)
    assert [record.size for record in parts.audit.records] == [100, 100, 20, 20, 3, 3, 123]


def test_policies_are_those_of_their_source(parts: Parts) -> None:
    with pytest.raises(NotReadyError):
        parts.service.active()
    with pytest.raises(UnknownEntrypointError):
        parts.service.entrypoint("sark/mcp/decision")
