"""A bundle's built-ins are found by name before it is activated, or it is refused with the names of those missing."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from sark_pdp.engine.wasm.builtins import NONDETERMINISTIC, Context, resolve
from sark_pdp.errors import BundleError


def test_missing_built_ins_are_all_named() -> None:
    with pytest.raises(BundleError) as refusal:
        resolve(["sprintf", "io.jwt.nope", "no.such", "time.nope", "nope", "graphql.parse"])
    message = str(refusal.value)
    assert all(name in message for name in ("io.jwt.nope", "no.such", "time.nope", "graphql.parse"))
    assert "sprintf" not in message


@pytest.mark.parametrize("name", ["http.send", "net.lookup_ip_addr", "opa.runtime"])
def test_built_ins_that_leave_the_process_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(BundleError, match=rf"{name} \(.* has no place on a sidecar's hot path"):
        resolve([name])


def test_what_the_context_says_is_what_the_policy_sees() -> None:
    builtins = resolve(["time.now_ns", "rand.intn"])
    assert builtins["time.now_ns"](Context(42, Random(1))) == 42
    assert builtins["rand.intn"](Context(0, Random(1)), "x", 10**9) == Random(1).randrange(10**9)


def test_every_built_in_that_opa_calls_nondeterministic_is_known_as_such(opa: Path) -> None:
    run = subprocess.run([opa, "capabilities", "--current"], capture_output=True, check=True)
    flagged = {builtin["name"] for builtin in json.loads(run.stdout)["builtins"] if builtin.get("nondeterministic")}
    assert len(flagged) > 5
    assert flagged <= NONDETERMINISTIC


def test_only_the_namespaces_that_a_policy_needs_are_imported() -> None:
    program = (
        "import sys; from sark_pdp.engine.wasm.builtins import resolve; resolve(['sprintf', 'hex.encode']); "
        "print([name for name in ('re2', 'zoneinfo', 'hashlib', 'fractions') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
