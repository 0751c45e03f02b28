"""Refusals as a JSON-RPC client understands them: an error under the id of its call.

A policy says `json_rpc_error: {code, message}` beside a denial. The id of the call and that of the decision are put in
here, for each request: a policy that read the id of every call would share no cached answer between any two.
"""

import json
from typing import Final

from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from msgspec import Struct

from sark_pdp.model import Decision, Document, Json, PolicyRevision
from sark_pdp.transport.ext_authz.values import UnusableResultError

METADATA: Final = "envoy.filters.http.mcp"
"""What Envoy's `mcp` filter read of the message, among the dynamic metadata of a request."""

_OK: Final = 200
_FORBIDDEN: Final = 403
_EXACT: Final = 2.0**53
_LONGEST_ID: Final = 1024
"""Characters of an id that is repeated."""


class JsonRpcError(Struct, frozen=True):
    """What a policy says of a refusal."""

    code: int
    message: str


def stated(result: dict[str, Json], reason: str) -> JsonRpcError | None:
    """The policy's `json_rpc_error`, its message the reason where it has none; raises UnusableResultError."""
    error = result.get("json_rpc_error")
    if error is None:
        return None
    if type(error) is not dict:
        raise UnusableResultError("json_rpc_error is not an object")
    code, message = error.get("code"), error.get("message", reason)
    if type(code) is not int or not -(2**31) <= code < 2**31:
        raise UnusableResultError("json_rpc_error: code is not an integer of 32 bits")
    if type(message) is not str:
        raise UnusableResultError("json_rpc_error: message is not a string")
    return JsonRpcError(code, message)


def refusal(error: JsonRpcError, decision: Decision, revision: PolicyRevision, document: Document) -> bytes:
    """Status and body, to be merged into the encoded answer.

    HTTP 200 and the error where the request has an id, as servers answer calls; 403 and an error without an id for a
    notification, a batch, or what is no message at all.
    """
    call = _call_id(document)
    answer = {
        "jsonrpc": "2.0",
        "id": call,
        "error": {
            "code": error.code,
            "message": error.message,
            "data": {
                "reason": decision.verdict.reason,
                "decision_id": decision.id,
                "policy_revision": revision,
            },
        },
    }
    response = CheckResponse()
    response.denied_response.status.code = _FORBIDDEN if call is None else _OK
    response.denied_response.body = json.dumps(answer)
    encoded: bytes = response.SerializeToString()
    return encoded


def _call_id(document: Document) -> str | int | float | None:
    """From the body, else from what Envoy's filter read of it; None where there is none that JSON-RPC knows."""
    body = document.get("parsed_body")
    if body is None:
        body = document.get("attributes")
        for key in ("metadataContext", "filterMetadata", METADATA):
            body = body.get(key) if type(body) is dict else None
    found = body.get("id") if type(body) is dict else None
    if type(found) is str:
        return found if len(found) <= _LONGEST_ID else None
    if type(found) is float and found.is_integer() and abs(found) < _EXACT:
        # Metadata has doubles only.
        return int(found)
    return found if type(found) in {int, float} else None
