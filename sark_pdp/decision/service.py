"""The decision service: the outermost decider. It keeps deadlines, fails closed, and has every answer recorded."""

import logging
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace
from uuid_utils import uuid7

from sark_pdp.errors import DeadlineExceededError, EvaluationError, RequestError
from sark_pdp.interfaces import Answered, AuditSink, Decider, PolicySource
from sark_pdp.model import (
    NO_DEADLINE,
    Decision,
    DecisionId,
    DecisionRecord,
    FilterRecord,
    Outcome,
    Request,
    Tier,
    Verdict,
)

ObserveDecision = Callable[[Outcome, Tier], None]
"""Called once for each decision that is answered."""

_NOT_RECORDED = Verdict(Outcome.ERROR, "the audit trail cannot take the decision, and audit.on_full is deny")
_FAILED = Verdict(Outcome.ERROR, "the decision point failed; its log has the reason")

_TOO_LATE = "the deadline had passed when the decision was due"

_log = logging.getLogger(__name__)


class DecisionService:
    """Asks the next decider and answers for it. Whatever goes wrong there is a denial with a reason."""

    def __init__(self, policies: PolicySource, decider: Decider, audit: AuditSink, observe: ObserveDecision) -> None:
        # Not methods around these: each answer would pay for the call.
        self.active = policies.active
        """Raises NotReadyError."""
        self.entrypoint = policies.entrypoint
        """Raises NotReadyError or UnknownEntrypointError."""
        self.recording = audit.keeps
        """Whether what a request says of its origin is told to anybody."""
        self._next = decider
        self._audit = audit
        self._observe = observe

    def decide(self, request: Request) -> Decision:
        """One decision, recorded. Raises RequestError where there is none."""
        began = time.monotonic_ns()
        return self._recorded(request, self._ask(request), began)

    def decide_nowait(self, request: Request) -> Decision | None:
        """The same, where it can be given at once."""
        began = time.monotonic_ns()
        audit = self._audit
        if audit.required and not audit.accepts():
            return None
        deadline = request.deadline
        if deadline != NO_DEADLINE and deadline <= time.monotonic():
            raise DeadlineExceededError(_TOO_LATE)
        try:
            decision = self._next.decide_nowait(request)
        except EvaluationError as error:
            decision = self._failed(request, Verdict(Outcome.ERROR, str(error)))
        except Exception:  # noqa: BLE001  # `decide` meets it again, and answers for it
            return None
        return None if decision is None else self._recorded(request, decision, began)

    def decide_many(self, requests: Sequence[Request]) -> list[Decision | RequestError]:
        """A decision for each, recorded one by one, or the RequestError that there is instead; in order."""
        began = time.monotonic_ns()
        recorded = self._recorded
        return [
            recorded(request, answered, began) if isinstance(answered, Decision) else answered
            for request, answered in zip(requests, self._ask_many(requests), strict=True)
        ]

    def filter(self, resource_field: str, requests: tuple[Request, ...]) -> tuple[Decision, ...]:
        """A decision for each, recorded as one event, whose id they share. `requests` differ in their resource only.

        Raises RequestError where there is none for one of them.
        """
        began = time.monotonic_ns()
        event = DecisionId(str(uuid7()))
        answers = self._ask_many(requests)
        for answered in answers:
            if isinstance(answered, RequestError):
                raise answered
        decisions = tuple(replace(answered, id=event) for answered in answers if isinstance(answered, Decision))
        took = time.monotonic_ns() - began
        size = sum(request.size for request in requests)
        record = FilterRecord(event, time.time_ns(), resource_field, requests, decisions, took, size)
        if not self._audit.put_nowait(record) and self._audit.required:
            decisions = tuple(replace(self._failed(request, _NOT_RECORDED), id=event) for request in requests)
        for decision in decisions:
            self._observe(decision.verdict.outcome, decision.tier)
        return decisions

    def _ask(self, request: Request) -> Decision:
        if request.deadline <= time.monotonic():
            raise DeadlineExceededError(_TOO_LATE)
        if not self._audit.accepts():
            return self._failed(request, _NOT_RECORDED)
        try:
            return self._next.decide(request)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, the answer is a denial
            return self._failed_with(request, error)

    def _ask_many(self, requests: Sequence[Request]) -> list[Decision | RequestError]:
        if not self._audit.accepts():
            return [self._failed(request, _NOT_RECORDED) for request in requests]
        now = time.monotonic()
        asked = [request for request in requests if request.deadline > now]
        answers: Sequence[Answered]
        try:
            answers = self._next.decide_many(asked)
        except Exception as error:  # noqa: BLE001  # the same for all of them
            answers = [error] * len(asked)
        given = (
            answered if isinstance(answered, Decision) else self._instead(request, answered)
            for request, answered in zip(asked, answers, strict=True)
        )
        if len(asked) == len(requests):
            return list(given)
        return [next(given) if request.deadline > now else DeadlineExceededError(_TOO_LATE) for request in requests]

    def _instead(self, request: Request, answered: Answered) -> Decision | RequestError:
        if isinstance(answered, Decision | RequestError):
            return answered
        return self._failed_with(request, answered)

    def _failed_with(self, request: Request, error: Exception) -> Decision:
        if isinstance(error, EvaluationError):
            return self._failed(request, Verdict(Outcome.ERROR, str(error)))
        _log.error("a decision failed", exc_info=error, extra={"entrypoint": request.entrypoint.name})
        return self._failed(request, _FAILED)

    def _recorded(self, request: Request, decision: Decision, began_ns: int) -> Decision:
        if self.recording:
            took = time.monotonic_ns() - began_ns
            record = DecisionRecord(decision.id, time.time_ns(), request, decision, took, request.size)
            if not self._audit.put_nowait(record) and self._audit.required:
                decision = self._failed(request, _NOT_RECORDED)
        self._observe(decision.verdict.outcome, decision.tier)
        return decision

    @staticmethod
    def _failed(request: Request, verdict: Verdict) -> Decision:
        projected = request.projected
        if projected is None:
            projected = request.entrypoint.projection.project(request.document)
        return Decision(DecisionId(str(uuid7())), verdict, Tier.EVALUATED, projected)
