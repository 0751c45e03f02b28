"""`/openapi.json`: what the endpoints take and give, OpenAPI 3.1. The schemas of answers are made from their shapes.

Imported when somebody asks for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from sark_pdp.transport.http import answers, bodies_described
from sark_pdp.transport.http.errors import Problem

_SCHEMA: Final = "#/components/schemas/"
_ERRORS: Final[Mapping[int, str]] = {
    400: "The body is malformed, too large or too deep; the message names the field.",
    401: "The token that the request shows is none that counts; without one, the body says who asks.",
    403: "The client's certificate has none of the names that are allowed.",
    404: "There is no such entrypoint; the message lists the known ones.",
    405: "Another method is wanted.",
    408: "The body did not come in time.",
    413: "The body is larger than limits.max_message_bytes.",
    415: "The body is packed with something else than gzip.",
    429: "Too many requests, or bytes, are in flight.",
    503: "No policy bundle is active yet.",
    504: "The caller's deadline has passed; nothing was evaluated.",
}
_PLAIN_ERRORS: Final = (403, 405, 429)
_TIMEOUTS: Final = (
    (
        "grpc-timeout",
        "How long the caller waits, as gRPC writes it: digits and H, M, S, m, u or n.",
        "^[0-9]{1,8}[HMSmun]$",
    ),
    ("x-envoy-expected-rq-timeout-ms", "The same in milliseconds, as Envoy tells it.", "^[0-9]{1,10}$"),
)


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SARK PDP",
            "version": version,
            "description": "Decisions over HTTP/JSON. A denial is 200; any other status: there is no decision.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(_paths()),
        "components": {"schemas": _schemas()},
    }


def _paths() -> Iterator[tuple[str, dict[str, Any]]]:
    for it in bodies_described.OPERATIONS:
        operation: dict[str, Any] = {
            "operationId": it.name,
            "summary": it.summary,
            "tags": [it.tag],
            "responses": {"200": _content(it.summary, it.answer), **_errors(_ERRORS if it.body else _PLAIN_ERRORS)},
        }
        parameters = [dict(each) for each in it.parameters]
        if it.body is not None:
            operation["requestBody"] = {
                "required": it.body_required,
                "content": {"application/json": {"schema": {"$ref": _SCHEMA + it.body}, "example": it.example}},
            }
            parameters += _headers()
        if parameters:
            operation["parameters"] = parameters
        yield it.path, {("get" if it.body is None else "post"): operation}


def _headers() -> list[dict[str, Any]]:
    request_id = {
        "name": "x-request-id",
        "in": "header",
        "description": "Recorded, and given back.",
        "schema": {"type": "string", "maxLength": 512},
    }
    timeouts = [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string", "pattern": pattern}}
        for name, text, pattern in _TIMEOUTS
    ]
    return [request_id, *timeouts]


def _errors(codes: Mapping[int, str] | Sequence[int]) -> dict[str, Any]:
    return {str(code): _content(_ERRORS[code], {"$ref": f"{_SCHEMA}Problem"}) for code in codes}


def _content(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}


def _schemas() -> dict[str, Any]:
    shapes = (
        answers.CheckAnswer,
        answers.FailedItem,
        answers.GatewayAnswer,
        answers.EvaluationAnswer,
        answers.EvaluationsAnswer,
        answers.DataAnswer,
        Problem,
    )
    _, made = msgspec.json.schema_components(shapes, ref_template=_SCHEMA + "{name}")
    return {**made, **bodies_described.BODIES}
