"""Encodes `CheckResponse`s, of which most is the same whenever the same verdict is answered."""

from collections.abc import Mapping
from typing import Final

from sark_pdp._proto.decision_pb2 import CheckResponse
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Decision, Json, Outcome, PolicyRevision, Request, Tier, Verdict
from sark_pdp.transport.parameters import filtered_parameters
from sark_pdp.transport.remembered import Remembered
from sark_pdp.transport.wire import duration, integer, tag, varint

_REQUEST_ID: Final = tag(CheckResponse.REQUEST_ID_FIELD_NUMBER)
_DECISION_ID: Final = tag(CheckResponse.DECISION_ID_FIELD_NUMBER)
_CACHE_TTL: Final = tag(CheckResponse.CACHE_TTL_FIELD_NUMBER)
_TIERS: Final = (b"", *(integer(CheckResponse.TIER_FIELD_NUMBER, tier) for tier in sorted(Tier)))


class Responses:
    """Encodes answers to decisions, and remembers how verdicts that come again are encoded. Thread-safe."""

    def __init__(self) -> None:
        self._remembered = Remembered(_encode_verdict)

    def encode(self, request: Request, decision: Decision) -> bytes:
        """The `CheckResponse` to one request. Raises InvalidRequestError where it cannot hold the parameters."""
        verdict = decision.verdict
        request_id = request.request_id.encode()
        decision_id = decision.id.encode()
        ttl = duration(decision.reusable)
        fields = (
            self._remembered.get(verdict, request.entrypoint.revision),
            _REQUEST_ID,
            varint(len(request_id)),
            request_id,
            _DECISION_ID,
            varint(len(decision_id)),
            decision_id,
            _TIERS[decision.tier],
            _CACHE_TTL,
            varint(len(ttl)),
            ttl,
        )
        parameters = filtered_parameters(request.document, verdict)
        return b"".join(fields if parameters is None else (*fields, _encode_parameters(parameters)))


def _encode_verdict(verdict: Verdict, revision: PolicyRevision) -> bytes:
    return CheckResponse(
        allow=verdict.outcome is Outcome.ALLOW,
        reason=verdict.reason,
        result_json=verdict.result_json,
        policy_revision=revision,
        outcome=int(verdict.outcome),  # type: ignore[arg-type]  # numbered alike
    ).SerializeToString()


def _encode_parameters(parameters: Mapping[str, Json]) -> bytes:
    response = CheckResponse()
    # With nothing left in it the field must be there all the same, or the caller would go on with everything.
    response.filtered_parameters.SetInParent()
    try:
        response.filtered_parameters.update(parameters)
    except OverflowError:
        raise InvalidRequestError("parameters", "a number is too large for filtered_parameters") from None
    return response.SerializeToString()
