"""Refusals in JSON-RPC: whatever call it was, its client can tell which one was refused, why, and by which decision."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.transport.ext_authz import Answers, ExtAuthz
from sark_pdp.transport.handler import Metadata
from tests.fix_ext_authz import DECISION_ID, REVISION, Decisions, message, returned

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "ext_authz" / "json_rpc.yaml").read_text())


def answered(result: dict[str, Any], attributes: dict[str, Any]) -> list[CheckResponse]:
    """What Envoy is told, at once and later."""
    method = ExtAuthz(
        Decisions(returned(result)), Answers(), "envoy/authz/allow", max_input_bytes=2**20, max_depth=30, max_values=100
    )
    encoded = message(attributes)
    replies = [method.answer(Metadata(), encoded), method.answer_nowait(Metadata(), encoded)]
    # Twice: what is remembered of the first must not be of its request.
    replies.append(method.answer(Metadata(), encoded))
    return [CheckResponse.FromString(reply.message or b"") for reply in replies if reply is not None]


def request(case: dict[str, Any]) -> dict[str, Any]:
    http = {"method": "POST", "path": "/mcp", "headers": {"content-type": "application/json"}}
    attributes: dict[str, Any] = {"request": {"http": http}}
    if "body" in case:
        http["body"] = json.dumps(case["body"])
    if "filter" in case:
        attributes["metadata_context"] = {"filter_metadata": {"envoy.filters.http.mcp": case["filter"]}}
    return attributes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_refused_call_is_told_its_id_the_reason_and_the_decision(case: dict[str, Any]) -> None:
    """And an error that is none of JSON-RPC is the policy's mistake, which tells the client nothing."""
    result = {"allowed": False, "reason": "a reason", "http_status": 401, "json_rpc_error": case["error"]}
    for answer in answered(result, request(case)):
        assert answer.WhichOneof("http_response") == "denied_response"
        denied = answer.denied_response
        if "unusable" in case:
            assert case["unusable"] in answer.status.message
            assert (denied.status.code, denied.body) == (500, "the policy could not be evaluated")
            continue
        want = case["answered"]
        assert denied.status.code == want["status"]
        assert [(option.header.key, option.header.value) for option in denied.headers] == [
            ("content-type", "application/json")
        ]
        ids = {"decision_id": DECISION_ID, "policy_revision": REVISION}
        assert json.loads(denied.body) == {
            "jsonrpc": "2.0",
            "id": want["id"],
            "error": {"code": want["code"], "message": want["message"], "data": {"reason": "a reason", **ids}},
        }
        assert dict(answer.dynamic_metadata) == ids


def test_an_allowance_says_nothing_of_it() -> None:
    """Whatever a policy returned beside it."""
    for answer in answered({"allowed": True, "json_rpc_error": {"code": 1}}, request({"body": {"id": 7}})):
        assert answer.WhichOneof("http_response") == "ok_response"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_any_id_gets_an_answer_that_is_json(identity: Any) -> None:
    """Its own id where JSON-RPC knows it, none else."""
    result = {"allowed": False, "json_rpc_error": {"code": 1, "message": "x"}}
    for answer in answered(result, request({"body": {"id": identity}})):
        # A number that JSON has no word for is refused before.
        if answer.denied_response.status.code == 400:
            continue
        told = json.loads(answer.denied_response.body)["id"]
        known = type(identity) in {int, float} or (type(identity) is str and len(identity) <= 1024)
        assert told == (identity if known else None)
