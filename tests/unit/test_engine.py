"""One module, evaluated: every kind of result, every way to fail, and that no failure touches the next evaluation."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.errors import BundleError, EvaluationError, WouldWaitError
from sark_pdp.model import Document, Seconds
from tests.fix_engine import MEBI, a_runtime, ask

LIVE = b'{"live":{"roles":{"dev":["read"]}}}'
ALICE = {"user": {"id": "alice"}}
LOOP = {"many": ["a"] * 1000}
HOARD = {"many": [str(number) for number in range(100)], "text": "x" * 10_000}
WASM_MAGIC = b"\0asm\1\0\0\0"


@pytest.fixture
def patient(patient_runtime: Runtime, general_wasm: bytes) -> WasmPolicy:
    return WasmPolicy(patient_runtime, general_wasm, LIVE)


RESULTS: list[tuple[str, Any, Any]] = [
    ("t/yes", ALICE, True),
    ("t/yes", {"user": {"id": "eve"}}, False),
    ("t/yes", {}, None),
    ("t/yes", {"user": "alice"}, None),
    ("t/answer", {"name": "bob"}, {"allow": True, "reason": "hello bob"}),
    ("t/answer", {"name": 7}, None),
    ("t/nothing", ALICE, None),
    ("t/conflict", {"left": 1}, 1),
    ("t/role", {"role": "dev"}, ["read"]),
    ("t/role", {"role": "ops"}, None),
]


@pytest.mark.parametrize(("entrypoint", "document", "result"), RESULTS)
def test_an_entrypoint_returns_what_its_rule_is_or_nothing(
    patient: WasmPolicy, entrypoint: str, document: Any, result: Any
) -> None:
    assert ask(patient, entrypoint, document) == result


FAILURES: list[tuple[float, str, Any, str]] = [
    (60.0, "t/conflict", {"left": 1, "right": 1}, "the policy aborted: policy.rego:"),
    # Long enough for what comes after it, on a machine that stands still for a moment.
    (0.7, "t/loop", LOOP, "the policy ran longer than limits.eval_timeout"),
]


@pytest.mark.parametrize(("timeout", "entrypoint", "document", "reason"), FAILURES)
def test_an_evaluation_that_fails_says_why_and_the_next_one_is_right(
    compiled_folder: Path, general_wasm: bytes, timeout: float, entrypoint: str, document: Any, reason: str
) -> None:
    with a_runtime(compiled_folder, Seconds(timeout), 64 * MEBI) as runtime:
        policy = WasmPolicy(runtime, general_wasm, LIVE)
        require_failures(policy, entrypoint, document, reason)


def require_failures(policy: WasmPolicy, entrypoint: str, document: Any, reason: str) -> None:
    """Each time that it is asked; other entrypoints are right after each."""
    for _ in range(2):
        with pytest.raises(EvaluationError) as error:
            ask(policy, entrypoint, document)
        assert str(error.value).startswith(reason)
        assert ask(policy, "t/yes", ALICE) is True
        assert ask(policy, "t/role", {"role": "dev"}) == ["read"]


def test_memory_without_end_is_refused_and_the_next_evaluation_is_right(patient: WasmPolicy) -> None:
    for _ in range(3):
        with pytest.raises(EvaluationError, match=r"^the policy needs more memory than limits\.wasm_memory$"):
            ask(patient, "t/hoard", HOARD)
        assert ask(patient, "t/yes", ALICE) is True


def test_an_input_larger_than_the_memory_is_refused(patient: WasmPolicy) -> None:
    with pytest.raises(EvaluationError, match=r"^the input or the data does not fit into limits\.wasm_memory$"):
        ask(patient, "t/size", {"many": ["x" * MEBI] * 64})
    assert ask(patient, "t/yes", ALICE) is True


def test_nesting_without_end_is_refused(patient: WasmPolicy) -> None:
    deep = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with pytest.raises(EvaluationError, match="the policy recurses too deeply"):
        patient.evaluate(patient.entrypoint("t/whole"), deep)
    assert ask(patient, "t/yes", ALICE) is True


def test_a_deadline_longer_than_the_epoch_runs_unasked_is_kept(compiled_folder: Path, general_wasm: bytes) -> None:
    with a_runtime(compiled_folder, Seconds(1.0), 64 * MEBI) as runtime:
        policy = WasmPolicy(runtime, general_wasm, LIVE)
        with pytest.raises(EvaluationError, match="ran longer than"):
            ask(policy, "t/loop", LOOP)


def test_a_deadline_is_kept_however_late_the_evaluation_begins(
    compiled_folder: Path, general_wasm: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch rests when it was wanted long enough ago: no evaluation may begin to count after that."""
    with a_runtime(compiled_folder, Seconds(0.01), 64 * MEBI) as runtime:
        policy = WasmPolicy(runtime, general_wasm, LIVE)
        want = runtime.ticker.want

        def late() -> None:
            want()
            time.sleep(0.5)

        monkeypatch.setattr(runtime.ticker, "want", late)
        failures: list[str] = []

        def run() -> None:
            try:
                ask(policy, "t/loop", LOOP)
            except EvaluationError as error:
                failures.append(str(error))

        # In a thread of its own: nothing but the epoch ends it.
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(60)
        assert failures == ["the policy ran longer than limits.eval_timeout"]


LARGE: list[tuple[Any, int]] = [
    ({"many": ["x" * 1000] * 1000}, 1000),
    ({"many": [MEBI * "x"]}, 1),
    ({"many": {str(number): number for number in range(60_000)}}, 60_000),
    ({"many": []}, 0),
]


def test_large_inputs_are_evaluated_beside_small_ones(patient: WasmPolicy) -> None:
    for document, size in LARGE * 2:
        assert ask(patient, "t/size", document) == size
        assert ask(patient, "t/yes", ALICE) is True


@pytest.mark.parametrize(("padding", "quick"), [(0, False), (16 * 1024, True)])
def test_a_long_input_does_not_tell_how_quick_short_ones_are(patient: WasmPolicy, padding: int, quick: bool) -> None:
    """Only short ones are evaluated where nothing may wait: whoever sends long ones must not slow the others down."""
    document = {"many": ["a"] * 40, "padding": "x" * padding}
    number = patient.entrypoint("t/loop")
    assert ask(patient, "t/loop", document) is None
    assert patient._paces[number].quick is quick
    with pytest.raises(WouldWaitError, match="the input is long" if padding else "not a quick one"):
        patient.evaluate_nowait(number, msgspec.json.encode(document))
    assert patient._paces[number].quick is quick


def test_growing_inputs_grow_the_memory(patient: WasmPolicy) -> None:
    for exponent in range(4, 19):
        text = "é" * (1 << exponent)
        assert ask(patient, "t/whole", {"text": text}) == {"text": text}


VALUES: list[Any] = [
    "a\x00b",
    {"a\x00b": {"": "\x00"}},
    "grüße 😀 \u2028 \x7f \ufffd",
    123456789012345678901234567890,
    -(10**40),
    (1 << 64) + 1,
    1 << 53,
    0.1,
    1e-300,
    5e-324,
    1.7976931348623157e308,
    [None, True, False, [], {}, ""],
    {"$": 1, "__proto__": 2, "a.b": 3, "a/b": 4, '"': 5, "\\": 6},
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_reaches_the_policy_as_it_is(patient: WasmPolicy, value: Any) -> None:
    assert ask(patient, "t/whole", {"value": value}) == {"value": value}


def test_a_result_of_any_length_is_returned_whole(patient: WasmPolicy) -> None:
    for around in (512, 8 * 512, 64 * 512):
        for length in range(around - 40, around + 3):
            document = {"a": "x" * length}
            assert ask(patient, "t/whole", document) == document


def test_a_result_that_is_no_text_is_returned_as_it_is(patient: WasmPolicy) -> None:
    assert patient.evaluate(patient.entrypoint("t/text"), b'{"text":"/w=="}') == b'"\xff"'


def test_many_evaluations_keep_the_memory_flat(patient: WasmPolicy) -> None:
    questions = [(patient.entrypoint(name), msgspec.json.encode(document)) for name, document, _ in RESULTS]
    answers = [patient.evaluate(*question) for question in questions]
    process = psutil.Process()
    for _ in range(500):
        assert [patient.evaluate(*question) for question in questions] == answers
    before = process.memory_info().rss
    for _ in range(5_000):
        assert [patient.evaluate(*question) for question in questions] == answers
    assert process.memory_info().rss - before < 4 * MEBI


def test_failed_instances_give_their_memory_back(patient: WasmPolicy) -> None:
    process = psutil.Process()

    def fail() -> None:
        with pytest.raises(EvaluationError):
            ask(patient, "t/hoard", HOARD)
        ask(patient, "t/yes", ALICE)

    fail()
    gc.collect()
    before = process.memory_info().rss
    for _ in range(3):
        fail()
    # Each held 64 MiB.
    assert process.memory_info().rss - before < 32 * MEBI


@pytest.mark.parametrize(
    ("name", "document", "result"),
    [
        pytest.param("t/size", {"many": [{"a": 1}] * 100_000}, 100_000, id="a large input"),
        pytest.param("t/hoarded", {"many": ["x"] * 8, "text": "x" * 20_000}, 512 * 20_000, id="many values"),
    ],
)
def test_what_a_large_evaluation_took_is_given_back(
    patient: WasmPolicy, name: str, document: Document, result: Any
) -> None:
    process = psutil.Process()
    ask(patient, "t/yes", ALICE)
    before = process.memory_info().rss
    right: list[bool] = []
    threads = [threading.Thread(target=lambda: right.append(ask(patient, name, document) == result)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 3
    gc.collect()
    # Each took 20 MiB or more.
    assert process.memory_info().rss - before < 16 * MEBI


def test_threads_get_each_its_own_answer(patient: WasmPolicy) -> None:
    barrier = threading.Barrier(8)

    def run(thread: int) -> None:
        barrier.wait(30)
        for turn in range(300):
            name = f"{thread}-{turn}-{'x' * (turn * 7 % 100)}"
            assert ask(patient, "t/answer", {"name": name}) == {"allow": True, "reason": f"hello {name}"}
            assert ask(patient, "t/whole", {name: turn}) == {name: turn}

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run, thread) for thread in range(8)]:
            done.result()


def test_threads_that_fail_leave_the_others_alone(patient: WasmPolicy) -> None:
    def run(thread: int) -> None:
        for turn in range(100):
            if thread % 2:
                with pytest.raises(EvaluationError):
                    ask(patient, "t/conflict", {"left": 1, "right": 1})
            else:
                name = f"{thread}-{turn}"
                assert ask(patient, "t/answer", {"name": name}) == {"allow": True, "reason": f"hello {name}"}

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run, thread) for thread in range(4)]:
            done.result()


def test_data_is_what_was_given(patient_runtime: Runtime, general_wasm: bytes) -> None:
    for roles in ({"dev": ["read"]}, {"dev": ["read", "write"]}, {}, {"ops": {"a": 1}}):
        policy = WasmPolicy(patient_runtime, general_wasm, msgspec.json.encode({"live": {"roles": roles}}))
        assert ask(policy, "t/role", {"role": "dev"}) == roles.get("dev")
        assert ask(policy, "t/all_data", {}) == {"roles": roles}


def test_an_unknown_entrypoint_is_refused_with_the_known_ones(patient: WasmPolicy) -> None:
    with pytest.raises(BundleError, match=r"no entrypoint 't/maybe'; it has t/all_data, t/answer, "):
        patient.entrypoint("t/maybe")


def test_data_larger_than_the_memory_is_refused(runtime: Runtime, general_wasm: bytes) -> None:
    data = msgspec.json.encode({"live": {"text": "x" * 33 * MEBI}})
    with pytest.raises(BundleError, match=r"the data cannot be loaded: .*limits\.wasm_memory"):
        WasmPolicy(runtime, general_wasm, data)


def test_a_module_larger_than_the_memory_is_refused(compiled_folder: Path, general_wasm: bytes) -> None:
    with (
        a_runtime(compiled_folder, Seconds(0.1), 1000) as runtime,
        pytest.raises(BundleError, match=r"the module itself takes \d+ bytes, more than limits\.wasm_memory"),
    ):
        WasmPolicy(runtime, general_wasm, b"{}")


NO_POLICIES: list[tuple[bytes, str]] = [
    (b"", "the module is not valid WebAssembly"),
    (b"#!/bin/sh", "the module is not valid WebAssembly"),
    (WASM_MAGIC[:4], "the module is not valid WebAssembly"),
    (WASM_MAGIC, "the module is not one of OPA's compiler"),
    (b'(module (memory (export "memory") 1))', "the module is not one of OPA's compiler: it imports no memory"),
    (b'(module (import "env" "memory" (memory 1)))', "the module is not one of OPA's compiler: "),
    (b'(module (import "env" "memory" (memory 1)) (import "env" "f" (func (param i64))))', "the module is not one of "),
]


@pytest.mark.parametrize(("wasm", "reason"), NO_POLICIES)
def test_what_is_no_policy_is_refused(runtime: Runtime, wasm: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=f"^{reason}"):
        WasmPolicy(runtime, wasm, b"{}")


def test_a_truncated_module_is_refused(runtime: Runtime, general_wasm: bytes) -> None:
    for length in (8, 100, len(general_wasm) // 2, len(general_wasm) - 1):
        with pytest.raises(BundleError, match=r"^the module is not "):
            WasmPolicy(runtime, general_wasm[:length], b"{}")


@pytest.mark.parametrize(("major", "minor", "served"), [(1, 2, True), (1, 9, True), (1, 1, False), (2, 3, False)])
def test_only_versions_of_the_abi_that_evaluate_in_one_call_are_served(
    patient_runtime: Runtime, general_wasm: bytes, major: int, minor: int, served: bool
) -> None:
    wasm = _with_abi(general_wasm, major, minor)
    if served:
        assert ask(WasmPolicy(patient_runtime, wasm, LIVE), "t/yes", ALICE) is True
    else:
        with pytest.raises(BundleError, match=rf"version {major}\.{minor} of OPA's ABI, but 1\.2 or a later minor"):
            WasmPolicy(patient_runtime, wasm, LIVE)


def test_a_module_whose_functions_have_other_types_is_refused(runtime: Runtime) -> None:
    names = ("opa_json_dump", "opa_value_dump", "opa_json_parse", "opa_value_parse", "opa_malloc", "opa_eval")
    others = " ".join(f'(func (export "{name}") (param i64 i64 i64 i64 i64 i64 i64 i64 i64))' for name in names)
    versions = """(global (export "opa_wasm_abi_version") i32 (i32.const 1))
        (global (export "opa_wasm_abi_minor_version") i32 (i32.const 3))"""
    wasm = f'(module (import "env" "memory" (memory 1)) {versions} {others})'.encode()
    with pytest.raises(BundleError, match="opa_json_dump is not the function that it should be"):
        WasmPolicy(runtime, wasm, b"{}")


def _with_abi(wasm: bytes, major: int, minor: int) -> bytes:
    """The module with other values of its two globals: `global i32 const; i32.const N; end`."""
    now = b"\x7f\x00\x41\x01\x0b" + b"\x7f\x00\x41\x03\x0b"
    assert wasm.count(now) == 1
    return wasm.replace(now, bytes((0x7F, 0, 0x41, major, 0x0B)) + bytes((0x7F, 0, 0x41, minor, 0x0B)))
