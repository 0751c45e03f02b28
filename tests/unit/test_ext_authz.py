"""Envoy's ext_authz: whatever comes in and whatever the policy returns, Envoy gets an answer that it can carry out."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path as FilePath
from typing import Any

import msgspec
import pytest
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import (
    DeadlineExceededError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnknownEntrypointError,
)
from sark_pdp.model import Deadline, Origin, Outcome, Request, Verdict
from sark_pdp.projection import Path
from sark_pdp.transport.ext_authz import Answers, ExtAuthz, ReviewedDecider
from sark_pdp.transport.handler import Kind, Metadata, Refusal, Reply, Status
from tests.fix_ext_authz import ALLOW, DENY, ENTRYPOINT, IDS, Asked, Decisions, message, returned

CASES = FilePath(__file__).parent.parent / "cases" / "ext_authz"

MAX_INPUT_BYTES = 4096
MAX_DEPTH = 10
MAX_VALUES = 1000


def cases(file: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in yaml.safe_load((CASES / file).read_text())]


def service(
    answer: Verdict | Exception, *, nowait: bool = True, paths: Iterable[Path] = ((),)
) -> tuple[Decisions, ExtAuthz]:
    decisions = Decisions(answer, nowait=nowait, paths=paths)
    method = ExtAuthz(
        decisions, Answers(), ENTRYPOINT, max_input_bytes=MAX_INPUT_BYTES, max_depth=MAX_DEPTH, max_values=1000
    )
    return decisions, method


def response(reply: Reply | None) -> CheckResponse:
    assert reply is not None
    assert reply.status is Status.OK
    return CheckResponse.FromString(reply.message)


def denial(reply: Reply | None) -> tuple[int, str]:
    """HTTP status and body; the answer has to be one that Envoy takes for a denial, not for an error."""
    check = response(reply)
    assert check.WhichOneof("http_response") == "denied_response"
    assert check.status.code != Status.OK
    assert check.status.message
    return check.denied_response.status.code, check.denied_response.body


def answers(method: ExtAuthz) -> tuple[Callable[..., Reply | None], ...]:
    return method.answer, method.answer_nowait


@pytest.mark.parametrize("case", cases("input.yaml"))
def test_the_policy_is_given_the_document_of_the_plugin(case: dict[str, Any]) -> None:
    """And an input that is not well-formed never reaches it."""
    decisions, method = service(ALLOW)
    for answer in answers(method):
        reply = answer(Metadata(), message(case["attributes"]))
        if "refused" in case:
            status, text = denial(reply)
            assert status == case["refused"]["status"]
            assert case["refused"]["text"] in text
            assert decisions.requests == []
            continue
        assert response(reply).HasField("ok_response")
        document = decisions.requests[-1].document
        if "document" in case:
            assert document == case["document"]
        for path, expected in case.get("fields", {}).items():
            assert at(document, path) == expected
        assert msgspec.json.decode(msgspec.json.encode(document)) == document


def at(document: Any, path: str) -> Any:
    for step in path.split("."):
        document = document[step]
    return document


@pytest.mark.parametrize("case", cases("answers.yaml"))
def test_what_is_recorded_is_what_envoy_is_told(case: dict[str, Any]) -> None:
    """A result that Envoy could not carry out is an error before it is recorded; any other is left as it is."""
    stated = case.get("verdict")
    verdict = returned(case["result"]) if stated is None else Verdict(Outcome[stated["outcome"]], stated["reason"])
    decisions = Decisions(verdict)
    reviewed = ReviewedDecider(decisions, Answers())
    request = Request(decisions.asked, {}, "r")
    for decided in (reviewed.decide(request), reviewed.decide_nowait(request)):
        assert decided is not None
        if "unusable" in case:
            assert decided.verdict.outcome is Outcome.ERROR
            assert case["unusable"] in decided.verdict.reason
        else:
            assert decided.verdict == verdict


@pytest.mark.parametrize("case", cases("answers.yaml"))
def test_envoy_is_told_what_the_policy_returned(case: dict[str, Any]) -> None:
    """And nothing of it that Envoy could not carry out."""
    stated = case.get("verdict")
    verdict = returned(case["result"]) if stated is None else Verdict(Outcome[stated["outcome"]], stated["reason"])
    _, method = service(verdict)
    for answer in answers(method):
        reply = answer(Metadata(), b"")
        if "unusable" in case:
            status, text = denial(reply)
            assert status == 500
            assert text == "the policy could not be evaluated"
            assert case["unusable"] in response(reply).status.message
            assert response(reply).denied_response.headers == []
            continue
        answered = json_format.MessageToDict(response(reply))
        metadata = answered.pop("dynamicMetadata")
        expected = dict(case["response"])
        assert metadata == {**expected.pop("dynamicMetadata", {}), **IDS}
        assert answered == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_no_word_for_is_refused(number: float) -> None:
    """Protobuf can carry it in a filter's metadata."""
    check = CheckRequest()
    check.attributes.metadata_context.filter_metadata["f"]["n"] = number
    decisions, method = service(ALLOW)
    assert denial(method.answer(Metadata(), check.SerializeToString()))[0] == 400
    assert decisions.requests == []


@pytest.mark.parametrize("depth", [29, 30])
def test_metadata_is_never_too_deep_for_the_reader_of_the_answer(depth: int) -> None:
    """Envoy would take the answer for an error, which it may be told to let through."""
    nested: Any = "core"
    for _ in range(depth):
        nested = {"a": nested}
    _, method = service(returned({"allowed": True, "dynamic_metadata": {"top": nested}}))
    check = response(method.answer(Metadata(), b""))
    if depth == 29:
        assert json_format.MessageToDict(check.dynamic_metadata) == {"top": nested, **IDS}
    else:
        assert "dynamic_metadata is nested deeper" in check.status.message


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_metadata_numbers_beyond_a_double_deny(number: int) -> None:
    """Protobuf has no other number."""
    _, method = service(verdict_of(b'{"allow": true, "dynamic_metadata": {"n": %d}}' % number))
    assert "beyond the range" in response(method.answer(Metadata(), b"")).status.message


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotReadyError("no bundle is active"), 503, "no policy"),
        (UnknownEntrypointError(ENTRYPOINT, ("salaries/decision",)), 503, "no policy"),
        (OverloadedError("limits.max_concurrent"), 429, "too many"),
        (DeadlineExceededError("the deadline had passed"), 504, "in time"),
        (RequestError("anything else"), 500, "could not be authorized"),
        (ZeroDivisionError("a defect"), 500, "could not be authorized"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_fails_is_a_denial_that_tells_no_internals(error: Exception, status: int, text: str) -> None:
    """`failure_mode_allow` lets errors through, so there are none."""
    _, method = service(error)
    for answer in answers(method):
        stated, body = denial(answer(Metadata(), b""))
        assert stated == status
        assert text in body
        assert str(error) not in body
        assert "salaries" not in body


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Refusal.TOO_MANY_CALLS, 429),
        (Refusal.TOO_MANY_BYTES, 429),
        (Refusal.TOO_LARGE, 413),
        (Refusal.INTERNAL, 500),
    ],
)
def test_a_call_that_is_refused_unread_is_a_denial(reason: Refusal, status: int) -> None:
    """For an error, too, would be let through where Envoy is told to."""
    _, method = service(ALLOW)
    assert denial(method.refusal(reason))[0] == status


def test_shedding_tells_clients_when_to_come_back() -> None:
    """In the header that HTTP clients know."""
    _, method = service(ALLOW)
    header = response(method.refusal(Refusal.TOO_MANY_CALLS)).denied_response.headers[0].header
    assert (header.key, header.value) == ("retry-after", "1")


def test_a_message_over_the_limit_is_denied_without_being_read() -> None:
    """At the limit it is read."""
    decisions, method = service(ALLOW)
    padding = MAX_INPUT_BYTES - len(message({"request": {"http": {"host": "x" * 4000}}})) + 4000
    fits = message({"request": {"http": {"host": "x" * padding}}})
    assert len(fits) == MAX_INPUT_BYTES
    assert response(method.answer(Metadata(), fits)).HasField("ok_response")
    assert denial(method.answer(Metadata(), fits + b"x"))[0] == 413
    assert len(decisions.requests) == 1


def json_body(values: int) -> str:
    return f"[{','.join('1' * values)}]"


def form_body(values: int) -> str:
    return "&".join("1" * values)


@pytest.mark.parametrize(
    ("kind", "body"), [("application/json", json_body), ("application/x-www-form-urlencoded", form_body)]
)
@pytest.mark.parametrize(("values", "status"), [(MAX_VALUES, 200), (MAX_VALUES + 1, 400)])
def test_a_body_of_too_many_values_is_refused_undecoded(
    values: int, status: int, kind: str, body: Callable[[int], str]
) -> None:
    """To decode it, or to make a key of it, would delay the answers to everybody else."""
    asked = message({"request": {"http": {"headers": {"content-type": kind}, "body": body(values)}}})
    decisions, method = service(ALLOW)
    reply = method.answer(Metadata(), asked)
    if status == 200:
        assert response(reply).HasField("ok_response")
        parsed = decisions.requests[-1].document["parsed_body"]
        assert len(parsed if kind == "application/json" else parsed["1"]) == values
    else:
        assert denial(reply) == (400, "parsed_body: the body has more values than limits.max_values allows")


def test_what_may_wait_is_not_answered_at_once() -> None:
    """A decision that is not known, and a message that takes long to read."""
    decisions, method = service(ALLOW, nowait=False)
    assert method.answer_nowait(Metadata(), b"") is None
    _, method = service(ALLOW)
    assert method.answer_nowait(Metadata(), b"x" * (MAX_INPUT_BYTES + 1)) is None
    large = ExtAuthz(
        decisions, Answers(), ENTRYPOINT, max_input_bytes=2**20, max_depth=MAX_DEPTH, max_values=MAX_VALUES
    )
    assert large.answer_nowait(Metadata(), message({"request": {"http": {"host": "x" * 16384}}})) is None


def test_the_request_says_who_asked_and_until_when() -> None:
    """For the audit trail, and so that nobody decides for a caller that is gone."""
    decisions, method = service(ALLOW)
    attributes = {
        "source": {"address": {"socketAddress": {"address": "10.1.2.3"}}, "principal": "spiffe://mesh/web"},
        "request": {"http": {"id": "7", "headers": {"user-agent": "curl/8", "x-request-id": "req-1" + "x" * 600}}},
    }
    method.answer(Metadata(deadline=Deadline(12.5), origin=Origin("127.0.0.1", "grpc-c++")), message(attributes))
    request = decisions.requests[-1]
    assert request.origin == Origin("10.1.2.3", "curl/8", "spiffe://mesh/web")
    assert request.deadline == Deadline(12.5)
    assert request.request_id == "req-1" + "x" * 507
    assert request.max_age is None


def test_who_asked_is_not_found_out_where_nobody_is_told() -> None:
    """Nor is what only the audit trail wants of a body; the decision is the same."""
    decisions, method = service(ALLOW, paths=[("attributes", "request", "http", "method")])
    decisions.recording = False
    http = {"id": "7", "method": "GET", "headers": {"user-agent": "curl/8", "content-type": "application/json"}}
    attributes = {"source": {"principal": "spiffe://mesh/web"}, "request": {"http": {**http, "body": "[1]"}}}
    assert response(method.answer(Metadata(), message(attributes))).HasField("ok_response")
    request = decisions.requests[-1]
    assert (request.origin, request.request_id) == (Origin(), "-")
    assert request.document == {"attributes": {"request": {"http": {"method": "GET"}}}}


@pytest.mark.parametrize(("http", "expected"), [({"id": "7"}, "7"), ({}, None)])
def test_a_request_without_an_id_gets_one(http: dict[str, str], expected: str | None) -> None:
    """Envoy's own, else a UUIDv7."""
    decisions, method = service(ALLOW)
    method.answer(Metadata(), message({"request": {"http": http}}))
    request_id = decisions.requests[-1].request_id
    assert request_id == expected if expected else request_id[14] == "7"


def test_a_new_revision_is_read_by_its_own_projection() -> None:
    """What the policy before it did not read is there for the next one."""
    decisions, method = service(ALLOW, paths=[("attributes", "request", "http", "method")])
    asked = message({"request": {"http": {"method": "GET", "host": "shop"}}})
    method.answer(Metadata(), asked)
    assert decisions.requests[-1].document["attributes"] == {"request": {"http": {"method": "GET"}}}
    decisions.asked = Asked([("attributes", "request", "http", "host")])
    method.answer(Metadata(), asked)
    assert decisions.requests[-1].document["attributes"] == {"request": {"http": {"host": "shop"}}}


def test_the_method_is_unary() -> None:
    """A carrier asks it for one answer to one message, and never to watch."""
    _, method = service(ALLOW)
    assert method.kind is Kind.UNARY
    with pytest.raises(NotImplementedError):
        method.watch(Metadata(), b"")


@given(data=st.binary(max_size=200))
@example(data=b"\xff" * 20)
@example(data=message({"request": {"http": {"path": "/%"}}}))
def test_any_bytes_get_an_answer_and_never_an_allowance(data: bytes) -> None:
    """With a policy that denies, or none at all."""
    for answer in (DENY, NotReadyError("no bundle is active")):
        _, method = service(answer)
        for ask in answers(method):
            denial(ask(Metadata(), data))
