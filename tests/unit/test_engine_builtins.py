"""Built-ins that the host runs for a policy: what they are given, what they may raise, which ones are missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.engine.policies import load
from sark_pdp.engine.wasm import policy as policy_module
from sark_pdp.engine.wasm.builtins import UNDEFINED, BuiltinError
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy, required_builtins
from sark_pdp.errors import BundleError, EvaluationError
from sark_pdp.model import Seconds
from tests.fix_engine import MEBI, Compile, StillClock, a_bundle, a_runtime, ask, reads_everything

HOST = """package h

text := sprintf("%v %v", [input.a, input.b])

called := sprintf("%v", [input])

twice := [time.now_ns(), time.now_ns()]

safe := {"text": object.get({"x": sprintf(input.format, [1])}, "x", "none")}

otherwise := sprintf(input.format, [1])

otherwise := "undefined" if not sprintf(input.format, [1])

plain := input.a
"""
HOST_ENTRYPOINTS = ("h/text", "h/called", "h/twice", "h/safe", "h/otherwise", "h/plain")
REFUSED = """package r

a := http.send({"method": "GET", "url": input.url})

b := graphql.is_valid(input.x, input.y)

c := opa.runtime()

d := sprintf("%d", [input.n])
"""


class Sprintf:
    """Stands in for the built-in: keeps what it was given, and does what the test says."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.does: Any = "done"

    def __call__(self, _context: Any, _format: Any, values: Any) -> Any:
        self.given.append(values)
        if isinstance(self.does, BaseException):
            raise self.does
        return self.does


@pytest.fixture
def sprintf(monkeypatch: pytest.MonkeyPatch) -> Sprintf:
    stand_in = Sprintf()
    monkeypatch.setattr(policy_module, "resolve", lambda names: dict.fromkeys(names, stand_in))
    return stand_in


@pytest.fixture
def wasm(compile_rego: Compile) -> bytes:
    return compile_rego(HOST, HOST_ENTRYPOINTS)


@pytest.fixture
def clock() -> StillClock:
    return StillClock(1)


@pytest.fixture
def slow_runtime(clock: StillClock, compiled_folder: Path) -> Iterator[Runtime]:
    with a_runtime(compiled_folder, Seconds(30.0), 16 * MEBI, clock) as made:
        yield made


VALUES: list[Any] = [
    {"a": "x\x00y", "b": [1, 1.5, None, True]},
    {"a": {"deep": {"deeper": ["grüße 😀"]}}, "b": 123456789012345678901234567890},
    {"a": "x" * 1000, "b": ["y" * 1000] * 200},
]


@pytest.mark.parametrize("value", VALUES)
def test_operands_and_results_pass_as_they_are(
    slow_runtime: Runtime, wasm: bytes, sprintf: Sprintf, value: Any
) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    sprintf.does = value
    assert ask(policy, "h/called", value) == value
    assert sprintf.given == [[value]]


def test_a_result_may_need_more_memory_than_there_is_yet(slow_runtime: Runtime, wasm: bytes, sprintf: Sprintf) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    sprintf.does = "x" * MEBI
    assert ask(policy, "h/called", {}) == sprintf.does


def test_a_result_larger_than_the_memory_ends_the_evaluation(
    slow_runtime: Runtime, wasm: bytes, sprintf: Sprintf
) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    sprintf.does = "x" * 20 * MEBI
    with pytest.raises(EvaluationError, match=r"limits\.wasm_memory$"):
        ask(policy, "h/called", {})
    sprintf.does = "done"
    assert ask(policy, "h/called", {}) == "done"


@pytest.mark.parametrize("does", [UNDEFINED, BuiltinError("no"), BuiltinError("")])
def test_a_built_in_without_a_result_is_undefined(
    slow_runtime: Runtime, wasm: bytes, sprintf: Sprintf, does: Any
) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    sprintf.does = does
    assert ask(policy, "h/called", {}) is None
    assert ask(policy, "h/otherwise", {"format": "%d"}) == "undefined"


@pytest.mark.parametrize("does", [ZeroDivisionError("secret"), KeyError("secret"), MemoryError(), KeyboardInterrupt()])
def test_a_built_in_that_breaks_ends_the_evaluation_and_tells_its_kind_only(
    slow_runtime: Runtime, wasm: bytes, sprintf: Sprintf, does: BaseException
) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    sprintf.does = does
    with pytest.raises(EvaluationError, match=f"^a built-in failed: {type(does).__name__}$"):
        ask(policy, "h/called", {})
    sprintf.does = "done"
    assert ask(policy, "h/called", {}) == "done"


def test_time_stands_still_within_an_evaluation_and_goes_on_between_them(
    slow_runtime: Runtime, wasm: bytes, clock: StillClock
) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    for now in (1, 1_767_268_800_123_456_789, 7):
        clock.time_ns = now
        assert ask(policy, "h/twice", {}) == [now, now]


def test_operands_of_a_wrong_type_make_it_undefined(slow_runtime: Runtime, wasm: bytes) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    assert ask(policy, "h/safe", {"format": 7}) is None
    assert ask(policy, "h/safe", {"format": "%d"}) == {"text": "1"}


def test_a_module_says_what_it_needs(wasm: bytes, general_wasm: bytes) -> None:
    assert required_builtins(wasm) == {"sprintf", "time.now_ns"}
    assert required_builtins(general_wasm) == set()


def test_a_module_that_needs_what_is_not_there_is_refused_by_name(runtime: Runtime, compile_rego: Compile) -> None:
    names = ("r/a", "r/b", "r/c", "r/d")
    bundle = a_bundle(compile_rego(REFUSED, names), reads_everything(*names))
    with pytest.raises(BundleError) as error:
        load(bundle, runtime)
    message = str(error.value)
    assert message.startswith("policy.wasm: the policy calls built-ins that this engine does not have: ")
    missing = ("graphql.is_valid", "http.send", "opa.runtime")
    assert [name for name in missing if name not in message] == []
    assert "sprintf" not in message


def test_only_a_module_that_asks_the_clock_is_not_deterministic(
    runtime: Runtime, wasm: bytes, general_wasm: bytes, compile_rego: Compile
) -> None:
    pure = compile_rego('package p\n\na := sprintf("%v", [input.a])\n', ["p/a"])
    for module, name, deterministic in ((wasm, "h/plain", False), (general_wasm, "t/yes", True), (pure, "p/a", True)):
        policies = load(a_bundle(module, reads_everything(name)), runtime)
        assert policies.entrypoint(name).deterministic is deterministic
