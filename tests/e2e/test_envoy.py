"""The real Envoy asks the real sidecar: the default policies, and one written for OPA's plugin."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_envoy import Envoy, Response, StartEnvoy, running_envoy
from tests.fix_serve import Serve, Sidecar, free_port

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def proxy(envoy: Path, sidecar: Sidecar) -> Iterator[Envoy]:
    """An Envoy that asks the sidecar with the default bundle, and is told to let requests through where that fails."""
    with running_envoy(envoy, sidecar.grpc, {"failure_mode_allow": True}) as started:
        yield started


def call(tool: str, call_id: object = 7) -> bytes:
    """An MCP client's call of a tool."""
    message = {"jsonrpc": "2.0", "id": call_id, "method": "tools/call", "params": {"name": tool, "arguments": {"a": 1}}}
    return json.dumps(message).encode()


def audited(sark_pdp: Path, sidecar: Sidecar, decision_id: str) -> dict[str, Any]:
    """The event of a decision, from the spool of a sidecar that has stopped."""
    command: list[str | Path] = [sark_pdp, "audit", "list", "--spool", sidecar.spool_dir, "--limit", "0", "--json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    events = [event for event in map(json.loads, listed.splitlines()) if event["id"] == decision_id]
    assert len(events) == 1, listed
    event = events[0]
    assert isinstance(event, dict)
    return event


def test_an_allowed_request_reaches_the_server(proxy: Envoy) -> None:
    """As it came."""
    response = proxy.request("GET", "/health?verbose=1")
    assert response.status == 200
    assert response.json()["path"] == "/health?verbose=1"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/nowhere", {}),
        ("GET", "/orders", {}),
        ("GET", "/orders", {"x-sark-user": "nobody"}),
        ("POST", "/orders", {"x-sark-user": "bob"}),
        ("GET", "//admin/users", {"x-sark-user": "bob"}),
        ("GET", "/%61dmin", {"x-sark-user": "bob"}),
    ],
)
def test_a_refused_request_does_not(method: str, path: str, headers: dict[str, str], proxy: Envoy) -> None:
    """And its client is told why."""
    proxy.upstream.reached = 0
    response = proxy.request(method, path, headers)
    assert response.status == 403
    assert response.header("content-type") == ["application/json"]
    assert response.json()["error"]
    assert proxy.upstream.reached == 0


def test_an_mcp_call_of_a_tool_that_the_user_may_use(proxy: Envoy) -> None:
    """Reaches the MCP server, body and all."""
    body = call("echo")
    response = proxy.request("POST", "/mcp", {**JSON, "x-sark-user": "bob"}, body)
    assert response.status == 200
    assert response.json()["body"] == body.decode()


@pytest.mark.parametrize(
    ("user", "tool", "call_id"),
    [("bob", "drop_database", 7), ("carol", "search_code", "a-1"), ("bob", "unheard_of", 8)],
)
def test_an_mcp_call_of_another_tool_is_answered_with_a_json_rpc_error(
    user: str, tool: str, call_id: object, proxy: Envoy
) -> None:
    """Under the id of the call, so that the client knows which one failed."""
    proxy.upstream.reached = 0
    response = proxy.request("POST", "/mcp", {**JSON, "x-sark-user": user}, call(tool, call_id))
    assert response.status == 200
    assert response.header("content-type") == ["application/json"]
    answer = response.json()
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", call_id)
    assert isinstance(answer["error"]["code"], int)
    assert answer["error"]["message"]
    assert proxy.upstream.reached == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"jsonrpc": "2.0", ', 400),
        (b'{"jsonrpc": "2.0", "id": NaN}', 400),
        (b"[" * 50 + b"]" * 50, 400),
        (call("echo") + b" " * 8192, 403),
    ],
    ids=["cut off", "NaN", "too deep", "longer than Envoy sends"],
)
def test_a_body_that_cannot_be_judged_is_refused(body: bytes, status: int, proxy: Envoy) -> None:
    """Even by an Envoy that lets requests through when the decision point fails."""
    proxy.upstream.reached = 0
    response = proxy.request("POST", "/mcp", {**JSON, "x-sark-user": "bob"}, body)
    assert response.status == status
    assert response.body
    assert proxy.upstream.reached == 0


@pytest.mark.parametrize(("failure_mode_allow", "status"), [(False, 403), (True, 200)])
def test_without_a_sidecar_envoy_does_as_it_is_told(
    failure_mode_allow: bool, status: int, start_envoy: StartEnvoy
) -> None:
    """Nobody answers, so it is for the operator to say; by default the request is refused."""
    proxy = start_envoy(f"127.0.0.1:{free_port()}", {"failure_mode_allow": failure_mode_allow})
    assert proxy.request("GET", "/health").status == status
    assert proxy.upstream.reached == int(failure_mode_allow)


def test_over_a_unix_socket(serve: Serve, start_envoy: StartEnvoy, short_dir: Path) -> None:
    """No port, and permissions of the file system."""
    served = serve({"listen.grpc": f"unix://{short_dir}/pdp.sock"})
    served.wait_ready()
    proxy = start_envoy(served.grpc, {"failure_mode_allow": True})
    assert proxy.request("GET", "/health").status == 200
    assert proxy.request("GET", "/nowhere").status == 403


POLICY = """
package istio.authz

import input.attributes.request.http as http_request
import input.parsed_path

# METADATA
# entrypoint: true
allow := {
	"allowed": true,
	"headers": {"x-ext-auth-allow": "yes", "x-user": claims.sub},
	"request_headers_to_remove": ["authorization"],
	"response_headers_to_add": {"x-decided": "yes"},
	"dynamic_metadata": {"tier": "gold"},
} if {
	parsed_path == ["people", claims.sub]
	http_request.method == "GET"
}

allow := {
	"allowed": false,
	"headers": {"www-authenticate": "Bearer"},
	"body": "Unauthorized Request",
	"http_status": 401,
} if not claims.sub

claims := {"sub": name} if {
	["Bearer", name] = split(http_request.headers.authorization, " ")
}
"""


@pytest.fixture(scope="module")
def plugin_bundle(sark_pdp: Path, opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy as people have it for OPA's Envoy plugin."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "policy").mkdir()
    (folder / "policy" / "policy.rego").write_text(POLICY)
    bundle = folder / "bundle.tar.gz"
    command: list[str | Path] = [
        sark_pdp,
        "bundle",
        "build",
        folder / "policy",
        "--output",
        bundle,
        "--revision",
        "plugin-1",
        "--opa",
        opa,
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return bundle


def test_a_policy_of_opas_plugin_decides_as_it_did_there(
    plugin_bundle: Path, sark_pdp: Path, serve: Serve, start_envoy: StartEnvoy
) -> None:
    """With what it says about headers, and a decision id in Envoy's log that the audit trail knows."""
    served = serve(
        {
            "policy.bundles": [{"name": "plugin", "path": str(plugin_bundle)}],
            "policy.entrypoint": "istio/authz/allow",
            "policy.ext_authz_entrypoint": "istio/authz/allow",
        }
    )
    served.wait_ready()
    proxy = start_envoy(served.grpc)
    request_id = str(uuid.uuid4())
    sent = {"authorization": "Bearer bob", "x-user": "forged", "x-request-id": request_id, "user-agent": "probe/1"}
    allowed = proxy.request("GET", "/people/bob", sent)
    assert allowed.status == 200
    assert allowed.header("x-decided") == ["yes"]
    seen = dict(allowed.json()["headers"])
    assert (seen["x-user"], seen["x-ext-auth-allow"]) == ("bob", "yes")
    assert "authorization" not in seen

    refused: Response = proxy.request("GET", "/people/bob")
    assert (refused.status, refused.body) == (401, b"Unauthorized Request")
    assert refused.header("www-authenticate") == ["Bearer"]
    undefined = proxy.request("GET", "/people/bob", {"authorization": "Bearer eve"})
    assert undefined.status == 403
    assert undefined.body

    metadata = proxy.wait_logged(request_id)["metadata"]
    assert (metadata["tier"], metadata["policy_revision"]) == ("gold", "plugin-1")
    assert served.stop() == 0
    event = audited(sark_pdp, served, metadata["decision_id"])
    assert (event["decision"], event["policy_revision"]) == ("allow", "plugin-1")
    assert (event["ip_address"], event["user_agent"]) == ("127.0.0.1", "probe/1")
    assert event["request_id"] == request_id
