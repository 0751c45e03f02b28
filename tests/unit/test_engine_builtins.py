"""Built-ins that the host runs for a policy: what they are given, what they may raise, which ones are missing."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sark_pdp.engine.policies import load
from sark_pdp.engine.wasm import policy as policy_module
from sark_pdp.engine.wasm.builtins import UNDEFINED, BuiltinError
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy, required_builtins
from sark_pdp.errors import BundleError, EvaluationError, WouldWaitError
from sark_pdp.model import Seconds
from tests.fix_engine import MEBI, Compile, StillClock, a_bundle, a_runtime, ask, reads_everything

HOST = """package h

text := sprintf("%v %v", [input.a, input.b])

called := sprintf("%v", [input])

twice := [time.now_ns(), time.now_ns()]

repeated := [x | some n in input.ns; x := sprintf("%v of %v", [n, input.a])]

keys := {sprintf(input.format, [n]): sprintf("%v", [n]) | some n in input.ns}

safe := {"text": object.get({"x": sprintf(input.format, [1])}, "x", "none")}

otherwise := sprintf(input.format, [1])

otherwise := "undefined" if not sprintf(input.format, [1])

plain := input.a
"""
HOST_ENTRYPOINTS = ("h/text", "h/called", "h/twice", "h/safe", "h/otherwise", "h/plain", "h/repeated", "h/keys")
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


def test_a_call_that_is_repeated_within_an_evaluation_is_made_once(
    slow_runtime: Runtime, wasm: bytes, sprintf: Sprintf
) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    for does in ("x", True, 7, None, 1.5, ["a", {"b": [1]}], "x" * 5_000, UNDEFINED, BuiltinError("no")):
        sprintf.does = does
        for turn in range(2):
            sprintf.given.clear()
            answer = ask(policy, "h/repeated", {"ns": [1, 2, 1, 1, 2], "a": turn})
            assert sprintf.given == [[1, turn], [2, turn]]
            assert answer == ([] if does is UNDEFINED or isinstance(does, BuiltinError) else [does] * 5)


def test_more_calls_than_are_remembered_are_all_made(slow_runtime: Runtime, wasm: bytes) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    numbers = list(range(2_000)) * 2
    expected = [f"{number} of é" for number in numbers]
    assert ask(policy, "h/repeated", {"ns": numbers, "a": "é"}) == expected
    assert ask(policy, "h/repeated", {"ns": numbers[:10], "a": "b"}) == [f"{number} of b" for number in numbers[:10]]


def test_operands_that_look_alike_are_different_calls(slow_runtime: Runtime, wasm: bytes) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    values = [1, "1", True, "true", None, "null", [1], "[1]", ["1"], {"1": 1}, '{"1": 1}', [], {}, "", [""], [[]]]
    answer = ask(policy, "h/repeated", {"ns": values, "a": 0})
    assert answer == [
        *("1 of 0", "1 of 0", "true of 0", "true of 0", "null of 0", "null of 0", "[1] of 0", "[1] of 0"),
        *('["1"] of 0', '{"1": 1} of 0', '{"1": 1} of 0', "[] of 0", "{} of 0", " of 0", '[""] of 0', "[[]] of 0"),
    ]


def test_a_result_may_be_a_key_again_and_again(slow_runtime: Runtime, wasm: bytes) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    for _ in range(3):
        numbers = list(range(300))
        assert ask(policy, "h/keys", {"ns": numbers * 2, "format": "%d"}) == {str(n): str(n) for n in numbers}


SIZES = [0, 1, 10, 1_023, 1_024, 1_025, 4_094, 4_095, 8_000, 100_000]


@pytest.mark.parametrize("size", SIZES)
def test_texts_of_any_length_pass_both_ways(slow_runtime: Runtime, wasm: bytes, size: int) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    texts = [letter * size for letter in ("a", "é", "😀", '"', "\x00")]
    answer = ask(policy, "h/repeated", {"ns": texts, "a": "b"})
    assert answer == [f"{text} of b" for text in texts]


def test_an_operand_in_memory_that_the_module_has_just_taken_is_read(slow_runtime: Runtime, wasm: bytes) -> None:
    policy = WasmPolicy(slow_runtime, wasm, b"{}")
    for size in (10, 20_000, 1_000):
        answer = ask(policy, "h/repeated", {"ns": [f"{'x' * size}{n}" for n in range(40)], "a": 1})
        assert [text[size:] for text in answer] == [f"{n} of 1" for n in range(40)]


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
    refusal = "policy.wasm: the policy calls built-ins that this engine does not have: "
    assert message.partition(": ")[2].startswith(refusal)
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


class SlowClock:
    """Tells the time only when the budget of an evaluation that nothing may wait for is long over."""

    def now_ns(self) -> int:
        began = time.monotonic()
        while time.monotonic() - began < 0.1:
            # Elsewhere the thread runs that advances the epoch.
            time.sleep(0.001)
        return 7


def test_a_budget_that_runs_out_in_a_built_in_is_no_answer_where_nothing_may_wait(
    compile_rego: Compile, compiled_folder: Path
) -> None:
    """The module is entered again to take the result of a built-in, and is cut off there: ask again on the pool."""
    wasm = compile_rego(HOST, HOST_ENTRYPOINTS)
    with a_runtime(compiled_folder, Seconds(60.0), 64 * MEBI, SlowClock()) as runtime:
        policy = WasmPolicy(runtime, wasm, b"{}")
        number = policy.entrypoint("h/twice")
        with pytest.raises(WouldWaitError):
            policy.evaluate_nowait(number, msgspec.json.encode({}))
        assert ask(policy, "h/twice", {}) == [7, 7]
        policy.close()
