"""Judges what a policy returned before it is recorded: what Envoy could not carry out is no allowance."""

from collections.abc import Sequence

from msgspec.structs import replace

from sark_pdp.interfaces import Answered, Decider
from sark_pdp.model import Decision, Outcome, Request, Verdict
from sark_pdp.transport.ext_authz.answers import Answers


class ReviewedDecider:
    """A decorator below the decision service, so that audit and Envoy are told the same."""

    def __init__(self, decider: Decider, answers: Answers) -> None:
        self._next = decider
        self._answers = answers

    def decide(self, request: Request) -> Decision:
        """An unusable result is an error of the policy."""
        return self._reviewed(request, self._next.decide(request))

    def decide_nowait(self, request: Request) -> Decision | None:
        """The same, where the decision is known."""
        decision = self._next.decide_nowait(request)
        return None if decision is None else self._reviewed(request, decision)

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        """The same of each."""
        return [
            self._reviewed(request, answered) if isinstance(answered, Decision) else answered
            for request, answered in zip(requests, self._next.decide_many(requests), strict=True)
        ]

    def _reviewed(self, request: Request, decision: Decision) -> Decision:
        problem = self._answers.problem(decision.verdict, request.entrypoint.revision)
        return replace(decision, verdict=Verdict(Outcome.ERROR, problem)) if problem else decision
