"""The innermost decider: gives the policy what it may read, and reads what it returned."""

import time
from collections.abc import Callable

import msgspec
from uuid_utils import uuid7

from sark_pdp.engine.result import verdict_of
from sark_pdp.model import Decision, DecisionId, Outcome, Request, Seconds, Tier

ObserveEvaluation = Callable[[str, Outcome, Seconds], None]
"""Called with the entrypoint, the outcome and the time that an evaluation took."""

_encode = msgspec.json.Encoder().encode


class Evaluator:
    """Evaluates every request; evaluation errors are the caller's to turn into a denial."""

    def __init__(self, observe: ObserveEvaluation) -> None:
        self._observe = observe

    def decide(self, request: Request) -> Decision:
        """Raises EvaluationError."""
        entrypoint = request.entrypoint
        projected = request.projected
        if projected is None:
            projected = entrypoint.projection.project(request.document)
        input_json = _encode(projected)
        outcome = Outcome.ERROR
        began = time.monotonic()
        try:
            verdict = verdict_of(entrypoint.evaluate(input_json))
            outcome = verdict.outcome
        finally:
            took = Seconds(time.monotonic() - began)
            self._observe(entrypoint.name, outcome, took)
        return Decision(DecisionId(str(uuid7())), verdict, Tier.EVALUATED, projected, age=took)

    def decide_nowait(self, _request: Request) -> Decision | None:
        """Nothing is known without an evaluation."""
        return None
