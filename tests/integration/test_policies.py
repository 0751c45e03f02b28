"""The policies of `policies/`: the cases as OPA and as the engine decide them, and what holds for every document."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.bundle import Bundle
from sark_pdp.engine.opa import Opa
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.model import Json, Seconds
from sark_pdp.projection import Path as JsonPath
from sark_pdp.projection import Projection

ROOT = Path(__file__).parent.parent.parent
POLICIES = ROOT / "policies"
CASES: dict[str, dict[str, Any]] = {
    f"{file.stem}: {case['name']}": case
    for file in sorted((ROOT / "tests" / "cases").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())["cases"]
}
LIMIT = 64 * 1024 * 1024

Evaluate = Callable[[str, dict[str, Any], int], Json]
"""What an entrypoint returns for a document at a time, in nanoseconds since the epoch."""


class _Clock:
    now = 0

    def now_ns(self) -> int:
        return self.now


@pytest.fixture(scope="module")
def bundle(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("policies") / "bundle.tar.gz"
    return build_bundle(POLICIES, output, opa=Opa(str(opa)), entrypoints=[], revision=None, report=lambda _: None)


@pytest.fixture(scope="module")
def evaluate(bundle: Bundle) -> Iterator[Evaluate]:
    """Through the engine, given no more than what the entrypoint reads."""
    clock = _Clock()
    runtime = Runtime(eval_timeout=Seconds(10.0), memory_limit=LIMIT, clock=clock)
    entrypoints = {}
    for module in bundle.modules:
        policy = WasmPolicy(runtime, module.wasm, json.dumps(bundle.data).encode())
        for entrypoint in module.entrypoints:
            entrypoints[entrypoint.name] = (policy, Projection(entrypoint.reads_input))

    def ask(name: str, document: dict[str, Any], now: int) -> Json:
        policy, projection = entrypoints[name]
        clock.now = now
        read = projection.project(document)
        result = policy.evaluate(policy.entrypoint(name), json.dumps(read).encode())
        return None if result is None else json.loads(result)

    yield ask
    runtime.close()


@pytest.fixture(scope="module")
def oracle(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """What OPA says to each case, by file and name."""
    file = tmp_path_factory.mktemp("oracle") / "oracle.rego"
    rules = [
        f"results[{json.dumps(name)}] := x if {{ x := data.{case['entrypoint'].replace('/', '.')} "
        f"with input as {json.dumps(case['input'])} with time.now_ns as {_now(case)} }}"
        for name, case in CASES.items()
    ]
    file.write_text("package oracle\n\n" + "\n".join(rules))
    run = subprocess.run(
        [opa, "eval", "--format=json", "--bundle", POLICIES, "--data", file, "data.oracle.results"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    results: dict[str, Json] = json.loads(run.stdout)["result"][0]["expressions"][0]["value"]
    return results


def _now(case: dict[str, Any]) -> int:
    # A case that states no time must not depend on it.
    return int(datetime.fromisoformat(case["now"]).timestamp() * 1000) * 1_000_000 if "now" in case else 0


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, oracle: dict[str, Json], evaluate: Evaluate) -> None:
    """OPA and the engine decide alike, and as the case says."""
    case = CASES[name]
    got = _comparable(evaluate(case["entrypoint"], case["input"], _now(case)))
    assert got == _comparable(oracle.get(name))
    want = dict(case["want"])
    # What the transport makes of it.
    want.pop("answered", None)
    allow = want.pop("allow")
    assert want.pop("outcome") == ("allow" if allow else "deny")
    assert got.get("allow", got.get("allowed")) is allow
    assert {field: got.get(field) for field in want} == want


def _comparable(result: Json) -> Json:
    """Bodies decoded: the order of an object's keys means nothing."""
    if isinstance(result, dict) and "body" in result:
        return {**result, "body": json.loads(result["body"])}
    return result


def test_only_the_clock_is_asked_of_the_host(bundle: Bundle) -> None:
    """Any other built-in of the host would be paid for by each decision."""
    runtime = Runtime(eval_timeout=Seconds(10.0), memory_limit=LIMIT, clock=_Clock())
    for module in bundle.modules:
        policy = WasmPolicy(runtime, module.wasm, json.dumps(bundle.data).encode())
        assert policy.builtins <= {"time.now_ns", "time.clock", "time.weekday"}
    runtime.close()


def test_what_is_read_is_narrow(bundle: Bundle) -> None:
    """No entrypoint reads the values of parameters, the time that a caller states, or all of anything."""
    reads = {e.name: set(e.reads_input) for module in bundle.modules for e in module.entrypoints}
    assert set(reads) == {"sark/mcp/decision", "envoy/authz/allow"}
    for paths in reads.values():
        assert not {path[0] for path in paths} & {"parameters", "request_id"}
        assert ("context", "timestamp") not in paths
        # Of a message the policy asks for other spellings of these names, too.
        of_message = {
            tuple(step.casefold() for step in path[1:])
            for path in paths
            if path[0] == "parsed_body" and path[1:2] not in {("jsonrpc",), ("method",)}
        }
        assert of_message <= {
            ("method",),
            ("params",),
            ("params", "name"),
            ("params", "uri"),
            ("params", "ref"),
            ("params", "ref", "type"),
            ("params", "ref", "name"),
            ("params", "ref", "uri"),
            ("params", "notifications"),
        }
        assert ("parsed_body", "params") not in paths
        # Each call has an id of its own: an answer that depends on it is of no use to another.
        assert not {path for path in paths if path[-1] == "id" and path[0] in {"attributes", "parsed_body"}}
        whole = {"user", "tool", "server", "context", "attributes", "parsed_body", "source_agent", "target_agent"}
        assert not {path for path in paths if len(path) == 1 and path[0] in whole}


# Words that mean something to these policies, and values that no policy expects.
_WORDS = st.sampled_from(
    [
        # actions
        "tool:invoke",
        "tool:list",
        "server:list",
        "server:register",
        "agent:query",
        "agent:delegate",
        "resource:read",
        "prompt:list",
        # users, roles
        "bob",
        "mallory",
        "developer",
        "viewer",
        "oncall",
        # levels, environments, visibilities, teams
        "low",
        "medium",
        "high",
        "critical",
        "secret",
        "production",
        "moon",
        "internal",
        "private",
        "support",
        # tools
        "payments",
        "echo",
        "deploy",
        "run_shell",
        # what Envoy sends
        "customer_lookup",
        "tools/call",
        "tools/list",
        "resources/read",
        "completion/complete",
        "subscriptions/listen",
        "ref/prompt",
        "summarize",
        "docs://a",
        "POST",
        "GET",
        "health",
        "orders",
        "mcp",
        # the rest
        "2.0",
        "true",
        "search",
        "trusted",
        "active",
    ]
)
_VALUES = st.recursive(
    st.one_of(_WORDS, _WORDS, st.none(), st.booleans(), st.integers(-2, 2), st.floats(-2, 2), st.just("")),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_WORDS, below, max_size=2),
    max_leaves=3,
)


@pytest.mark.parametrize("name", ["sark/mcp/decision", "envoy/authz/allow"])
def test_every_document_gets_a_decision_with_a_reason(name: str, bundle: Bundle, evaluate: Evaluate) -> None:
    """Whatever a caller leaves out or sends in its place."""
    paths = next(e.reads_input for module in bundle.modules for e in module.entrypoints if e.name == name)

    @settings(max_examples=120)
    @given(_documents(paths), st.integers(1_700_000_000, 1_800_000_000))
    def check(document: dict[str, Any], seconds: int) -> None:
        result = evaluate(name, document, seconds * 1_000_000_000)
        assert result is not None
        assert type(result.get("allow", result.get("allowed"))) is bool
        assert result["reason"]
        assert 0 <= result["cache_ttl"] <= 60

    check()


def _documents(paths: tuple[JsonPath, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents that have some of the paths, or something else where a path would go on."""

    @st.composite
    def documents(draw: st.DrawFn) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for path in paths:
            if draw(st.booleans()):
                below = document
                for step in path[:-1]:
                    below = below.setdefault(step, {})
                below[path[-1]] = draw(_VALUES)
        for key in list(document):
            if draw(st.integers(0, 19)) == 0:
                document[key] = draw(_VALUES)
        return document

    return documents()
