"""`/openapi.json` is valid, names every endpoint, and is true of what they really take and answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from sark_pdp.transport.http import bodies_described, openapi
from sark_pdp.transport.http.application import label
from sark_pdp.transport.http.endpoints import endpoints
from tests.fix_http import HttpClient
from tests.fix_serve import Sidecar

NOBODY: Any = None
DOCUMENT = openapi.document("1.2.3")
SERVED = {label(each.path): each.method.lower() for each in endpoints(NOBODY, None, None, "1.2.3")}
PLACES = {"{path}": "wire/decide"}


def valid(schema: Any, value: Any) -> None:
    """The value is what a schema of the document says."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def schema_of(operation: Any, status: int) -> Any:
    return operation["responses"][str(status)]["content"]["application/json"]["schema"]


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_is_served_as_it_is(wired_api: HttpClient) -> None:
    served = wired_api.get("/openapi.json").json
    assert {**served, "info": DOCUMENT["info"]} == json.loads(json.dumps(DOCUMENT))
    assert served["openapi"] == "3.1.0"


def test_every_endpoint_is_in_it_and_nothing_else() -> None:
    described = {path: next(iter(operations)) for path, operations in DOCUMENT["paths"].items()}
    assert described == SERVED


@pytest.mark.parametrize("path", SERVED)
def test_what_its_example_is_answered_with_is_as_described(wired_api: HttpClient, path: str) -> None:
    operation = DOCUMENT["paths"][path][SERVED[path]]
    place = path.format(path="wire/decide")
    if SERVED[path] == "get":
        answer = wired_api.get(place)
    else:
        content = operation["requestBody"]["content"]["application/json"]
        valid(content["schema"], content["example"])
        answer = wired_api.post(place, content["example"])
    assert answer.status == 200, answer.body
    valid(schema_of(operation, 200), answer.json)


def answers(path: str) -> Iterator[Any]:
    """Bodies with which each endpoint shows all shapes of its answers; the wire policy does what `case` says."""
    cases = ["allow", "deny", "object", "paths", "rewritten", "conflict", "builtin", "set", "nothing"]
    agents = {"source_agent_id": "a", "target_agent_id": "b", "capability": "query"}
    subject, thing = {"type": "user", "id": "bob"}, {"type": "tool", "id": "t"}
    evaluation = {"subject": subject, "action": {"name": "a"}, "resource": thing}
    for case in cases:
        bodies: dict[str, list[Any]] = {
            "/api/v1/policy/evaluate": [{"case": case, "parameters": {"debug": 1, "card": 2}}],
            "/api/v1/policy/batch-evaluate": [[{"case": case}, 3], {"checks": [{"case": case}, {"policy": "no/such"}]}],
            "/api/v1/gateway/authorize": [{"action": "x", "case": case}],
            "/api/v1/gateway/authorize-a2a": [{**agents, "case": case}],
            "/v1/data/{path}": [{"input": {"case": case}}],
        }
        yield from bodies.get(path, [])
    if path == "/access/v1/evaluation":
        yield evaluation
    if path == "/access/v1/evaluations":
        yield from [evaluation, {**evaluation, "evaluations": [{}, {"subject": 3}]}]


@pytest.mark.parametrize("path", [path for path, method in SERVED.items() if method == "post"])
def test_every_shape_of_answer_is_as_described(wired_api: HttpClient, path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    asked = list(answers(path))
    assert asked
    for body in asked:
        answer = wired_api.post(path.format(path="wire/decide"), body)
        assert answer.status == 200, answer.body
        valid(schema_of(operation, 200), answer.json)


@pytest.mark.parametrize("path", [path for path, method in SERVED.items() if method == "post"])
def test_every_error_is_as_described(wired_http: Sidecar, path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    place = path.format(path="wire/decide")
    for body, headers, status in [
        (b"{", {}, 400),
        (b"x" * 100_000, {}, 413),
        (b"{}", {"content_encoding": "br"}, 415),
        (b"{}", {"grpc_timeout": "soon"}, 400),
    ]:
        with HttpClient(str(wired_http.settings["listen.http"])) as client:
            answer = client.post(place, body, **headers)
        assert answer.problem[0] == status
        valid(schema_of(operation, status), answer.json)
    with HttpClient(str(wired_http.settings["listen.http"])) as client:
        wrong = client.request("DELETE", place)
    assert wrong.problem[0] == 405
    valid(schema_of(operation, 405), wrong.json)


def test_a_schema_refuses_what_is_not_so() -> None:
    """That the checks above can fail at all."""
    for name in ("CheckAnswer", "GatewayAnswer", "EvaluationAnswer", "Problem", "AuthzenConfiguration"):
        with pytest.raises(Exception, match="is a required property"):
            valid({"$ref": f"#/components/schemas/{name}"}, {})
    assert bodies_described.BODIES.keys() <= DOCUMENT["components"]["schemas"].keys()
