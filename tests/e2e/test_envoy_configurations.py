"""Configurations of the real Envoy in front of the real process; each request is also asked without Envoy."""

import copy
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf import json_format

from sark_pdp.transport.ext_authz import CHECK
from tests.fix_envoy import Envoy, running_envoy
from tests.fix_serve import Sidecar

FILE = yaml.safe_load((Path(__file__).parent.parent / "cases" / "ext_authz" / "configurations.yaml").read_text())
CONFIGURATIONS: dict[str, Any] = {each["configuration"]: each for each in FILE}
NAMED = [(name, case) for name, each in CONFIGURATIONS.items() for case in each["cases"]]
CASES = [pytest.param(name, case, id=f"{name}: {case['name']}") for name, case in NAMED]
ASKED = [pytest.param(name, case, id=f"{name}: {case['name']}") for name, case in NAMED if "attributes" in case]
_FILTER = "envoy.filters.http.ext_authz"

POLICIES = {
    "stated.rego": """
package envoy.authz

stated := json.unmarshal(input.attributes.request.http.headers["x-result"])

allow := object.union(stated, {"dynamic_metadata": {"input": input}}) if is_object(stated)

allow := {"allowed": stated, "dynamic_metadata": {"input": input}} if is_boolean(stated)
""",
    "closed.rego": """
package envoy.closed

allow := {"allowed": false, "http_status": 423, "body": "closed"}
""",
    "secret.rego": """
package envoy.secret

allow := true
""",
}


@pytest.fixture(scope="module")
def served(sark_pdp: Path, opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A process with a bundle of `opa build`."""
    folder = tmp_path_factory.mktemp("stated")
    for name, source in POLICIES.items():
        (folder / name).write_text(source)
    entrypoints = ["envoy/authz/allow", "envoy/closed/allow", "envoy/secret/allow"]
    command: list[str | Path] = [opa, "build", "--target=wasm", *(f"--entrypoint={name}" for name in entrypoints)]
    subprocess.run([*command, "--output=bundle.tar.gz", *POLICIES], cwd=folder, check=True, capture_output=True)
    settings = {
        "policy.bundles": [{"name": "stated", "path": str(folder / "bundle.tar.gz")}],
        "policy.entrypoint": "envoy/authz/allow",
        "policy.ext_authz_allowed": ["envoy/closed/allow"],
    }
    (folder / "run").mkdir()
    started = Sidecar(sark_pdp, folder / "run", settings)
    started.start()
    try:
        started.wait_ready()
        yield started
        assert started.stop() == 0
    finally:
        started.kill()


@pytest.fixture(scope="module")
def proxies(envoy: Path, served: Sidecar) -> Iterator[Callable[[str], Envoy]]:
    """An Envoy of each configuration, once."""
    known: dict[str, Envoy] = {}
    with ExitStack() as stack:

        def start(name: str) -> Envoy:
            if name not in known:
                stated = CONFIGURATIONS[name]
                known[name] = stack.enter_context(
                    running_envoy(
                        envoy,
                        served.grpc,
                        # No answer may be taken for a failure.
                        {"failure_mode_allow": True, **stated.get("filter", {})},
                        stated.get("before", ()),
                        change=lambda config: add_routes(config, stated.get("routes", [])),
                    )
                )
            return known[name]

        yield start


def add_routes(config: dict[str, Any], stated: list[dict[str, Any]]) -> None:
    """In front of the others."""
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    made = []
    for route in stated:
        one: dict[str, Any] = {"match": route["match"], "route": {"cluster": "upstream"}}
        if "metadata" in route:
            one["metadata"] = {"filter_metadata": route["metadata"]}
        if "ext_authz" in route:
            kind = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
            one["typed_per_filter_config"] = {_FILTER: {"@type": kind, **route["ext_authz"]}}
        made.append(one)
    manager["route_config"]["virtual_hosts"][0]["routes"][:0] = made


@pytest.mark.parametrize(("name", "case"), CASES)
def test_through_envoy(name: str, case: dict[str, Any], proxies: Callable[[str], Envoy]) -> None:
    """The policy is given what the case says, and client and server get what it decided."""
    proxy = proxies(name)
    proxy.upstream.reached = 0
    asked = case["request"]
    request_id = str(uuid.uuid4())
    headers = {**asked.get("headers", {}), "x-request-id": request_id}
    if "result" in case:
        headers["x-result"] = json.dumps(case["result"])
    body = asked["body"].encode() if "body" in asked else None
    response = proxy.request(asked["method"], asked["path"], headers, body)
    client = case["client"]
    assert response.status == client["status"], response
    for header, values in client.get("headers", {}).items():
        assert response.header(header) == values
    if "body" in client:
        assert response.body.decode() == client["body"]
    assert proxy.upstream.reached == ("upstream" in case)
    if "upstream" in case:
        seen, wanted = response.json(), case["upstream"]
        assert {field: seen[field] for field in ("path", "body") if field in wanted} == {
            field: wanted[field] for field in ("path", "body") if field in wanted
        }
        for header, value in wanted.get("headers", {}).items():
            assert [each for key, each in seen["headers"] if key == header] == ([] if value is None else [value])
    if "input" in case:
        given = proxy.wait_logged(request_id)["metadata"]["input"]
        require_input(case, given)
        assert contains(given["attributes"], case["attributes"])


@pytest.mark.parametrize(("name", "case"), ASKED)
def test_without_envoy(name: str, case: dict[str, Any], served: Sidecar) -> None:
    """The same attributes get the same answer."""
    attributes = copy.deepcopy(case["attributes"])
    http = attributes.setdefault("request", {}).setdefault("http", {})
    if "result" in case:
        http.setdefault("headers", {})["x-result"] = json.dumps(case["result"])
    message = json_format.ParseDict({"attributes": attributes}, CheckRequest()).SerializeToString()
    with grpc.insecure_channel(served.grpc) as channel:
        call: Any = channel.unary_unary(CHECK)
        check = CheckResponse.FromString(call(message, timeout=30))
    assert check.WhichOneof("http_response") == ("ok_response" if "upstream" in case else "denied_response")
    if "upstream" not in case:
        client = case["client"]
        denied = check.denied_response
        assert denied.status.code == client["status"]
        assert denied.body == client.get("body", denied.body)
        stated = {option.header.key.lower(): [option.header.value] for option in denied.headers}
        assert {header: stated[header] for header in client.get("headers", {})} == client.get("headers", {})
    if "input" in case:
        require_input(case, json_format.MessageToDict(check.dynamic_metadata)["input"])


def require_input(case: dict[str, Any], given: dict[str, Any]) -> None:
    """What the policy was given is what the case says."""
    for path, expected in case["input"].items():
        value: Any = given
        for step in path.split("."):
            value = value[step]
        assert value == expected


def contains(whole: Any, part: Any) -> bool:
    """Whether each value of `part` is in its place of `whole`; elements of a list may be anywhere in it."""
    if isinstance(part, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return all(any(contains(each, value) for each in whole) for value in part)
    return bool(whole == part)
