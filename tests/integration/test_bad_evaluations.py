"""What a policy does to harm its host ends in a recorded denial, and the next evaluation is right."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.decision.service import DecisionService
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedPolicies, load
from sark_pdp.engine.wasm import policy as policy_module
from sark_pdp.engine.wasm.builtins import resolve
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import DecisionRecord, Outcome, Seconds
from tests.fix_audit import MemorySink
from tests.fix_engine import MEBI, Compile, Loaded, a_bundle, a_question, a_runtime, reads_everything

POLICY = """package bad

fine := {"allow": true, "reason": sprintf("hello %s", [input.name])}

endless if {
	all := numbers.range(1, input.some)
	some x in all
	some y in all
	some z in all
	z < x
	x < y
	y < z
}

hungry := count(numbers.range(1, input.many))

broken := {"allow": true, "reason": sprintf(input.format, [input.name])}

large := {"allow": true, "reason": sprintf("%s%999999d%999999d", [input.name, 1, 1])}
"""
NAMES = tuple(f"bad/{name}" for name in ("fine", "endless", "hungry", "broken", "large"))
ASKED = {"name": "bob", "format": "break", "some": 3_000, "many": 100_000_000}
LONG = 60.0
HARM = [
    (2.0, "bad/endless", "the policy ran longer than limits.eval_timeout"),
    (LONG, "bad/hungry", "the policy needs more memory than limits.wasm_memory"),
    (LONG, "bad/broken", "a built-in failed: ZeroDivisionError"),
    (LONG, "bad/large", "sprintf: the text would have more than "),
]


@pytest.fixture
def runtime(request: pytest.FixtureRequest, compiled_folder: Path) -> Iterator[Runtime]:
    """Gives an evaluation as long as the test says."""
    with a_runtime(compiled_folder, Seconds(request.param), 32 * MEBI) as made:
        yield made


@pytest.fixture
def policies(runtime: Runtime, compile_rego: Compile, monkeypatch: pytest.MonkeyPatch) -> LoadedPolicies:
    """With a `sprintf` that breaks where the format says so."""

    def breaking(names: Any) -> Any:
        found = resolve(names)
        sprintf = found["sprintf"]

        def call(context: Any, template: Any, arguments: Any) -> Any:
            return 1 // 0 if template == "break" else sprintf(context, template, arguments)

        return {**found, "sprintf": call}

    monkeypatch.setattr(policy_module, "resolve", breaking)
    return load(a_bundle(compile_rego(POLICY, NAMES), reads_everything(*NAMES)), runtime)


def recorded(trail: MemorySink) -> str:
    """The id of the decision that was recorded last."""
    last = trail.records[-1]
    assert isinstance(last, DecisionRecord)
    return last.id


@pytest.mark.parametrize(("runtime", "name", "reason"), HARM, indirect=["runtime"])
def test_harm_is_a_recorded_denial_and_the_next_evaluation_is_right(
    policies: LoadedPolicies, name: str, reason: str
) -> None:
    trail = MemorySink()
    cached = CachedDecider(Evaluator(lambda *_: None), MemoryStore(100), Seconds(60.0))
    service = DecisionService(Loaded(policies), cached, trail, lambda *_: None)
    for turn in range(2):
        decision = service.decide(a_question(policies.entrypoint(name), ASKED))
        assert decision.verdict.outcome is Outcome.ERROR
        assert decision.verdict.reason.startswith(reason)
        assert recorded(trail) == decision.id
        # Another document each time, so that it is evaluated.
        right = service.decide(a_question(policies.entrypoint("bad/fine"), {"name": f"bob {turn}"}))
        assert (right.verdict.outcome, right.verdict.reason) == (Outcome.ALLOW, f"hello bob {turn}")
        assert recorded(trail) == right.id
