"""What the endpoints take, in words and as JSON schemas: the hand-written part of the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

_TEXT: Final = {"type": "string", "minLength": 1}
_OBJECT: Final = {"type": "object"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Sequence[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties}
    return {**made, "required": list(required)} if required else made


def _named(description: str) -> dict[str, Any]:
    return {"description": description, "anyOf": [_OBJECT, _TEXT, {"type": "null"}]}


def _optional(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "anyOf": [schema, {"type": "null"}]}


class Operation(Struct, frozen=True, kw_only=True):
    """One endpoint."""

    name: str
    path: str
    tag: str
    summary: str
    answer: Mapping[str, Any]
    """Schema of what comes with 200."""
    body: str | None = None
    """Name of the schema in `BODIES`; None: a GET."""
    body_required: bool = True
    example: Any = None
    parameters: Sequence[Mapping[str, Any]] = ()


_CONTROL: Final = {
    "policy": _optional({"type": "string", "maxLength": 512}, "The entrypoint; without it the configured one."),
    "request_id": _optional({"type": "string", "maxLength": 512}, "Recorded and given back; before x-request-id."),
    "max_age": _optional(
        {"type": "number", "minimum": 0}, "Seconds: no answer older than this; 0 passes every cache by."
    ),
}
_ITEM: Final = {"anyOf": [_ref("CheckAnswer"), _ref("FailedItem")]}
_PART: Final = _object(("type", "id"), type=_TEXT, id=_TEXT, properties=_OBJECT)
_ACTION: Final = _object(("name",), name=_TEXT, properties=_OBJECT)
_LEVEL: Final = _optional({"type": "string"}, "low, medium, high or critical.")

BODIES: Final[Mapping[str, Any]] = {
    "EvaluateRequest": _object(
        (),
        **_CONTROL,
        input={"type": "object", "description": "The whole document; nothing beside it becomes part of one then."},
        user=_optional(_OBJECT, "id, email, role or roles, teams, permissions."),
        user_id=_optional(_TEXT, "Short for user.id."),
        action=_optional({"type": "string"}, "As in tool:invoke."),
        tool=_named("An object, or the tool's name."),
        server=_named("An object, or the server's name."),
        server_id=_optional(_TEXT, "Short for server.id."),
        context=_optional(_OBJECT, "timestamp, client_ip and the like."),
        parameters=_optional(_OBJECT, "Of the call: a policy may have some removed."),
        source_agent=_optional(_OBJECT, "Of agent:*."),
        target_agent=_optional(_OBJECT, "Of agent:*."),
    ),
    "BatchRequest": {
        "description": "limits.max_batch requests at most; a list is answered with a list.",
        "anyOf": [
            {"type": "array", "items": _ref("EvaluateRequest")},
            _object(("checks",), checks={"type": "array", "items": _ref("EvaluateRequest")}),
            _object(("requests",), requests={"type": "array", "items": _ref("EvaluateRequest")}),
        ],
    },
    "BatchAnswer": {
        "description": "One for each request, in order.",
        "anyOf": [
            {"type": "array", "items": _ITEM},
            _object(("results",), results={"type": "array", "items": _ITEM}),
        ],
    },
    "GatewayRequest": _object(
        ("action",),
        **_CONTROL,
        action=_TEXT,
        user=_optional(_OBJECT, "Who asks."),
        user_id=_optional(_TEXT, "Short for user.id."),
        server_name=_optional(_TEXT, "Becomes server.name, too."),
        tool_name=_optional(_TEXT, "Becomes tool.name, too."),
        sensitivity_level=_LEVEL,
        parameters=_optional(_OBJECT, "Of the call."),
        context=_optional(_OBJECT, "What else a policy may want."),
        gateway_metadata=_optional(_OBJECT, "What the gateway knows."),
    ),
    "A2ARequest": _object(
        (),
        **_CONTROL,
        source_agent_id=_optional(_TEXT, "Short for source_agent.id."),
        target_agent_id=_optional(_TEXT, "Short for target_agent.id."),
        source_agent=_optional(_OBJECT, "id, trust_level, environment, capabilities."),
        target_agent=_optional(_OBJECT, "id, trust_level, environment, capabilities."),
        capability=_optional({"enum": ["execute", "query", "delegate"]}, "Needed where there is no action."),
        action=_optional(_TEXT, "agent:invoke, agent:query or agent:delegate where there is none."),
        message_type=_optional({"type": "string"}, "request, response or notification."),
        target_environment=_optional({"type": "string"}, "Short for target_agent.environment."),
        payload_metadata=_optional(_OBJECT, "Of the message."),
        parameters=_optional(_OBJECT, "Of the message."),
        context=_optional(_OBJECT, "What else a policy may want."),
    ),
    "EvaluationRequest": _object(
        ("subject", "action", "resource"), subject=_PART, action=_ACTION, resource=_PART, context=_OBJECT
    ),
    "EvaluationsRequest": _object(
        (),
        subject=_PART,
        action=_ACTION,
        resource=_PART,
        context=_OBJECT,
        evaluations={"type": "array", "items": _OBJECT},
        options=_object(
            (), evaluations_semantic={"enum": ["execute_all", "deny_on_first_deny", "permit_on_first_permit"]}
        ),
    ),
    "DataRequest": _object((), input={"type": "object", "description": "The document."}),
    "AuthzenConfiguration": _object(
        ("policy_decision_point", "access_evaluation_endpoint"),
        policy_decision_point={"type": "string", "format": "uri"},
        access_evaluation_endpoint={"type": "string", "format": "uri"},
        access_evaluations_endpoint={"type": "string", "format": "uri"},
    ),
}

_BOB: Final = {"user_id": "bob", "action": "tool:invoke", "tool": "search_code", "parameters": {"query": "pdp"}}
_SUBJECT: Final = {"type": "user", "id": "bob", "properties": {"roles": ["developer"]}}
_RESOURCE: Final = {"type": "tool", "id": "search_code"}

OPERATIONS: Final = (
    Operation(
        name="evaluate",
        path="/api/v1/policy/evaluate",
        tag="policy",
        summary="A decision",
        answer=_ref("CheckAnswer"),
        body="EvaluateRequest",
        example=_BOB,
    ),
    Operation(
        name="batchEvaluate",
        path="/api/v1/policy/batch-evaluate",
        tag="policy",
        summary="A decision for each of many requests",
        answer=_ref("BatchAnswer"),
        body="BatchRequest",
        example=[_BOB],
    ),
    Operation(
        name="authorize",
        path="/api/v1/gateway/authorize",
        tag="gateway",
        summary="A decision for an MCP gateway",
        answer=_ref("GatewayAnswer"),
        body="GatewayRequest",
        example={"user_id": "bob", "action": "tool:invoke", "server_name": "code", "tool_name": "search_code"},
    ),
    Operation(
        name="authorizeA2A",
        path="/api/v1/gateway/authorize-a2a",
        tag="gateway",
        summary="A decision on one agent calling another",
        answer=_ref("GatewayAnswer"),
        body="A2ARequest",
        example={"source_agent_id": "planner", "target_agent_id": "researcher", "capability": "query"},
    ),
    Operation(
        name="evaluation",
        path="/access/v1/evaluation",
        tag="authzen",
        summary="An AuthZEN evaluation",
        answer=_ref("EvaluationAnswer"),
        body="EvaluationRequest",
        example={"subject": _SUBJECT, "action": {"name": "tool:invoke"}, "resource": _RESOURCE},
    ),
    Operation(
        name="evaluations",
        path="/access/v1/evaluations",
        tag="authzen",
        summary="Several AuthZEN evaluations",
        answer={"anyOf": [_ref("EvaluationsAnswer"), _ref("EvaluationAnswer")]},
        body="EvaluationsRequest",
        example={"subject": _SUBJECT, "action": {"name": "tool:invoke"}, "evaluations": [{"resource": _RESOURCE}]},
    ),
    Operation(
        name="authzenConfiguration",
        path="/.well-known/authzen-configuration",
        tag="authzen",
        summary="Where the AuthZEN endpoints are",
        answer=_ref("AuthzenConfiguration"),
    ),
    Operation(
        name="data",
        path="/v1/data/{path}",
        tag="opa",
        summary="What an entrypoint returns",
        answer=_ref("DataAnswer"),
        body="DataRequest",
        body_required=False,
        example={"input": {"action": "tool:invoke", "user": {"id": "bob"}, "tool": {"name": "search_code"}}},
        parameters=(
            {
                "name": "path",
                "in": "path",
                "required": True,
                "description": "The entrypoint, slashes included.",
                "schema": {"type": "string"},
            },
        ),
    ),
    Operation(name="openapi", path="/openapi.json", tag="meta", summary="This document", answer={"type": "object"}),
)
