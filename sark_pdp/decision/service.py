"""The decision service: the outermost decider. It keeps deadlines, fails closed, and has every answer recorded."""

import logging
import time
from collections.abc import Callable

from msgspec.structs import replace
from uuid_utils import uuid7

from sark_pdp.errors import DeadlineExceededError, EvaluationError, RequestError
from sark_pdp.interfaces import AuditSink, Decider, PolicySource
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

    def filter(self, resource_field: str, requests: tuple[Request, ...]) -> tuple[Decision, ...]:
        """A decision for each, recorded as one event, whose id they share. `requests` differ in their resource only."""
        began = time.monotonic_ns()
        event = DecisionId(str(uuid7()))
        decisions = tuple(replace(self._ask(request), id=event) for request in requests)
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
        except EvaluationError as error:
            return self._failed(request, Verdict(Outcome.ERROR, str(error)))
        except Exception:  # noqa: BLE001  # whatever it was, the answer is a denial
            _log.exception("a decision failed", extra={"entrypoint": request.entrypoint.name})
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
