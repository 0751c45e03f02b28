"""The innermost decider: gives the policy what it may read, and reads what it returned."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
from uuid_utils import uuid7

from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import DeadlineExceededError, WouldWaitError
from sark_pdp.interfaces import Answered
from sark_pdp.model import Decision, DecisionId, Document, Outcome, Request, Seconds, Tier, Verdict

Evaluate = Callable[[bytes], bytes | None]

ObserveEvaluation = Callable[[str, Outcome, Seconds], None]
"""Called with the entrypoint, the outcome and the time that an evaluation took."""

_REMEMBERED: Final = 256
_LONG: Final = 1024
"""Bytes of a result; what a longer one means is not kept."""

_ERROR: Final = Outcome.ERROR
_EVALUATED: Final = Tier.EVALUATED

_encode = msgspec.json.Encoder().encode


class Evaluator:
    """Evaluates every request; evaluation errors are the caller's to turn into a denial. Thread-safe."""

    def __init__(self, observe: ObserveEvaluation) -> None:
        self._observe = observe
        # The same result is the same verdict, which those who encode it know again. Errors are not kept.
        self._remembered = lru_cache(maxsize=_REMEMBERED)(verdict_of)

    def decide(self, request: Request) -> Decision:
        """Raises EvaluationError."""
        projected = _projected(request)
        return self._decide(request.entrypoint.name, request.entrypoint.evaluate, projected, _encode(projected))

    def decide_nowait(self, request: Request) -> Decision | None:
        """None where the evaluation takes longer than about 1 ms, or the input is long. Raises EvaluationError."""
        projected = _projected(request)
        evaluate = request.entrypoint.evaluate_nowait
        try:
            return self._decide(request.entrypoint.name, evaluate, projected, _encode(projected))
        except WouldWaitError:
            return None

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        """One after the other; those that are not reached within their deadlines are not begun."""
        return [self._attempted(request) for request in requests]

    def verdict_of(self, result_json: bytes | None) -> Verdict:
        """What a result, as the policy returned it, means; None is undefined."""
        if result_json is None or len(result_json) <= _LONG:
            return self._remembered(result_json)
        return verdict_of(result_json)

    def _attempted(self, request: Request) -> Answered:
        if request.deadline <= time.monotonic():
            return DeadlineExceededError("the deadline passed before the decision was due")
        try:
            return self.decide(request)
        except Exception as error:  # noqa: BLE001  # the answer to this one alone; the caller of all judges it
            return error

    def _decide(self, name: str, evaluate: Evaluate, projected: Document, input_json: bytes) -> Decision:
        began = time.monotonic()
        try:
            result_json = evaluate(input_json)
            verdict = self.verdict_of(result_json)
        except WouldWaitError:
            raise
        except BaseException:
            self._observe(name, _ERROR, Seconds(time.monotonic() - began))
            raise
        took = Seconds(time.monotonic() - began)
        self._observe(name, verdict.outcome, took)
        return Decision(DecisionId(str(uuid7())), verdict, _EVALUATED, projected, took)


def _projected(request: Request) -> Document:
    projected = request.projected
    return request.entrypoint.projection.project(request.document) if projected is None else projected
