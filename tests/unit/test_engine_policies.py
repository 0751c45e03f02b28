"""What a bundle becomes when it is activated: entrypoints, live data, and fingerprints of all that shapes a result."""

import time
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedPolicies, Policies, load
from sark_pdp.engine.preparation import Prepared, combine
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.errors import BundleActivationError, BundleError, EvaluationError, NotReadyError, UnknownEntrypointError
from sark_pdp.model import Decision, Outcome, Request, Seconds, Tier
from sark_pdp.projection import Path as JsonPath
from sark_pdp.settings import default_bundle
from tests.fix_engine import Compile, a_bundle, a_question, prepared, reads_everything

ROLES = {"live": {"roles": {"dev": 1}}}
Reads: TypeAlias = dict[str, tuple[list[JsonPath], list[JsonPath]]]

READS_ROLES: Reads = {"t/role": ([("role",)], [("live", "roles")])}


@pytest.fixture
def runtime(patient_runtime: Runtime) -> Runtime:
    """Nothing here is about the time that an evaluation takes."""
    return patient_runtime


def fingerprint(
    runtime: Runtime, wasm: bytes, reads: Reads, data: Any, name: str = "t/role", revision: str = "r1"
) -> bytes:
    return load(a_bundle(wasm, reads, data, revision), runtime).entrypoint(name).fingerprint


def returned(policies: LoadedPolicies, name: str, document: Any) -> Any:
    entrypoint = policies.entrypoint(name)
    raw = entrypoint.evaluate(msgspec.json.encode(entrypoint.projection.project(document)))
    return None if raw is None else msgspec.json.decode(raw)


def test_an_entrypoint_tells_what_data_it_can_read(runtime: Runtime, general_wasm: bytes) -> None:
    """What an invalidation of data goes by."""
    loaded = load(a_bundle(general_wasm, READS_ROLES, ROLES, "r1"), runtime)
    assert loaded.entrypoint("t/role").reads_data == (("live", "roles"),)


def test_the_fingerprint_changes_with_what_is_read_and_with_nothing_else(
    runtime: Runtime, general_wasm: bytes, compile_rego: Compile
) -> None:
    known = fingerprint(runtime, general_wasm, READS_ROLES, ROLES)
    assert len(known) == 32
    unread = {"live": {"roles": {"dev": 1}, "teams": {"a": 2}}, "other": 7}
    reordered = {"live": {"teams": {}, "roles": {"dev": 1}}}
    for data, revision in ((ROLES, "r2"), (unread, "r1"), (reordered, "")):
        assert fingerprint(runtime, general_wasm, READS_ROLES, data, revision=revision) == known
    for roles in ({}, {"dev": 2}, {"dev": 1.0}, {"dev": True}, {"dev": "1"}, {"dev": None}, {"dev": 1, "ops": 1}):
        assert fingerprint(runtime, general_wasm, READS_ROLES, {"live": {"roles": roles}}) != known
    assert fingerprint(runtime, general_wasm, READS_ROLES, {}) != known
    both: Reads = {**READS_ROLES, "t/yes": ([()], [("live", "roles")])}
    assert fingerprint(runtime, general_wasm, both, ROLES) == known
    assert fingerprint(runtime, general_wasm, both, ROLES, name="t/yes") != known
    other = compile_rego("package t\n\nimport data.live\n\nrole := live.roles[input.role]\n", ["t/role"])
    assert fingerprint(runtime, other, READS_ROLES, ROLES) != known


def test_data_counts_as_it_is_in_the_bundle(runtime: Runtime, general_wasm: bytes) -> None:
    for roles in ({"dev": ["read"]}, {"dev": ["read", "write"]}, {}):
        policies = load(a_bundle(general_wasm, READS_ROLES, {"live": {"roles": roles}}), runtime)
        assert returned(policies, "t/role", {"role": "dev"}) == roles.get("dev")


def test_only_data_that_is_read_is_loaded(runtime: Runtime, general_wasm: bytes) -> None:
    reads: Reads = {"t/all_data": ([], [("live", "roles"), ("live", "gone")])}
    data = {"live": {"roles": {"dev": 1}, "secret": 2}, "other": "x" * 40_000_000}
    assert returned(load(a_bundle(general_wasm, reads, data), runtime), "t/all_data", {}) == {"roles": {"dev": 1}}


def test_a_policy_sees_only_the_input_that_it_is_said_to_read(runtime: Runtime, general_wasm: bytes) -> None:
    policies = load(a_bundle(general_wasm, {"t/whole": ([("user", "id"), ("tool",)], [])}), runtime)
    document = {"user": {"id": "eve", "secret": 1}, "tool": {"name": "x"}, "request_id": "7"}
    assert returned(policies, "t/whole", document) == {"user": {"id": "eve"}, "tool": {"name": "x"}}


def test_an_entrypoint_that_the_module_lacks_is_refused(runtime: Runtime, general_wasm: bytes) -> None:
    with pytest.raises(BundleError, match=r"^bundle [^ ]+: policy\.wasm: the module has no entrypoint 't/gone'"):
        load(a_bundle(general_wasm, reads_everything("t/gone")), runtime)


def test_nothing_is_known_before_the_first_activation(runtime: Runtime) -> None:
    policies = Policies(runtime)
    with pytest.raises(NotReadyError):
        policies.active()
    with pytest.raises(NotReadyError):
        policies.entrypoint("t/yes")


def test_a_bad_bundle_leaves_the_active_one(runtime: Runtime, tmp_path: Path) -> None:
    policies = Policies(runtime)
    active = policies.activate(prepared(default_bundle()))
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(default_bundle().read_bytes()[:1000])
    with pytest.raises(BundleError):
        policies.activate(prepared(bad))
    assert policies.active() is active
    with pytest.raises(UnknownEntrypointError, match="the loaded ones are envoy/authz/allow, sark/mcp/decision"):
        policies.entrypoint("sark/mcp/other")


Observed = list[tuple[str, Outcome, Seconds]]
OUTCOMES: list[tuple[str, Any, Outcome, str]] = [
    ("t/yes", {"user": {"id": "alice"}}, Outcome.ALLOW, "allowed by the policy"),
    ("t/no", {"user": {"id": "alice"}}, Outcome.DENY, "denied by the policy"),
    ("t/yes", {}, Outcome.UNDEFINED, "the policy does not decide on this input"),
    ("t/answer", {"name": "bob"}, Outcome.ALLOW, "hello bob"),
    ("t/whole", {}, Outcome.DENY, "the policy returned no decision"),
    ("t/whole", {"allow": "yes"}, Outcome.ERROR, "the policy returned an unusable result: allow is not a boolean"),
]


@pytest.mark.parametrize(("name", "document", "outcome", "reason"), OUTCOMES)
def test_the_evaluator_makes_a_decision_of_a_result(
    runtime: Runtime, general_wasm: bytes, name: str, document: Any, outcome: Outcome, reason: str
) -> None:
    observed: Observed = []
    entrypoint = load(a_bundle(general_wasm, reads_everything(name)), runtime).entrypoint(name)
    evaluator = Evaluator(lambda *seen: observed.append(seen))
    decision = evaluator.decide(a_question(entrypoint, document))
    assert (decision.verdict.outcome, decision.verdict.reason) == (outcome, reason)
    assert (decision.tier, decision.projected) == (Tier.EVALUATED, document)
    assert not decision.reusable
    assert [seen[:2] for seen in observed] == [(name, outcome)]
    assert observed[0][2] == decision.age


@pytest.mark.parametrize(("name", "document"), [("t/conflict", {"left": 1, "right": 1}), ("t/text", {"text": "/w=="})])
def test_an_evaluation_that_fails_is_observed(runtime: Runtime, general_wasm: bytes, name: str, document: Any) -> None:
    observed: Observed = []
    entrypoint = load(a_bundle(general_wasm, reads_everything(name)), runtime).entrypoint(name)
    with pytest.raises(EvaluationError, match=r"the policy (aborted|returned a result that is not JSON)"):
        Evaluator(lambda *seen: observed.append(seen)).decide(a_question(entrypoint, document))
    assert [seen[:2] for seen in observed] == [(name, Outcome.ERROR)]


def test_an_entrypoint_that_was_slow_is_not_tried_at_once_until_it_has_been_quick(
    patient_runtime: Runtime, general_wasm: bytes
) -> None:
    observed: Observed = []
    policies = load(a_bundle(general_wasm, reads_everything("t/loop", "t/yes")), patient_runtime)
    evaluator = Evaluator(lambda *seen: observed.append(seen))
    quick = a_question(policies.entrypoint("t/loop"), {"many": ["a"]})
    slow = a_question(policies.entrypoint("t/loop"), {"many": ["a"] * 40})
    assert evaluator.decide_nowait(slow) is None
    assert observed == []
    evaluator.decide(slow)
    for _ in range(10):
        evaluator.decide(quick)
        assert evaluator.decide_nowait(quick) is None
    # Another entrypoint of the same module is not concerned.
    at_once(evaluator, a_question(policies.entrypoint("t/yes"), {"user": {"id": "alice"}}))
    assert at_once(evaluator, quick).verdict.outcome is Outcome.UNDEFINED


def at_once(evaluator: Evaluator, request: Request) -> Decision:
    """The answer of the first attempt that is quick enough; on a busy machine that may take some."""
    end = time.monotonic() + 30
    while (decision := evaluator.decide_nowait(request)) is None:
        assert time.monotonic() < end
        evaluator.decide(request)
    return decision


def test_what_fails_at_once_is_observed_and_the_next_one_needs_a_new_instance(
    patient_runtime: Runtime, general_wasm: bytes
) -> None:
    observed: Observed = []
    evaluator = Evaluator(lambda *seen: observed.append(seen))
    policies = load(a_bundle(general_wasm, reads_everything("t/conflict", "t/yes")), patient_runtime)
    failing = a_question(policies.entrypoint("t/conflict"), {"left": 1, "right": 1})
    question = a_question(policies.entrypoint("t/yes"), {"user": {"id": "alice"}})
    at_once(evaluator, question)
    observed.clear()
    with pytest.raises(EvaluationError, match="the policy aborted"):
        at_once(evaluator, failing)
    assert {seen[:2] for seen in observed} == {("t/conflict", Outcome.ERROR)}
    # To make an instance takes too long.
    assert evaluator.decide_nowait(question) is None
    assert evaluator.decide(question).verdict.outcome is Outcome.ALLOW
    assert at_once(evaluator, question).verdict.outcome is Outcome.ALLOW


def test_a_long_input_is_not_evaluated_at_once(patient_runtime: Runtime, general_wasm: bytes) -> None:
    evaluator = Evaluator(lambda *_: None)
    entrypoint = load(a_bundle(general_wasm, reads_everything("t/size")), patient_runtime).entrypoint("t/size")
    for length, known in ((16_000, True), (17_000, False)):
        request = a_question(entrypoint, {"many": ["x" * length]})
        decision = at_once(evaluator, request) if known else evaluator.decide_nowait(request)
        assert (decision is not None) is known


def test_the_same_result_is_the_same_verdict(runtime: Runtime, general_wasm: bytes) -> None:
    """So that whoever encodes verdicts knows it again."""
    evaluator = Evaluator(lambda *_: None)
    entrypoint = load(a_bundle(general_wasm, reads_everything("t/answer")), runtime).entrypoint("t/answer")
    asked = ("bob", "bob", "eve", "bob")
    verdicts = [evaluator.decide(a_question(entrypoint, {"name": name})).verdict for name in asked]
    assert [verdict.reason for verdict in verdicts] == [f"hello {name}" for name in asked]
    assert verdicts[0] is verdicts[1] is verdicts[3]


def test_a_document_is_projected_once_where_a_layer_above_has_done_it(runtime: Runtime, general_wasm: bytes) -> None:
    entrypoint = load(a_bundle(general_wasm, reads_everything("t/whole")), runtime).entrypoint("t/whole")
    request = a_question(entrypoint, {"a": 1}, projected={"b": 2})
    decision = Evaluator(lambda *_: None).decide(request)
    assert decision.verdict.result == {"b": 2}
    assert decision.projected is request.projected


def test_what_is_replaced_is_freed_and_what_is_the_same_goes_on(runtime: Runtime, general_wasm: bytes) -> None:
    def prepared_with(roles: Any) -> Prepared:
        return combine({"b": a_bundle(general_wasm, READS_ROLES, {"live": {"roles": roles}, "other": len(roles)})})

    policies = Policies(runtime)
    first = policies.activate(prepared_with({"dev": 1}))
    entrypoint = first.entrypoint("t/role")
    same = policies.activate(prepared_with({"dev": 1}))
    assert same is not first
    assert same.instances("t/role") == first.instances("t/role") == 1
    policies.activate(prepared_with({"dev": 2, "ops": 3}))
    assert first.instances("t/role") == 0
    # Whoever still has the former one is answered by it, and leaves nothing behind.
    assert entrypoint.evaluate(b'{"role":"dev"}') == b"1"
    assert first.instances("t/role") == 0
    assert policies.entrypoint("t/role").evaluate(b'{"role":"dev"}') == b"2"


def test_as_many_instances_are_made_as_the_former_policies_have(runtime: Runtime, general_wasm: bytes) -> None:
    policies = Policies(runtime)

    def activate(number: int) -> LoadedPolicies:
        return policies.activate(combine({"b": a_bundle(general_wasm, READS_ROLES, {"live": {"roles": number}})}))

    busy = activate(1)
    taken = [busy._modules[key] for key in busy._modules]
    taken[0].warm(4)
    assert activate(2).instances("t/role") == 4


TRIED: list[tuple[str, str | None]] = [
    ("t/nothing", None),
    ("t/conflict_always", None),
    ("t/aborts", "the entrypoint t/aborts fails on an empty input: the policy needs more memory"),
]


@pytest.mark.parametrize(("name", "problem"), TRIED)
def test_an_entrypoint_is_tried_before_it_answers(
    patient_runtime: Runtime, compile_rego: Compile, name: str, problem: str | None
) -> None:
    source = """package t

nothing if input.x

conflict_always := 1 if not input.x

conflict_always := 2 if not input.y

aborts := count([text | some x in numbers.range(1, 4000); text := [y | some y in numbers.range(1, x)]])
"""
    bundle = a_bundle(compile_rego(source, [entry for entry, _ in TRIED]), reads_everything(name))
    if problem is None:
        assert load(bundle, patient_runtime).names == (name,)
        return
    with pytest.raises(BundleActivationError, match=problem):
        load(bundle, patient_runtime)
