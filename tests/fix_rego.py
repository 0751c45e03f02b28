"""OPA as the oracle of built-ins: many calls in one run of `opa eval`."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sark_pdp.engine.wasm.builtins import UNDEFINED, BuiltinError, Context, resolve
from sark_pdp.engine.wasm.terms import dumps, loads
from sark_pdp.engine.wasm.values import RegoObject, RegoSet, TermError

Call = tuple[str, list[Any]]
"""A built-in and its operands."""

Oracle = Callable[[Sequence[Call]], list[Any]]


@pytest.fixture(scope="session")
def rego_oracle(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """What OPA itself returns for each call, as JSON; UNDEFINED where it returns nothing."""

    def ask(calls: Sequence[Call]) -> list[Any]:
        folder = tmp_path_factory.mktemp("oracle")
        # One comprehension for each built-in: OPA is quadratic in the keys of a partial rule. The operands come by way
        # of the input, where the compiler cannot refuse their types.
        parts = []
        for name, count in sorted({(name, len(operands)) for name, operands in calls}):
            operands = ", ".join(f"call[1][{at}]" for at in range(count))
            parts.append(
                f'[[i, x] | some i, call in input; call[0] == "{name}"; count(call[1]) == {count}; '
                f"x := {name}({operands})]"
            )
        for number, (name, values) in enumerate(calls):
            if _has_set(values):
                # A value out of object.get has any type.
                terms = ", ".join(f'object.get({{"x": {dumps(operand).decode()}}}, "x", 0)' for operand in values)
                parts.append(f"[[{number}, x] | x := {name}({terms})]")
        rules = "\n".join(f"results[{at}] := {part}" for at, part in enumerate(parts))
        (folder / "oracle.rego").write_text(f"package oracle\n\n{rules}\n")
        (folder / "input.json").write_bytes(dumps([None if _has_set(call[1]) else call for call in calls]))
        run = subprocess.run(
            [opa, "eval", "--format=json", "--data=oracle.rego", "--input=input.json", "data.oracle.results"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, (run.stdout + run.stderr)[:2000]
        parts = json.loads(run.stdout)["result"][0]["expressions"][0]["value"]
        results = {number: result for part in parts.values() for number, result in part}
        return [results.get(number, UNDEFINED) for number in range(len(calls))]

    return ask


def call_builtin(name: str, operands: list[Any], context: Context | None = None) -> Any:
    """What this package returns, by way of the text that goes into and out of a module; UNDEFINED for an error."""
    builtin = resolve([name])[name]
    try:
        result = builtin(context or Context(0, Random(1)), *[loads(dumps(operand)) for operand in operands])
        return result if result is UNDEFINED else as_json(loads(dumps(result)))
    except (BuiltinError, TermError):
        return UNDEFINED


def differences(oracle: Oracle, calls: Sequence[Call]) -> list[tuple[Call, Any, Any]]:
    """The calls of which this package and OPA return something else, with what each returns."""
    expected = oracle(calls)
    # A table of calls that OPA refuses altogether would compare nothing.
    assert any(result is not UNDEFINED for result in expected)
    found = [(call, call_builtin(*call), theirs) for call, theirs in zip(calls, expected, strict=True)]
    return [(call, mine, theirs) for call, mine, theirs in found if _typed(mine) != _typed(theirs)]


def _typed(value: Any) -> Any:
    """Equal only to what Rego calls equal: 1 is 1.0, and not true."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [_typed(element) for element in value]
    if isinstance(value, dict):
        return {key: _typed(below) for key, below in value.items()}
    return value


def as_json(value: Any) -> Any:
    """The value as OPA writes it to JSON: sets are arrays, keys are strings."""
    if isinstance(value, RegoSet):
        return [as_json(element) for element in value]
    if isinstance(value, RegoObject):
        return {
            key if isinstance(key, str) else dumps(as_json(key)).decode(): as_json(below) for key, below in value.items
        }
    if isinstance(value, list):
        return [as_json(element) for element in value]
    if isinstance(value, dict):
        return {key: as_json(below) for key, below in value.items()}
    return value


def _has_set(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_has_set(element) for element in value)
    if isinstance(value, dict):
        return any(_has_set(element) for element in value.values())
    return isinstance(value, RegoSet | RegoObject)
