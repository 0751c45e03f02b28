"""What the endpoints answer: shapes that are encoded as they stand, and that the OpenAPI document is made from."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from sark_pdp.model import Decision, Json, Outcome, Request, Tier, Verdict
from sark_pdp.transport.http.errors import Problem
from sark_pdp.transport.parameters import filtered_parameters

_OUTCOMES: dict[Outcome, Any] = {outcome: outcome.name.lower() for outcome in Outcome}
_TIERS: dict[Tier, Any] = {tier: tier.name.lower() for tier in Tier}
_NULL = Raw(b"null")

Verdicts = Literal["allow", "deny"]

encode = msgspec.json.Encoder().encode


class CheckAnswer(Struct, frozen=True):
    """A decision, in the words of `CheckResponse`; `decision` and `audit_id` say the same in SARK's."""

    request_id: str
    allow: bool
    decision: Verdicts
    reason: str
    outcome: Literal["allow", "deny", "undefined", "error"]
    tier: Annotated[Literal["evaluated", "l1", "l2", "stale"], Meta(description="Where the answer came from.")]
    decision_id: Annotated[str, Meta(description="The id of the audit event.")]
    audit_id: Annotated[str, Meta(description="The same.")]
    policy_revision: str
    cache_ttl: Annotated[float, Meta(description="Seconds that the caller may reuse it; 0: not at all.", ge=0)]
    filtered_parameters: Annotated[
        dict[str, Any] | None,
        Meta(description="What the call may go on with; null where the policy said nothing of it."),
    ]
    result: Annotated[Raw, Meta(description="What the entrypoint returned; null where it is undefined.")]


class FailedItem(Struct, frozen=True):
    """One request of a batch that got no decision."""

    error: Problem
    reason: str
    allow: Literal[False] = False
    decision: Literal["deny"] = "deny"


class BatchAnswer(Struct, frozen=True):
    """One for each request, in order."""

    results: list[CheckAnswer | FailedItem]


class GatewayAnswer(Struct, frozen=True):
    """A decision in the shape that SARK's gateway expects."""

    allow: bool
    reason: str
    filtered_parameters: dict[str, Any] | None
    audit_id: Annotated[str, Meta(description="The id of the audit event.")]
    cache_ttl: Annotated[int, Meta(description="Whole seconds that the caller may reuse it.", ge=0)]


class EvaluationError(Struct, frozen=True):
    """Why one evaluation of several got no decision."""

    status: int
    message: str


class EvaluationContext(Struct, frozen=True, omit_defaults=True):
    """What is said beside an AuthZEN decision."""

    reason: str = ""
    decision_id: Annotated[str, Meta(description="The id of the audit event.")] = ""
    outcome: str = ""
    policy_revision: str = ""
    filtered_parameters: dict[str, Any] | None = None
    error: EvaluationError | UnsetType = UNSET


class EvaluationAnswer(Struct, frozen=True):
    """An AuthZEN decision."""

    decision: bool
    context: EvaluationContext


class EvaluationsAnswer(Struct, frozen=True):
    """One for each evaluation that was made, in order."""

    evaluations: list[EvaluationAnswer]


class DataWarning(Struct, frozen=True):
    """Why there is no result, where that is not because it is undefined."""

    code: str
    message: str


class DataAnswer(Struct, frozen=True, omit_defaults=True):
    """A result in the shape of OPA's data API; without `result` it is undefined."""

    decision_id: Annotated[str, Meta(description="The id of the audit event.")]
    result: Annotated[Raw | UnsetType, Meta(description="What the entrypoint returned.")] = UNSET
    warning: DataWarning | UnsetType = UNSET


def check_answer(request: Request, decision: Decision) -> CheckAnswer:
    """The answer to one request."""
    verdict = decision.verdict
    allow = verdict.outcome is Outcome.ALLOW
    return CheckAnswer(
        request.request_id,
        allow,
        "allow" if allow else "deny",
        verdict.reason,
        _OUTCOMES[verdict.outcome],
        _TIERS[decision.tier],
        decision.id,
        decision.id,
        request.entrypoint.revision,
        decision.reusable,
        _filtered(request, verdict),
        Raw(verdict.result_json) if verdict.result_json else _NULL,
    )


def gateway_answer(request: Request, decision: Decision) -> GatewayAnswer:
    """The same for SARK's gateway."""
    verdict = decision.verdict
    return GatewayAnswer(
        verdict.outcome is Outcome.ALLOW,
        verdict.reason,
        _filtered(request, verdict),
        decision.id,
        # Rounded down: not a moment longer.
        int(decision.reusable),
    )


def evaluation_answer(request: Request, decision: Decision) -> EvaluationAnswer:
    """The same for AuthZEN."""
    verdict = decision.verdict
    context = EvaluationContext(
        verdict.reason,
        decision.id,
        _OUTCOMES[verdict.outcome],
        request.entrypoint.revision,
        _filtered(request, verdict),
    )
    return EvaluationAnswer(verdict.outcome is Outcome.ALLOW, context)


def data_answer(decision: Decision) -> DataAnswer:
    """The same for OPA's data API."""
    verdict = decision.verdict
    if verdict.outcome is Outcome.ERROR:
        return DataAnswer(decision.id, warning=DataWarning("evaluation_error", verdict.reason))
    return DataAnswer(decision.id, Raw(verdict.result_json) if verdict.result_json else UNSET)


def _filtered(request: Request, verdict: Verdict) -> dict[str, Json] | None:
    parameters = filtered_parameters(request.document, verdict)
    # What a policy rewrote may be any mapping; the encoder takes this one as it is.
    return parameters if parameters is None or type(parameters) is dict else dict(parameters)
