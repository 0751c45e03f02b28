"""Who a request through the real Envoy is from, and what the audit trail says of it."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sark_pdp._proto.decision_pb2 import CheckRequest, CheckResponse
from tests.fix_envoy import Envoy, running_envoy
from tests.fix_principal import AUDIENCE, ISSUER, key_set, token
from tests.fix_serve import Serve, Sidecar

HEADER = "x-sark-user"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_bytes(key_set(("P-256", 0)))
    return file


@pytest.fixture
def verifying(serve: Serve, keys: Path) -> Sidecar:
    """A sidecar that believes tokens."""
    sidecar = serve(
        {
            "principal.jwt.issuer": ISSUER,
            "principal.jwt.audience": [AUDIENCE],
            "principal.jwt.jwks_file": str(keys),
        }
    )
    sidecar.wait_ready()
    return sidecar


@pytest.fixture
def proxy(envoy: Path, verifying: Sidecar) -> Iterator[Envoy]:
    with running_envoy(envoy, verifying.grpc, {}) as started:
        yield started


def events(sark_pdp: Path, sidecar: Sidecar) -> list[dict[str, Any]]:
    """Of a sidecar that has stopped."""
    command: list[str | Path] = [sark_pdp, "audit", "list", "--spool", sidecar.spool_dir, "--limit", "0", "--json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in listed.splitlines()]


def bearer(**claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(**claims)}"}


def test_a_token_tells_who_asks_and_nothing_else_does(proxy: Envoy, verifying: Sidecar, sark_pdp: Path) -> None:
    """The identity header, which anybody can write, counts for nothing where tokens do."""
    allowed = proxy.request("GET", "/orders", bearer(roles=["developer"]) | {HEADER: "mallory"})
    assert allowed.status == 200
    refused = proxy.request("GET", "/orders", {HEADER: "bob"})
    assert (refused.status, refused.json()["error"]) == (403, "the request names no user")
    assert proxy.request("GET", "/orders", bearer(roles=["guest"])).status == 403
    assert proxy.request("GET", "/health").status == 200

    expired = proxy.request("GET", "/orders", bearer(exp=1) | {HEADER: "bob"})
    assert (expired.status, expired.body) == (401, b"the token has expired")
    assert expired.header("www-authenticate") == ['Bearer error="invalid_token"']

    verifying.stop()
    recorded = events(sark_pdp, verifying)
    decided = [event["user_id"] for event in recorded if event["event_type"].startswith("authorization_")]
    assert sorted(map(str, decided)) == ["None", "None", "alice", "alice"]
    (violation,) = [event for event in recorded if event["event_type"] == "security_violation"]
    assert violation["details"]["reason"] == "the token has expired"
    assert violation["details"]["ip_address"] == "127.0.0.1"
    # The token itself is a secret, and is nowhere.
    assert "eyJ" not in json.dumps(recorded)


@pytest.mark.parametrize(("trusted", "status"), [(os.getuid(), 200), (os.getuid() + 1, 403)])
def test_a_header_counts_from_a_process_that_the_kernel_vouches_for(
    trusted: int, status: int, serve: Serve, envoy: Path, tmp_path: Path
) -> None:
    """Envoy runs as this user."""
    if os.environ.get("TEST_TRANSPORT") == "grpcio":
        pytest.skip("grpcio does not tell who is behind a Unix socket")
    pytest.importorskip("sark_pdp._front", reason="there is no front here, and grpcio does not tell of Unix users")
    sidecar = serve(
        {
            "listen.grpc": f"unix://{tmp_path / 'pdp.sock'}",
            "principal.trusted_header": HEADER,
            "principal.trusted_peers": [f"uid:{trusted}"],
        }
    )
    sidecar.wait_ready()
    with running_envoy(envoy, sidecar.grpc, {}) as proxy:
        assert proxy.request("GET", "/orders", {HEADER: "bob"}).status == status


def ask(address: str, user: str, call_token: str) -> CheckResponse:
    """A native call about that user, with a token."""
    document = {"action": "tool:invoke", "user": {"id": user, "roles": ["developer"]}, "tool": {"name": "search_code"}}
    metadata = (("authorization", f"Bearer {call_token}"),) if call_token else ()
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/sark.pdp.v1.PolicyDecision/Check", CheckRequest.SerializeToString, CheckResponse.FromString
        )
        request = CheckRequest(input_json=json.dumps(document).encode())
        answer = check(request, metadata=metadata, timeout=30, wait_for_ready=True)
        assert isinstance(answer, CheckResponse)
        return answer


def test_the_token_of_a_native_call_outweighs_its_document(verifying: Sidecar) -> None:
    """Without one the caller speaks for its users, as it enforces what is decided."""
    assert ask(verifying.grpc, "bob", "").allow
    assert not ask(verifying.grpc, "bob", token(roles=["guest"])).allow
    assert ask(verifying.grpc, "mallory", token(roles=["developer"])).allow
    with pytest.raises(grpc.RpcError) as caught:
        ask(verifying.grpc, "bob", token(aud="other"))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "the token is for somebody else"
