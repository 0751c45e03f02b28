"""The protos are enough for other languages: clients generated from them, in Go and TypeScript, ask a real process.

Generated is into a folder of the test, by the plugins that `make test` installs; nothing of it is committed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fix_serve import Sidecar
from tests.fix_tools import ROOT, program

SOURCES = ROOT / "tests" / "sdk"
DECISION = "sark/pdp/v1/decision.proto"
IMPORTED = (
    "google/protobuf/any.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/duration.proto",
    "google/rpc/status.proto",
)
NODE_NEEDED = 20
PATIENT = 600
"""Seconds for a compiler on a busy machine that has compiled nothing yet."""


def told(request_id: str, *, allow: bool, **parameters: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "allow": allow,
        "outcome": "OUTCOME_ALLOW" if allow else "OUTCOME_DENY",
        "told": True,
        "parameters": parameters,
    }


EXPECTED = {
    # `debug` is what the policy takes out of the parameters of this tool.
    "check": told("c-1", allow=True, customer="c-17"),
    # The third asks a policy that does not exist: NOT_FOUND.
    "batch": [told("b-1", allow=True), told("b-2", allow=False), 5],
    "stream": [told("s-1", allow=True), told("s-2", allow=False)],
    "filter": [1, 3],
}


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What protoc's plugins read: the protos and what they import."""
    file = tmp_path_factory.mktemp("proto") / "proto.binpb"
    _run([sys.executable, ROOT / "proto" / "generate.py", "--describe", file])
    return file


def _run(command: list[Any], folder: Path = ROOT, **environment: str) -> str:
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment}, timeout=PATIENT
    )
    assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
    return run.stdout


def _generate(descriptors: Path, protos: tuple[str, ...], *options: str) -> None:
    _run([sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={descriptors}", *options, *protos])


@pytest.mark.timeout(PATIENT)
def test_a_client_in_go_asks_in_every_way(sidecar: Sidecar, descriptors: Path, go: Path, tmp_path: Path) -> None:
    """Built from its own module, whose sums are committed."""
    work = shutil.copytree(SOURCES / "go", tmp_path / "go")
    options = []
    for plugin in ("go", "go-grpc"):
        binary = program(f"protoc-gen-{plugin}", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")
        options += [f"--plugin=protoc-gen-{plugin}={binary}", f"--{plugin}_out={work}"]
        options += [f"--{plugin}_opt=module=smoke,M{DECISION}=smoke/pdp"]
    _generate(descriptors, (DECISION,), *options)
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    _run([go, "vet", "."], work, **settings)
    _run([go, "build", "-o", "smoke", "."], work, **settings)
    assert json.loads(_run([work / "smoke", sidecar.grpc])) == EXPECTED


@pytest.mark.timeout(PATIENT)
def test_a_client_in_typescript_asks_in_every_way(sidecar: Sidecar, descriptors: Path, tmp_path: Path) -> None:
    """Checked by its compiler, strictly, and run by Node on @grpc/grpc-js."""
    node, modules = _node(), ROOT / ".tools" / "typescript" / "node_modules"
    work = shutil.copytree(SOURCES / "typescript", tmp_path / "typescript")
    (work / "node_modules").symlink_to(modules)
    generated = work / "generated"
    generated.mkdir()
    _generate(
        descriptors,
        (*IMPORTED, DECISION),
        f"--plugin=protoc-gen-ts_proto={modules / '.bin' / 'protoc-gen-ts_proto'}",
        f"--ts_proto_out={generated}",
        "--ts_proto_opt=outputServices=grpc-js,esModuleInterop=true,env=node,importSuffix=.js",
    )
    _run([node, modules / ".bin" / "tsc", "--project", "."], work)
    assert json.loads(_run([node, work / "out" / "main.js", sidecar.grpc])) == EXPECTED


def _node() -> str:
    """Not every machine that checks the decision point has Node; those that have it must have all the rest."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("there is no node and npm on PATH, which the client in TypeScript needs")
    version = _run([node, "--version"]).strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE_NEEDED:
        pytest.skip(f"the client in TypeScript needs Node {NODE_NEEDED}, this is {version}")
    if not (ROOT / ".tools" / "typescript" / "node_modules").is_dir():
        pytest.fail("what the client in TypeScript needs is not installed: run `make tools`", pytrace=False)
    return node


def test_the_lock_of_the_client_in_typescript_names_packages_and_no_registry() -> None:
    """Each package by version and digest; where it comes from is for whoever installs it to say."""
    packages = json.loads((SOURCES / "typescript" / "package-lock.json").read_text())["packages"]
    del packages[""]
    assert packages
    for name, package in packages.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+[\w.-]*", package["version"]), name
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
