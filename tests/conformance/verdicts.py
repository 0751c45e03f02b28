"""Evaluates a case in the engine and compares, as OPA's own runner of the corpus does for WASM.

That runner is `internal/wasm/sdk/test/e2e/external_test.go` in OPA's module: bindings are a set, sets are arrays, and
error that only strict evaluation shows is an empty result.
"""

import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from sark_pdp.engine.wasm import ffi, terms
from sark_pdp.engine.wasm.abi import Instance
from sark_pdp.engine.wasm.builtins import Builtin, resolve
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.engine.wasm.values import RegoObject, RegoSet, SortKey, TermError, sort_key
from sark_pdp.errors import BundleError, EvaluationError
from tests.conformance.compiling import Compiled, CompileError, Compiler
from tests.conformance.corpus import Case
from tests.conformance.skips import reason_of_builtin, reason_of_case

MEMORY: Final = 256 * 1024 * 1024
"""Bytes that one instance may take."""

_CONFLICTS: Final = ("var assignment conflict", "object insert conflict")
_WANT_TERM: Final = 6
"""The argument of `opa_eval` that asks for a Rego value instead of JSON, which does not tell a set from an array."""


class Outcome(Enum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Verdict(msgspec.Struct, frozen=True):
    """A case, and why it did not pass."""

    namespace: str
    note: str
    outcome: Outcome
    reason: str = ""
    builtins: tuple[str, ...] = ()
    """What the case had the host do."""

    @property
    def name(self) -> str:
        """The namespace and the note, which most begin with it too."""
        return self.note if self.note.startswith(f"{self.namespace}/") else f"{self.namespace}/{self.note}"


class Judge:
    """Gives one verdict after the other; for one thread."""

    def __init__(self, runtime: Runtime, compiler: Compiler) -> None:
        self._runtime = runtime
        self._compiler = compiler

    def verdict(self, case: Case) -> Verdict:
        """Never raises for what a case does."""
        reason = reason_of_case(case)
        if reason is not None:
            return Verdict(case.namespace, case.note, Outcome.SKIPPED, reason)
        try:
            compiled = self._compiler.compiled(case)
        except CompileError as error:
            return Verdict(case.namespace, case.note, Outcome.FAILED, f"does not compile: {error}")
        instance = Instance(self._runtime.engine, self._compiler.module(compiled.wasm), MEMORY)
        try:
            return self._judged(case, compiled, instance)
        finally:
            instance.close()

    def _judged(self, case: Case, compiled: Compiled, instance: Instance) -> Verdict:
        names = tuple(sorted(instance.builtins))
        for name in names:
            if (reason := reason_of_builtin(name)) is not None:
                return Verdict(case.namespace, case.note, Outcome.SKIPPED, reason, names)
        try:
            found: list[Any] | Exception = self._found(case, compiled, instance)
        except (EvaluationError, BundleError, TermError) as error:
            found = error
        reason = _difference(case, found)
        return Verdict(case.namespace, case.note, Outcome.FAILED if reason else Outcome.PASSED, reason, names)

    def _found(self, case: Case, compiled: Compiled, instance: Instance) -> list[Any]:
        """The sets of bindings."""
        instance.load(_builtins(instance.builtins), self._runtime.new_context, msgspec.json.encode(case.data or {}))
        instance._eval.slots[_WANT_TERM * ffi.VALUE_SLOTS] = 1
        number = instance.entrypoints[compiled.entrypoint]
        want = self._runtime.ticker.want
        results = [
            element["result"]
            for element in terms.loads(instance.evaluate(number, case.input_text, self._runtime.ticks, want))
        ]
        if compiled.variable is not None:
            return [{compiled.variable: result} for result in results]
        return [bindings for result in results for bindings in result]


def _builtins(names: Mapping[str, int]) -> dict[str, Builtin]:
    found = resolve(name for name in names if name != "test.sleep")
    return {**found, "test.sleep": _sleep}


def _sleep(_: Any, duration: str) -> None:
    time.sleep(float(duration.removesuffix("ms")) / 1000)


def _difference(case: Case, found: list[Any] | Exception) -> str:
    """Why the case fails, in one line; empty where it passes."""
    if case.want_result is not None:
        return _unequal(case, case.want_result, found)
    if case.strict_error:
        # Without strict errors, which compiled modules do not have, it is undefined.
        return _unequal(case, [], found)
    if not isinstance(found, EvaluationError):
        return f"an error was wanted ({case.want_error_code}), and found is {_shown(found)}"
    if case.want_error_code != "eval_conflict_error" or not any(text in str(found) for text in _CONFLICTS):
        return f"another error was wanted ({case.want_error_code}): {found}"
    return ""


def _unequal(case: Case, wanted: list[dict[str, Any]], found: list[Any] | Exception) -> str:
    if isinstance(found, Exception):
        return f"wanted is {_shown(wanted)}, and it failed: {found}"
    if {sort_key(bindings) for bindings in wanted} == {_key(bindings, case) for bindings in found}:
        return ""
    return f"wanted is {_shown(wanted)}, and found is {_shown(found)}"


def _key(bindings: dict[str, Any], case: Case) -> SortKey:
    plain = {name: as_json(value) for name, value in bindings.items()}
    if case.sort_bindings:
        plain = {n: sorted(v, key=sort_key) if isinstance(v, list) else v for n, v in plain.items()}
    return sort_key(plain)


def as_json(value: Any) -> Any:
    """The value as OPA writes it to JSON: sets are arrays, keys are strings."""
    if isinstance(value, RegoSet | list):
        return [as_json(element) for element in value]
    if isinstance(value, RegoObject):
        return {key if isinstance(key, str) else _text(key): as_json(below) for key, below in value.items}
    if isinstance(value, dict):
        return {key: as_json(below) for key, below in value.items()}
    return value


def _text(key: Any) -> str:
    return msgspec.json.encode(as_json(key)).decode()


def _shown(value: Any) -> str:
    if isinstance(value, Exception):
        return str(value)
    text = terms.dumps(value).decode(errors="replace")
    return text if len(text) <= 400 else f"{text[:400]}…"
