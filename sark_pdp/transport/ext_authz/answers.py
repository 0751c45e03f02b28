"""Envoy's `CheckResponse`, from what a policy returned or for a call that got no decision.

A policy's result is a boolean or an object; of an object are used, as opa-envoy-plugin does:

- where it allows: `headers` (set on the request), `request_headers_to_remove`, `response_headers_to_add`,
  `query_parameters_to_set`, `query_parameters_to_remove`;
- where it denies: `headers` (of the response), `http_status`, `body`, for which the reason stands in; instead of the
  latter two also `json_rpc_error`, which the plugin does not know;
- always: `dynamic_metadata`.

What Envoy could not carry out, or could only by sending something malformed, is not handed to it: such a result denies.
"""

from collections.abc import Mapping
from typing import Final

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from envoy.type.v3.http_status_pb2 import HttpStatus, StatusCode
from google.rpc.status_pb2 import Status as RpcStatus
from msgspec import Struct

from sark_pdp.model import Decision, Document, Json, Outcome, PolicyRevision, Verdict
from sark_pdp.transport.ext_authz import json_rpc, values
from sark_pdp.transport.ext_authz.json_rpc import JsonRpcError
from sark_pdp.transport.ext_authz.values import UnusableResultError
from sark_pdp.transport.handler import Status
from sark_pdp.transport.remembered import Remembered

_FORBIDDEN: Final = 403
_INTERNAL_ERROR: Final = 500

# They tell a native caller what to take out of the parameters; Envoy takes nothing out of a body.
_FOR_NATIVE_CALLERS: Final = ("remove_parameters", "redact_parameters", "filtered_parameters")

_SET: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
_ADD: Final = HeaderValueOption.HeaderAppendAction.APPEND_IF_EXISTS_OR_ADD

_NOT_EVALUATED: Final = "the policy could not be evaluated"


class _Answer(Struct, frozen=True):
    encoded: bytes
    problem: str
    json_rpc: JsonRpcError | None


_ID_BYTES: Final = len("01890a5d-ac96-774b-bcce-b302099a8057")


def _id_head() -> bytes:
    placeholder = CheckResponse()
    placeholder.dynamic_metadata.fields["decision_id"].string_value = "-" * _ID_BYTES
    encoded: bytes = placeholder.SerializeToString()
    return encoded[:-_ID_BYTES]


# What comes before the id in a message that holds nothing else.
_ID_HEAD: Final = _id_head()


class Answers:
    """Encodes answers to decisions, and remembers how those that come again and again are encoded. Thread-safe."""

    def __init__(self, *, dry_run: bool = False) -> None:
        """In a dry run everything is let through; what does not allow is told in the dynamic metadata alone."""
        # Building the messages takes 20 to 40 µs, which is several times what a decision takes that is known.
        self._remembered = Remembered(_encode_dry if dry_run else _encode)

    def encode(self, decision: Decision, revision: PolicyRevision, document: Document) -> bytes:
        """A `CheckResponse` with the ids in its dynamic metadata, where they replace what the policy said of them.

        `document` is the input of the request that is answered.
        """
        decision_id = decision.id.encode()
        if len(decision_id) != _ID_BYTES:
            raise ValueError(f"a decision's id has {len(decision_id)} bytes")
        answer = self._remembered.get(decision.verdict, revision)
        # A field that comes twice in an encoded message is merged.
        encoded = answer.encoded + _ID_HEAD + decision_id
        if answer.json_rpc is not None:
            encoded += json_rpc.refusal(answer.json_rpc, decision, revision, document)
        return encoded

    def problem(self, verdict: Verdict, revision: PolicyRevision) -> str:
        """Why Envoy could not carry out what the policy returned; empty where it can."""
        return self._remembered.get(verdict, revision).problem


def _encode_dry(verdict: Verdict, revision: PolicyRevision) -> _Answer:
    answer = _encode(verdict, revision)
    if verdict.outcome is Outcome.ALLOW and not answer.problem:
        return answer
    told = CheckResponse.FromString(answer.encoded).dynamic_metadata
    told.fields["dry_run"].string_value = "error" if answer.problem else verdict.outcome.name.lower()
    through = CheckResponse(status=RpcStatus(code=Status.OK), ok_response=OkHttpResponse(), dynamic_metadata=told)
    return _Answer(through.SerializeToString(), answer.problem, None)


def _encode(verdict: Verdict, revision: PolicyRevision) -> _Answer:
    problem = ""
    told: JsonRpcError | None = None
    try:
        response = _decided(verdict.outcome, verdict.reason, verdict.result)
        if verdict.outcome is Outcome.DENY and type(verdict.result) is dict:
            told = json_rpc.stated(verdict.result, verdict.reason)
    except UnusableResultError as error:
        problem = f"the policy returned an unusable result: {error}"
        response = denied(_INTERNAL_ERROR, Status.PERMISSION_DENIED, _NOT_EVALUATED, problem)
    response.dynamic_metadata.fields["policy_revision"].string_value = revision
    return _Answer(response.SerializeToString(), problem, told)


def _decided(outcome: Outcome, reason: str, result: Json) -> CheckResponse:
    if outcome is Outcome.ERROR:
        # The reason is for the audit trail and for Envoy: it may tell more of the policy than a client should know.
        return denied(_INTERNAL_ERROR, Status.PERMISSION_DENIED, _NOT_EVALUATED, reason)
    if type(result) is not dict:
        result = {}
    if outcome is Outcome.ALLOW:
        response = CheckResponse(status=RpcStatus(code=Status.OK), ok_response=_allowed(result))
    else:
        response = _denied(result, reason)
    if "dynamic_metadata" in result:
        response.dynamic_metadata.CopyFrom(values.metadata(result["dynamic_metadata"]))
    return response


def denied(
    http_status: int, code: Status, body: str, reason: str = "", headers: Mapping[str, str] | None = None
) -> CheckResponse:
    """A denial with this text and these headers; `reason`, the body where it is empty, is for Envoy only."""
    response = DeniedHttpResponse(status=HttpStatus(code=http_status), body=body)
    response.headers.extend(_header(name, value, _SET) for name, value in (headers or {}).items())
    return CheckResponse(status=RpcStatus(code=code, message=reason or body), denied_response=response)


def _allowed(result: dict[str, Json]) -> OkHttpResponse:
    for field in _FOR_NATIVE_CALLERS:
        if result.get(field) not in (None, []):
            raise UnusableResultError(f"{field}: Envoy cannot change the body of a request")
    return OkHttpResponse(
        headers=_request_headers(result, "headers"),
        headers_to_remove=values.header_names(result, "request_headers_to_remove"),
        response_headers_to_add=_headers(result, "response_headers_to_add", _ADD),
        query_parameters_to_set=values.query_parameters(result, "query_parameters_to_set"),
        query_parameters_to_remove=values.query_keys(result, "query_parameters_to_remove"),
    )


def _denied(result: dict[str, Json], reason: str) -> CheckResponse:
    body = result.get("body", reason)
    if type(body) is not str:
        raise UnusableResultError("body is not a string")
    status = result.get("http_status", _FORBIDDEN)
    if type(status) is not int or status not in StatusCode.values() or status < 200:
        raise UnusableResultError("http_status is not a status code of HTTP that ends a request")
    response = denied(status, Status.PERMISSION_DENIED, body, reason)
    response.denied_response.headers.extend(_headers(result, "headers", _SET))
    if result.get("json_rpc_error") is not None:
        response.denied_response.headers.append(_header("content-type", "application/json", _SET))
    return response


def _request_headers(result: dict[str, Json], field: str) -> list[HeaderValueOption]:
    """One for each name, in place of the client's, whose values could be forged.

    Its values are joined, as a list of HTTP may be: Envoy 1.40 keeps only the last of several, whatever their action.
    """
    lists: dict[str, tuple[str, list[str]]] = {}
    for name, value in values.headers(result, field):
        lists.setdefault(name.lower(), (name, []))[1].append(value)
    return [
        _header(name, ("; " if key == "cookie" else ",").join(stated), _SET) for key, (name, stated) in lists.items()
    ]


def _headers(
    result: dict[str, Json], field: str, action: HeaderValueOption.HeaderAppendAction
) -> list[HeaderValueOption]:
    """The first of each name with `action`; the others beside it, as they are one list of the policy's."""
    options: list[HeaderValueOption] = []
    seen: set[str] = set()
    for name, value in values.headers(result, field):
        options.append(_header(name, value, _ADD if name.lower() in seen else action))
        seen.add(name.lower())
    return options


def _header(name: str, value: str, action: HeaderValueOption.HeaderAppendAction) -> HeaderValueOption:
    option = HeaderValueOption(append_action=action, keep_empty_value=not value)
    option.header.key = name
    option.header.value = value
    return option
