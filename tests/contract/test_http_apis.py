"""The APIs of others over HTTP: SARK's gateway, AuthZEN and OPA's data API."""

from typing import Any

import pytest

from tests.fix_http import AUTHORIZE, AUTHORIZE_A2A, EVALUATION, EVALUATIONS, HttpClient, decisions_between, evaluate
from tests.fix_native import event
from tests.fix_serve import Sidecar

DEVELOPER = {"id": "bob", "roles": ["developer"]}
SUBJECT = {"type": "user", "id": "bob", "properties": {"roles": ["developer"]}}
INVOKE = {"name": "tool:invoke"}


def tool(name: str) -> dict[str, str]:
    return {"type": "tool", "id": name}


# SARK's gateway ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "allow"), [("search_code", True), ("drop_database", False)])
def test_the_gateway_gets_the_shape_that_it_expects(
    default_api: HttpClient, default_http: Sidecar, name: str, allow: bool
) -> None:
    body = {"action": "tool:invoke", "tool_name": name, "server_name": "code", "user": DEVELOPER}
    answer = default_api.post(AUTHORIZE, body)
    assert answer.status == 200
    assert set(answer.json) == {"allow", "reason", "filtered_parameters", "audit_id", "cache_ttl"}
    assert (answer.json["allow"], answer.json["filtered_parameters"]) == (allow, None)
    assert type(answer.json["cache_ttl"]) is int
    recorded = event(default_http.spool_dir, answer.json["audit_id"])
    assert (recorded.user_id, recorded.tool_name, recorded.decision) == ("bob", name, "allow" if allow else "deny")


def test_the_gateway_gets_parameters_without_what_a_call_must_not_carry(default_api: HttpClient) -> None:
    body = {
        "action": "tool:invoke",
        "tool_name": "customer_lookup",
        "user_id": "bob",
        "user": {"roles": ["developer"]},
        "parameters": {"customer": "c-17", "debug": True},
    }
    assert default_api.post(AUTHORIZE, body).json["filtered_parameters"] == {"customer": "c-17"}


def test_an_agent_may_ask_another_one(default_api: HttpClient, default_http: Sidecar) -> None:
    body = {
        "source_agent": {"id": "planner", "trust_level": "trusted", "environment": "production"},
        "target_agent": {"id": "researcher", "trust_level": "trusted", "capabilities": ["search"]},
        "target_environment": "production",
        "capability": "query",
        "context": {"capability": "search"},
    }
    answer = default_api.post(AUTHORIZE_A2A, body).json
    assert (answer["allow"], answer["reason"]) == (True, "nothing speaks against it")
    assert event(default_http.spool_dir, answer["audit_id"]).details["action"] == "agent:query"
    body["source_agent"] = {"id": "planner"}
    refused = default_api.post(AUTHORIZE_A2A, body).json
    assert (refused["allow"], "not trusted enough" in refused["reason"]) == (False, True)


def test_the_gateways_questions_may_go_to_entrypoints_of_their_own(wired_api: HttpClient) -> None:
    """By the body; settings name others."""
    asked = {"action": "gateway:tool:invoke", "user": {"id": "bob"}, "tool": {"owner": "bob"}, "policy": "wire/listed"}
    assert wired_api.post(AUTHORIZE, asked).json["reason"] == "owned"
    assert wired_api.post(AUTHORIZE, {"action": "x", "case": "object"}).json["reason"] == "an object"


@pytest.mark.parametrize("path", [AUTHORIZE, AUTHORIZE_A2A, EVALUATION])
def test_what_is_malformed_is_named(wired_api: HttpClient, path: str) -> None:
    status, message = wired_api.post(path, {}).problem
    assert (status, message.endswith("is missing")) == (400, True)
    assert wired_api.post(path, b"[").problem[0] == 400
    assert wired_api.post(path, b"3").problem == (400, "body: not a JSON object")


# AuthZEN -------------------------------------------------------------------------------------------------------------


def test_authzen_evaluates_one(default_api: HttpClient, default_http: Sidecar) -> None:
    body = {"subject": SUBJECT, "action": INVOKE, "resource": tool("search_code"), "context": {"time": "now"}}
    answer = default_api.post(EVALUATION, body, x_request_id="bfe9eb29")
    assert (answer.status, answer.headers["x-request-id"], answer.json["decision"]) == (200, "bfe9eb29", True)
    context = answer.json["context"]
    assert context["reason"].startswith("a role grants")
    recorded = event(default_http.spool_dir, context["decision_id"])
    assert (recorded.user_id, recorded.tool_name, recorded.request_id) == ("bob", "search_code", "bfe9eb29")
    denied = default_api.post(EVALUATION, {**body, "resource": tool("drop_database")})
    assert (denied.status, denied.json["decision"]) == (200, False)
    assert denied.json["context"]["reason"]


def decisions(answer: Any) -> list[bool]:
    return [each["decision"] for each in answer.json["evaluations"]]


SEMANTICS: list[tuple[str | None, list[str], list[bool]]] = [
    (None, ["search_code", "drop_database", "search_code"], [True, False, True]),
    ("execute_all", ["drop_database", "search_code"], [False, True]),
    ("deny_on_first_deny", ["search_code", "drop_database", "search_code"], [True, False]),
    ("deny_on_first_deny", ["search_code", "search_code"], [True, True]),
    ("permit_on_first_permit", ["drop_database", "search_code", "search_code"], [False, True]),
    ("permit_on_first_permit", ["drop_database", "drop_database"], [False, False]),
]


@pytest.mark.parametrize(("semantic", "tools", "expected"), SEMANTICS)
def test_authzen_evaluates_several_as_far_as_the_semantic_goes(
    default_api: HttpClient, default_http: Sidecar, semantic: str | None, tools: list[str], expected: list[bool]
) -> None:
    """What is not answered was not evaluated: it is not audited either."""
    options = {} if semantic is None else {"options": {"evaluations_semantic": semantic}}
    asked = {"subject": SUBJECT, "action": INVOKE, **options}
    before = evaluate(default_api)["decision_id"]
    answer = default_api.post(EVALUATIONS, {**asked, "evaluations": [{"resource": tool(name)} for name in tools]})
    assert decisions(answer) == expected
    after = evaluate(default_api)["decision_id"]
    recorded = decisions_between(default_http.spool_dir, before, after)
    assert recorded == [each["context"]["decision_id"] for each in answer.json["evaluations"]]


def test_what_an_evaluation_says_itself_counts_before_the_default(default_api: HttpClient) -> None:
    stranger = {"type": "user", "id": "eve"}
    evaluations = [{}, {"subject": stranger}, {"resource": tool("drop_database")}, {"action": {"name": "tool:list"}}]
    asked = {"subject": SUBJECT, "action": INVOKE, "resource": tool("search_code"), "evaluations": evaluations}
    assert decisions(default_api.post(EVALUATIONS, asked)) == [True, False, False, True]


@pytest.mark.parametrize("nothing", [{}, {"evaluations": []}, {"evaluations": None, "context": None}])
def test_without_evaluations_it_answers_as_for_one(default_api: HttpClient, nothing: dict[str, Any]) -> None:
    answer = default_api.post(
        EVALUATIONS, {"subject": SUBJECT, "action": INVOKE, "resource": tool("search_code"), **nothing}
    )
    assert answer.json["decision"] is True


def test_an_evaluation_that_is_malformed_is_a_denial_with_its_error(default_api: HttpClient) -> None:
    evaluations = [{"resource": tool("search_code")}, {"resource": {"id": "x"}}, 3, {"resource": tool("search_code")}]
    asked = {"subject": SUBJECT, "action": INVOKE, "evaluations": evaluations}
    answer = default_api.post(EVALUATIONS, asked)
    assert decisions(answer) == [True, False, False, True]
    errors = [each["context"].get("error") for each in answer.json["evaluations"]]
    assert errors == [
        None,
        {"status": 400, "message": "evaluations[1].resource.type: is missing"},
        {"status": 400, "message": "evaluations[2]: not a JSON object"},
        None,
    ]
    first = {**asked, "options": {"evaluations_semantic": "deny_on_first_deny"}}
    assert decisions(default_api.post(EVALUATIONS, first)) == [True, False]


EVALUATIONS_REFUSED: list[tuple[Any, str]] = [
    ({"evaluations": [{}], "options": {"evaluations_semantic": "maybe"}}, "$.options.evaluations_semantic"),
    ({"evaluations": [{}], "subject": 3}, "subject: not a JSON object"),
    ({"evaluations": {}}, "$.evaluations"),
    ({"evaluations": [{}] * 6}, "evaluations: 6 items are more than limits.max_batch allows (5)"),
    ([], "body: Expected `object`"),
]


@pytest.mark.parametrize(("body", "message"), EVALUATIONS_REFUSED, ids=range(len(EVALUATIONS_REFUSED)))
def test_evaluations_that_are_none_are_refused_whole(wired_api: HttpClient, body: Any, message: str) -> None:
    status, said = wired_api.post(EVALUATIONS, body).problem
    assert (status, message in said) == (400, True), said


@pytest.mark.parametrize("host", [None, "pdp.example:8443", "[::1]:9002"])
def test_authzens_metadata_is_about_the_name_that_was_asked(
    default_api: HttpClient, default_http: Sidecar, host: str | None
) -> None:
    headers = {} if host is None else {"host": host}
    base = f"http://{host or default_http.settings['listen.http']}"
    assert default_api.get("/.well-known/authzen-configuration", **headers).json == {
        "policy_decision_point": base,
        "access_evaluation_endpoint": f"{base}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{base}/access/v1/evaluations",
    }


def test_a_name_that_can_be_none_is_not_repeated(default_api: HttpClient, default_http: Sidecar) -> None:
    answer = default_api.get("/.well-known/authzen-configuration", host='x"/<script>')
    assert answer.json["policy_decision_point"] == f"http://{default_http.settings['listen.http']}"


# OPA -----------------------------------------------------------------------------------------------------------------

RESULTS: list[tuple[str, Any]] = [
    ("allow", True),
    ("deny", False),
    ("text", "yes"),
    ("number", 42),
    ("set", ["a"]),
    ("object", {"allow": True, "reason": "an object", "cache_ttl": 5, "more": [1, None]}),
]


@pytest.mark.parametrize(("case", "result"), RESULTS)
def test_opas_clients_get_the_result(wired_api: HttpClient, wired_http: Sidecar, case: str, result: Any) -> None:
    answer = wired_api.post("/v1/data/wire/decide", {"input": {"case": case}})
    assert (answer.status, answer.json["result"]) == (200, result)
    recorded = event(wired_http.spool_dir, answer.json["decision_id"])
    assert recorded.policy_id == "wire/decide"


def test_what_is_undefined_has_no_result(wired_api: HttpClient) -> None:
    bodies: list[Any] = [{"input": {"case": "other"}}, {"input": {}}, {}, b""]
    for body in bodies:
        answer = wired_api.post("/v1/data/wire/decide", body)
        assert (answer.status, set(answer.json)) == (200, {"decision_id"})


def test_what_failed_has_no_result_either_and_says_why(wired_api: HttpClient) -> None:
    """Whoever looks for `result` alone is denied."""
    answer = wired_api.post("/v1/data/wire/decide?pretty=true", {"input": {"case": "conflict"}}).json
    assert set(answer) == {"decision_id", "warning"}
    assert answer["warning"]["code"] == "evaluation_error"
    assert answer["warning"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/data/no/such", {"input": {}}, 404, "there is no entrypoint 'no/such'"),
        ("/v1/data/", {"input": {}}, 404, "there is no entrypoint ''"),
        ("/v1/data/wire%2Fdecide", b"{", 400, "body: not valid JSON"),
        ("/v1/data/wire/decide", {"input": 3}, 400, "input: not a JSON object"),
    ],
)
def test_what_opa_would_not_answer_is_refused(
    wired_api: HttpClient, path: str, body: Any, status: int, message: str
) -> None:
    refused = wired_api.post(path, body).problem
    assert (refused[0], message in refused[1]) == (status, True)
