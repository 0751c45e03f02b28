"""`/api/v1/policy/evaluate` and `batch-evaluate`: what comes in, what is answered, what is audited."""

import gzip
import json
from typing import Any
from uuid import UUID

import pytest

from tests.fix_http import BATCH, EVALUATE, HttpClient, decisions_between, evaluate
from tests.fix_native import event, metric, wait_until
from tests.fix_serve import Sidecar

ANSWERS: list[tuple[str, bool, str, str, Any]] = [
    ("allow", True, "allow", "allowed by the policy", True),
    ("deny", False, "deny", "", False),
    ("object", True, "allow", "an object", {"allow": True, "reason": "an object", "cache_ttl": 5, "more": [1, None]}),
    ("text", False, "deny", "", "yes"),
    ("number", False, "deny", "", 42),
    ("nothing that the policy knows", False, "undefined", "", None),
    ("conflict", False, "error", "", None),
    ("abort", False, "error", "", None),
    ("builtin", False, "undefined", "", None),
]


@pytest.mark.parametrize(("case", "allow", "outcome", "reason", "result"), ANSWERS)
def test_a_decision_is_200_whatever_it_is(
    wired_api: HttpClient, wired_http: Sidecar, case: str, allow: bool, outcome: str, reason: str, result: Any
) -> None:
    """`CheckResponse` in snake_case; SARK's `decision` and `audit_id` say the same."""
    answer = evaluate(wired_api, case, request_id=f"of {case}")
    assert (answer["allow"], answer["outcome"], answer["result"]) == (allow, outcome, result)
    assert answer["decision"] == ("allow" if allow else "deny")
    assert answer["reason"]
    assert reason in answer["reason"] or case == "allow"
    assert answer["request_id"] == f"of {case}"
    assert (answer["policy_revision"], answer["filtered_parameters"]) == ("wire-1", None)
    assert answer["tier"] in {"evaluated", "l1"}
    assert UUID(answer["decision_id"]).version == 7
    assert answer["audit_id"] == answer["decision_id"]
    recorded = event(wired_http.spool_dir, answer["decision_id"])
    assert (recorded.decision, recorded.request_id, recorded.policy_id) == (outcome, f"of {case}", "wire/decide")
    assert (recorded.details["reason"], recorded.details["tier"]) == (answer["reason"], answer["tier"])


def test_an_answer_that_is_known_comes_from_memory(wired_api: HttpClient) -> None:
    first, second = evaluate(wired_api, "object", salt=71), evaluate(wired_api, "object", salt=71)
    assert second["tier"] == "l1"
    assert 0 < second["cache_ttl"] <= 5
    assert first["decision_id"] != second["decision_id"]
    assert evaluate(wired_api, "object", salt=71, max_age=0)["tier"] == "evaluated"


def test_flat_names_become_the_document_that_policies_know(default_api: HttpClient, default_http: Sidecar) -> None:
    """What is audited is what the policy saw."""
    answer = evaluate(
        default_api, action="tool:invoke", user_id="bob", user={"roles": ["developer"]}, tool="search_code", server="s"
    )
    assert answer["allow"]
    seen = event(default_http.spool_dir, answer["decision_id"])
    assert seen.details["input"]["user"] == {"id": "bob", "roles": ["developer"]}
    assert seen.details["input"]["tool"] == {"name": "search_code"}
    assert (seen.user_id, seen.tool_name) == ("bob", "search_code")


def test_parameters_that_a_call_must_not_carry_are_taken_out(wired_api: HttpClient) -> None:
    parameters = {"debug": True, "auth": {"token": "t", "user": "u"}, "card": "1234", "amount": 12345678901234567890123}
    filtered = evaluate(wired_api, "paths", parameters=parameters)["filtered_parameters"]
    assert filtered == {"auth": {"user": "u"}, "card": "[REDACTED]", "amount": 12345678901234567890123}
    assert evaluate(wired_api, "rewritten")["filtered_parameters"] == {"only": "this"}
    assert evaluate(wired_api, "paths", parameters={"debug": 1})["filtered_parameters"] == {}


REFUSED: list[tuple[Any, int, str]] = [
    (b"", 400, "body: not valid JSON"),
    (b"{", 400, "body: not valid JSON"),
    (b"[]", 400, "body: not a JSON object"),
    (b'"text"', 400, "body: not a JSON object"),
    (b'{"a": NaN}', 400, "body: not valid JSON"),
    (b'{"a": "\xff"}', 400, "body: not valid JSON"),
    (b'{"a": "\\ud800"}', 400, "body: not valid JSON"),
    (b'{"a": 1e999}', 400, "body: not valid JSON"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, 400, "body: nested deeper than limits.max_depth"),
    (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400, "body: "),
    ({"a": "x" * 50_000}, 400, "more than limits.max_input_bytes allows"),
    ({"input": {"a": "x" * 50_000}}, 400, "input: "),
    ({"input": [1]}, 400, "input: not a JSON object"),
    ({"input": None}, 400, "input: not a JSON object"),
    ({"policy": 3}, 400, "$.policy"),
    ({"policy": "x" * 600}, 400, "policy: longer than 512"),
    ({"request_id": "x" * 600}, 400, "request_id: longer than 512"),
    ({"max_age": -1}, 400, "max_age: is negative"),
    ({"max_age": 1e300}, 400, "max_age: must be a number of seconds"),
    ({"user_id": 3}, 400, "user_id: not a text"),
    ({"user_id": ""}, 400, "user_id: is empty"),
    ({"user_id": "a", "user": {"id": "b"}}, 400, "user_id: says otherwise than user.id"),
    ({"user_id": "a", "user": "b"}, 400, "user: not a JSON object"),
    ({"policy": "no/such"}, 404, "the loaded ones are wire/clock, wire/decide, wire/listed, wire/other"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_malformed_request_gets_one_sentence_and_no_event(
    wired_api: HttpClient, wired_http: Sidecar, body: Any, status: int, message: str
) -> None:
    """It names the field. The connection goes on."""
    before = evaluate(wired_api, "allow")["decision_id"]
    answer = wired_api.post(EVALUATE, body)
    assert answer.problem[0] == status
    assert message in answer.problem[1]
    assert "Traceback" not in answer.body.decode()
    after = evaluate(wired_api, "allow")["decision_id"]
    assert decisions_between(wired_http.spool_dir, before, after) == []


def test_a_batch_keeps_its_order_and_one_bad_item_fails_alone(wired_api: HttpClient, wired_http: Sidecar) -> None:
    asked = [{"case": "allow"}, {"case": "deny"}, 3, {"case": "allow", "policy": "no/such"}, {"case": "conflict"}]
    results = wired_api.post(BATCH, asked).json
    assert [result["allow"] for result in results] == [True, False, False, False, False]
    assert [result["decision"] for result in results] == ["allow", "deny", "deny", "deny", "deny"]
    assert [result.get("error", {}).get("code") for result in results] == [
        *(None, None),
        *("invalid_parameter", "resource_not_found"),
        None,
    ]
    assert results[2]["error"]["message"] == "body[2]: not a JSON object"
    for index in (0, 1, 4):
        event(wired_http.spool_dir, results[index]["decision_id"])


@pytest.mark.parametrize("name", ["checks", "requests"])
def test_a_batch_may_have_a_name(wired_api: HttpClient, name: str) -> None:
    answer = wired_api.post(BATCH, {name: [{"case": "allow"}, {"user_id": 3}]}).json
    assert list(answer) == ["results"]
    assert [result["allow"] for result in answer["results"]] == [True, False]
    assert answer["results"][1]["error"]["message"] == "user_id: not a text"


BATCHES: list[tuple[Any, str]] = [
    ({}, "checks: is missing"),
    ("text", "body: Expected `object`"),
    ([{}] * 6, "body: 6 items are more than limits.max_batch allows (5)"),
    ({"checks": [{}] * 6}, "checks: 6 items"),
    ({"checks": 3}, "$.checks"),
    (b"[" * 30_000, "body: "),
    (b"[" + b"1," * 30_000 + b"1]", "items are more than limits.max_batch"),
]


@pytest.mark.parametrize(("body", "message"), BATCHES, ids=range(len(BATCHES)))
def test_a_batch_that_is_none_is_refused_whole(wired_api: HttpClient, body: Any, message: str) -> None:
    status, said = wired_api.post(BATCH, body).problem
    assert (status, message in said) == (400, True), said


def test_a_hundred_questions_in_one_request_are_normal(default_api: HttpClient) -> None:
    """Answered in order, and packed where the caller takes that."""
    asked = [
        {"user_id": "bob", "user": {"roles": ["developer"]}, "action": "tool:invoke", "tool": tool}
        for tool in ["search_code", "drop_database"] * 50
    ]
    plain = default_api.post(BATCH, asked)
    assert [each["allow"] for each in plain.json] == [True, False] * 50
    assert "content-encoding" not in plain.headers
    packed = default_api.post(BATCH, asked, accept_encoding="br, gzip;q=0.5")
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
    assert len(packed.body) * 4 < len(plain.body)
    assert [each["allow"] for each in json.loads(gzip.decompress(packed.body))] == [True, False] * 50


def test_an_empty_batch_has_no_answers(wired_api: HttpClient) -> None:
    assert wired_api.post(BATCH, []).json == []


def test_a_body_may_be_packed(wired_api: HttpClient) -> None:
    body = gzip.compress(json.dumps({"case": "allow", "filler": "x" * 10_000}).encode())
    assert wired_api.post(EVALUATE, body, content_encoding="gzip").json["allow"]
    assert wired_api.post(EVALUATE, body[:-9], content_encoding="gzip").problem == (
        400,
        "body: its gzip does not end where the body does",
    )
    assert wired_api.post(EVALUATE, b"{}", content_encoding="gzip").problem[0] == 400
    assert wired_api.post(EVALUATE, b"{}", content_encoding="identity").json["outcome"] == "undefined"


def test_a_foreign_encoding_is_refused(wired_http: Sidecar) -> None:
    with HttpClient(str(wired_http.settings["listen.http"])) as client:
        refused = client.post(EVALUATE, b"{}", content_encoding="br")
    assert (refused.problem[0], refused.headers["accept-encoding"]) == (415, "gzip")


def test_a_bomb_is_not_unpacked(wired_http: Sidecar) -> None:
    """A megabyte in a kilobyte: beyond limits.max_message_bytes it is not looked at."""
    with HttpClient(str(wired_http.settings["listen.http"])) as client:
        bomb = gzip.compress(b"[" + b" " * (1 << 20) + b"]")
        assert client.post(EVALUATE, bomb, content_encoding="gzip").problem[0] == 413


def test_a_request_id_of_the_header_is_recorded_and_given_back(wired_api: HttpClient, wired_http: Sidecar) -> None:
    answer = wired_api.post(EVALUATE, {"case": "allow"}, x_request_id="r-7")
    assert (answer.headers["x-request-id"], answer.json["request_id"]) == ("r-7", "r-7")
    assert event(wired_http.spool_dir, answer.json["decision_id"]).request_id == "r-7"
    assert wired_api.post(EVALUATE, b"", x_request_id="r-8").headers["x-request-id"] == "r-8"
    # What the body says is more particular.
    assert wired_api.post(EVALUATE, {"request_id": "b"}, x_request_id="r-9").json["request_id"] == "b"
    assert wired_api.post(EVALUATE, {}, x_request_id="x" * 600).problem[0] == 400


@pytest.mark.parametrize(
    "header", [{"grpc_timeout": "1n"}, {"x_envoy_expected_rq_timeout_ms": "1", "grpc_timeout": "1n"}], ids=str
)
def test_a_deadline_that_has_passed_is_504(wired_api: HttpClient, header: dict[str, str]) -> None:
    status, message = wired_api.post(EVALUATE, {"case": "allow"}, **header).problem
    assert (status, message) == (504, "the deadline had passed when the decision was due")
    batch = wired_api.post(BATCH, [{"case": "allow"}], **header).json
    assert batch[0]["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("header", [{"grpc_timeout": "1h"}, {"x_envoy_expected_rq_timeout_ms": "1s"}], ids=str)
def test_a_deadline_that_is_none_is_refused(wired_api: HttpClient, header: dict[str, str]) -> None:
    status, message = wired_api.post(EVALUATE, {"case": "allow"}, **header).problem
    assert status == 400
    assert message.startswith(next(iter(header)).replace("_", "-"))


def test_envoys_word_for_no_timeout_is_none(wired_api: HttpClient) -> None:
    assert wired_api.post(EVALUATE, {"case": "allow"}, x_envoy_expected_rq_timeout_ms="0").json["allow"]


def test_other_paths_and_methods_are_refused_in_the_same_shape(wired_http: Sidecar) -> None:
    """And counted without what strangers call them."""
    for method, path, status in [
        ("GET", EVALUATE, 405),
        ("PUT", BATCH, 405),
        ("BREW", EVALUATE, 405),
        ("POST", "/openapi.json", 405),
        ("POST", "/api/v1/policy/evaluate/", 404),
        ("GET", "/%2e%2e/secret", 404),
        ("POST", "/", 404),
    ]:
        with HttpClient(str(wired_http.settings["listen.http"])) as client:
            assert client.request(method, path, b"{}").problem[0] == status
    exposed = wired_http.get("/metrics")[1]
    assert "secret" not in exposed
    assert "BREW" not in exposed
    counted = metric(wired_http, "sark_http_requests_total", endpoint=EVALUATE, method="other", status="405")
    assert counted >= 1


def test_requests_are_counted_by_their_endpoint(wired_api: HttpClient, wired_http: Sidecar) -> None:
    def count(**labels: str) -> float:
        return metric(wired_http, "sark_http_requests_total", **labels)

    before = count(endpoint="/v1/data/{path}", method="POST", status="200")
    assert wired_api.post("/v1/data/wire/decide", {"input": {"case": "allow"}}).status == 200
    # Counted when it is sent, which may be a moment after it is here.
    wait_until(lambda: count(endpoint="/v1/data/{path}", method="POST", status="200") == before + 1)
    exposed = wired_http.get("/metrics")[1]
    assert 'sark_http_request_duration_seconds_bucket{endpoint="/v1/data/{path}",le="0.01",method="POST"}' in exposed
    assert 'le="5.0"' in exposed
    assert "wire/decide" not in "".join(line for line in exposed.splitlines() if line.startswith("sark_http"))


def test_nothing_tells_what_the_server_is_made_of(wired_api: HttpClient) -> None:
    answer = wired_api.post(EVALUATE, {"case": "allow"})
    assert set(answer.headers) == {"date", "content-type", "content-length"}
