"""Who asks over HTTP, where tokens are believed: the user that a token names, whatever the body says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_http import AUTHORIZE, BATCH, EVALUATE, EVALUATION, HttpClient, serving_http
from tests.fix_native import event
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


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "another"}, {"iss": "another"}], ids=str)
def test_a_token_that_does_not_count_is_401(client: HttpClient, claims: dict[str, Any]) -> None:
    answer = client.post(EVALUATE, {**INVOKE, "user_id": "bob"}, authorization=bearer(**claims))
    status, message = answer.problem
    assert (status, message.startswith("the token")) == (401, True)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    (failed,) = client.post(BATCH, [INVOKE], authorization=bearer(**claims)).json
    assert (failed["allow"], failed["error"]["code"]) == (False, "unauthenticated")
