"""Every built-in that OPA's compiler leaves to the host is there, or refused by name with a reason."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sark_pdp.engine.wasm.builtins import resolve
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy, required_builtins
from sark_pdp.errors import BundleError
from tests.fix_engine import Compile, ask
from tests.fix_keys import certificate_of, jwk_of, private_key

REFUSED = {
    "graphql.is_valid", "graphql.parse", "graphql.parse_and_verify", "graphql.parse_query", "graphql.parse_schema",
    "graphql.schema_is_valid", "http.send", "net.lookup_ip_addr", "opa.runtime", "rego.parse_module",
}  # fmt: skip
ADDED = """package a

import rego.v1

# METADATA
# title: rule
metadata := [rego.metadata.rule(), count(rego.metadata.chain())]

token := io.jwt.encode_sign({"alg": "RS256", "typ": "JWT"}, {"iss": "me", "n": input.n}, input.key)

verified := io.jwt.decode_verify(token, {"cert": json.marshal(input.key), "iss": "me"})

modulus := crypto.x509.parse_certificates(input.certificate)[0].PublicKey.N

schema := json.match_schema({"a": input.n}, {"properties": {"a": {"type": "string"}}})

document := yaml.unmarshal(yaml.marshal({"on": [input.n, null]}))

paths := graph.reachable_paths({1: {2}, 2: set()}, {1})

rest := [
	uri.parse("http://h/p?q").hostname,
	regex.globs_match("a.*", ".*b"),
	strings.render_template("{{.n}}", {"n": input.n}),
	trace("note"),
]
"""
RULES = ("metadata", "verified", "modulus", "schema", "document", "paths", "rest")


@pytest.fixture(scope="module")
def capabilities(opa: Path) -> list[dict[str, Any]]:
    run = subprocess.run([opa, "capabilities", "--current"], capture_output=True, check=True)
    builtins: list[dict[str, Any]] = json.loads(run.stdout)["builtins"]
    return builtins


def test_a_policy_of_all_built_ins_lacks_none_but_those_that_are_refused(
    compile_rego: Compile, capabilities: list[dict[str, Any]]
) -> None:
    rules = []
    for number, builtin in enumerate(capabilities):
        declared = builtin["decl"]
        if builtin.get("infix") or builtin.get("deprecated") or "result" not in declared:
            continue
        operands = ", ".join(f"input.o{at}" for at in range(len(declared.get("args", []))))
        rules.append(f"p{number} := {builtin['name']}({operands})")
    rules.append("all := [" + ", ".join(rule.partition(" ")[0] for rule in rules) + "]")
    wanted = required_builtins(compile_rego("package t\n\nimport rego.v1\n\n" + "\n\n".join(rules) + "\n", ["t/all"]))
    assert len(wanted) > 90
    assert wanted >= REFUSED
    assert set(resolve(wanted - REFUSED)) == wanted - REFUSED
    for name in REFUSED:
        with pytest.raises(BundleError, match=rf"{name} \((?!not implemented)"):
            resolve([name])


def test_added_built_ins_work_from_within_a_module(patient_runtime: Runtime, compile_rego: Compile) -> None:
    key = private_key("RSA")
    document = {
        "n": 5,
        "key": jwk_of(key),
        "certificate": certificate_of(key).public_bytes(Encoding.PEM).decode(),
    }
    policy = WasmPolicy(patient_runtime, compile_rego(ADDED, [f"a/{rule}" for rule in RULES]), b"{}")
    results = {rule: ask(policy, f"a/{rule}", document) for rule in RULES}
    told = "Invalid type. Expected: string, given: integer"
    assert results == {
        "metadata": [{"title": "rule", "scope": "rule"}, 1],
        "verified": [True, {"alg": "RS256", "typ": "JWT"}, {"iss": "me", "n": 5}],
        "modulus": key.private_numbers().public_numbers.n,
        "schema": [False, [{"error": f"a: {told}", "type": "invalid_type", "field": "a", "desc": told}]],
        "document": {"on": [5, None]},
        "paths": [[1, 2]],
        "rest": ["h", True, "5", True],
    }
