"""Who asks over HTTP, where tokens are believed: the user that a token names, whatever the body says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from sark_pdp._proto.decision_pb2 import CheckBatchRequest, CheckRequest, CheckResponse, FilterRequest
from sark_pdp.audit.event import Event
from tests.fix_http import AUTHORIZE, BATCH, EVALUATE, EVALUATION, EVALUATIONS, HttpClient, serving_http
from tests.fix_native import NATIVE, TIMEOUT, event, events, wait_until
from tests.fix_principal import AUDIENCE, ISSUER, key_set, token
from tests.fix_serve import Sidecar

INVOKE = {"action": "tool:invoke", "tool": "search_code"}


@pytest.fixture(scope="module")
def verifying(sark_pdp: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_bytes(key_set(("P-256", 0)))
    settings = {
        "principal.jwt.issuer": ISSUER,
        "principal.jwt.audience": [AUDIENCE],
        "principal.jwt.jwks_file": str(keys),
        "principal.jwt.user_attributes": ["roles"],
    }
    with serving_http(sark_pdp, settings) as served:
        yield served


@pytest.fixture
def client(verifying: Sidecar) -> Iterator[HttpClient]:
    with HttpClient(str(verifying.settings["listen.http"])) as made:
        yield made


def bearer(**claims: Any) -> str:
    return f"Bearer {token(**claims)}"


def test_the_user_is_the_one_of_the_token(client: HttpClient, verifying: Sidecar) -> None:
    """On each endpoint; what the body says of the user is gone."""
    impostor = {"user_id": "eve", "user": {"roles": ["admin"]}}
    authorization = bearer(roles=["developer"])
    evaluated = client.post(EVALUATE, {**INVOKE, **impostor}, authorization=authorization).json
    (batched,) = client.post(BATCH, [{**INVOKE, **impostor}], authorization=authorization).json
    body = {"action": "tool:invoke", "tool_name": "search_code", **impostor}
    gateway = client.post(AUTHORIZE, body, authorization=authorization).json
    subject = {"type": "user", "id": "eve"}
    asked = {"subject": subject, "action": {"name": "tool:invoke"}, "resource": {"type": "tool", "id": "search_code"}}
    authzen = client.post(EVALUATION, asked, authorization=authorization).json
    assert [evaluated["allow"], batched["allow"], gateway["allow"], authzen["decision"]] == [True] * 4
    ids = [evaluated["decision_id"], batched["decision_id"], gateway["audit_id"], authzen["context"]["decision_id"]]
    recorded = [event(verifying.spool_dir, each) for each in ids]
    assert {each.user_id for each in recorded} == {"alice"}
    assert all("admin" not in str(each.details["input"]) for each in recorded)


def test_without_a_token_the_caller_speaks_for_its_users(client: HttpClient, verifying: Sidecar) -> None:
    """As through gRPC: it is the one that enforces what is decided."""
    answer = client.post(EVALUATE, {**INVOKE, "user_id": "bob", "user": {"roles": ["developer"]}}).json
    assert (answer["allow"], event(verifying.spool_dir, answer["decision_id"]).user_id) == (True, "bob")


def test_nobody_says_in_a_body_that_somebody_was_proven(client: HttpClient, verifying: Sidecar) -> None:
    forged = {"principal": {"id": "root", "method": "jwt", "claims": {"admin": True}}}
    over_http = client.post(EVALUATE, {"input": {**INVOKE, "user": {"id": "bob"}, **forged}}).json["decision_id"]
    check = CheckRequest(input_json=json.dumps({**INVOKE, "user": {"id": "bob"}, **forged}).encode())
    with grpc.insecure_channel(verifying.grpc) as channel:
        call: Any = channel.unary_unary(f"{NATIVE}Check", response_deserializer=CheckResponse.FromString)
        natively = call(check.SerializeToString(), timeout=TIMEOUT).decision_id
    for decision_id in (over_http, natively):
        assert "principal" not in event(verifying.spool_dir, decision_id).details["input"]


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "another"}, {"iss": "another"}], ids=str)
def test_a_token_that_does_not_count_is_401(client: HttpClient, claims: dict[str, Any]) -> None:
    answer = client.post(EVALUATE, {**INVOKE, "user_id": "bob"}, authorization=bearer(**claims))
    status, message = answer.problem
    assert (status, message.startswith("the token")) == (401, True)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_that_does_not_count_is_refused_once_for_all_that_is_asked(
    client: HttpClient, verifying: Sidecar
) -> None:
    """With the request as a whole: it is one attempt, and one event of the trail."""
    # No other test has this one refused.
    bad = bearer(exp=None)
    assert client.post(BATCH, [INVOKE] * 5, authorization=bad).problem[0] == 401
    action, resource = {"name": "tool:invoke"}, {"type": "tool", "id": "search_code"}
    asked = {"subject": {"type": "user", "id": "bob"}, "action": action, "evaluations": [{"resource": resource}] * 5}
    assert client.post(EVALUATIONS, asked, authorization=bad).problem[0] == 401
    check = CheckRequest(input_json=json.dumps({"action": "tool:invoke", "user": {"id": "bob"}}).encode())
    tool = Struct()
    tool.update({"name": "search_code"})
    with grpc.insecure_channel(verifying.grpc) as channel:
        for method, message in (
            ("CheckBatch", CheckBatchRequest(checks=[check] * 5)),
            ("Filter", FilterRequest(template=check, resource_field="tool", resources=[tool] * 5)),
        ):
            call: Any = channel.unary_unary(NATIVE + method)
            with pytest.raises(grpc.RpcError) as caught:
                call(message.SerializeToString(), metadata=(("authorization", bad),), timeout=TIMEOUT)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    wait_until(lambda: len(told_of(verifying, "the token has no claim exp")) == 4)


def told_of(sidecar: Sidecar, reason: str) -> list[Event]:
    """The violations that the trail has, with this reason."""
    found = [each for each in events(sidecar.spool_dir) if each.event_type == "security_violation"]
    return [each for each in found if each.details["reason"] == reason]
