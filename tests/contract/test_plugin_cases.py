"""Policies written for OPA's Envoy plugin answer here as they answered there: from the same bundle, and from ours.

Every case is sent to a real process, as a `CheckRequest` of a route that names its entrypoint.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf import json_format

from sark_pdp.transport.ext_authz import CHECK
from tests.fix_serve import Sidecar

pytestmark = pytest.mark.carried

FILE = yaml.safe_load((Path(__file__).parent.parent / "cases" / "ext_authz" / "plugin.yaml").read_text())
CASES = {f"{case['policy']}: {case['name']}": case for case in FILE["cases"]}
ENTRYPOINTS = {name: f"envoy/{name}/allow" for name in FILE["policies"]}

SECRET = "not so secret, but long enough for it"
TOKENS = {
    "@admin": jwt.encode({"iss": "shop", "sub": "bob", "role": "admin"}, SECRET),
    "@guest": jwt.encode({"iss": "shop", "sub": "alice", "role": "guest"}, SECRET),
    "@foreign": jwt.encode({"iss": "elsewhere", "sub": "eve", "role": "guest"}, SECRET),
    "@forged": jwt.encode({"iss": "shop", "sub": "eve", "role": "guest"}, f"another {SECRET}"),
}


def write_policies(folder: Path) -> None:
    """As somebody has them for the plugin."""
    for name, source in FILE["policies"].items():
        (folder / f"{name}.rego").write_text(source)
    (folder / "data.json").write_text(json.dumps(FILE["data"]))


def request_of(case: dict[str, Any], **extensions: str) -> CheckRequest:
    """With the tokens that it names."""
    attributes = json.dumps(case["attributes"])
    for name, token in TOKENS.items():
        attributes = attributes.replace(name, token)
    check: CheckRequest = json_format.ParseDict({"attributes": json.loads(attributes)}, CheckRequest())
    check.attributes.context_extensions.update(extensions)
    return check


def told(check: CheckResponse, *, joined: bool) -> dict[str, Any]:
    """The answer in the words of the cases; with `joined`, request headers are lists that were joined."""
    metadata = json_format.MessageToDict(check.dynamic_metadata)
    metadata.pop("decision_id", None)
    metadata.pop("policy_revision", None)
    answer: dict[str, Any] = {"allowed": check.status.code == 0, "metadata": metadata}
    if answer["allowed"]:
        assert not check.HasField("denied_response")
        ok = check.ok_response
        headers = grouped((option.header.key, option.header.value) for option in ok.headers)
        if joined:
            headers = {name: value.split(",") for name, [value] in headers.items()}
        return answer | {
            "headers": headers,
            "remove": list(ok.headers_to_remove),
            "response_headers": grouped((each.header.key, each.header.value) for each in ok.response_headers_to_add),
            "set": grouped((each.key, each.value) for each in ok.query_parameters_to_set),
            "unset": list(ok.query_parameters_to_remove),
        }
    assert not check.HasField("ok_response")
    denied = check.denied_response
    return answer | {
        "headers": grouped((option.header.key, option.header.value) for option in denied.headers),
        "http_status": denied.status.code or 403,
        "body": denied.body,
    }


def grouped(pairs: Any) -> dict[str, list[str]]:
    """Values by name."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def wanted(case: dict[str, Any], got: dict[str, Any], *, body: str | None) -> dict[str, Any]:
    """What the case says of everything in an answer; `body` where it states none, None for any text."""
    nothing = {name: type(value)() for name, value in got.items()}
    stated = {"http_status": 403, **case["answer"]} if not got["allowed"] else case["answer"]
    if "body" in got and stated.get("body", "any") == "any":
        stated = {**stated, "body": got["body"] if body is None or "body" in stated else body}
    return nothing | stated


@pytest.fixture(scope="module", params=["opa build", "sark-pdp bundle build"])
def bundle(request: pytest.FixtureRequest, opa: Path, sark_pdp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keyed by the whole input, or by what each entrypoint reads of it."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "policies").mkdir()
    write_policies(folder / "policies")
    entrypoints = [f"--entrypoint={name}" for name in ENTRYPOINTS.values()]
    command: list[str | Path] = [opa, "build", "--target=wasm", "--output=bundle.tar.gz", *entrypoints, "policies"]
    if request.param != "opa build":
        command = [sark_pdp, "bundle", "build", "policies", "--opa", opa, "--output", "bundle.tar.gz", *entrypoints]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "bundle.tar.gz"


@pytest.fixture(scope="module")
def channel(bundle: Path, sark_pdp: Path) -> Iterator[grpc.Channel]:
    """To a process that serves it."""
    settings = {
        "policy.bundles": [{"name": "plugin", "path": str(bundle)}],
        "policy.entrypoint": ENTRYPOINTS["roles"],
        "policy.ext_authz_entrypoint": ENTRYPOINTS["roles"],
        "policy.ext_authz_allowed": list(ENTRYPOINTS.values()),
    }
    with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as folder:
        served = Sidecar(sark_pdp, Path(folder), settings)
        served.start()
        try:
            served.wait_ready()
            with grpc.insecure_channel(served.grpc) as made:
                yield made
            assert served.stop() == 0
        finally:
            served.kill()


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_that_of_the_plugin(name: str, channel: grpc.Channel) -> None:
    """Evaluated and, where it is kept, from the cache."""
    case = CASES[name]
    call: Any = channel.unary_unary(CHECK)
    message = request_of(case, sark_entrypoint=ENTRYPOINTS[case["policy"]]).SerializeToString()
    for _ in range(2):
        check = CheckResponse.FromString(call(message, timeout=30))
        got = told(check, joined=True)
        if case["answer"].get("error"):
            # There, the call fails.
            assert (got["allowed"], got["http_status"]) in [(False, 403), (False, 500)]
        else:
            assert got == wanted(case, got, body=check.status.message)
