"""One evaluation through the engine, without gRPC and caches, beside `opa bench` on the same policy, data and input.

`python -m bench.engine [--rounds N] [--seconds N] [--quick] [--json FILE]`; exits with 1 where a promise is not kept.

The engine and OPA take turns on one and the same core, which the other leaves idle meanwhile. Both are timed by the
wall clock over a second or so and many thousand evaluations, garbage collection included; medians are over the rounds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, to_builtins

from bench.figures import spread, table, write_json
from bench.machine import ROOT, SERVER_CORE, TOOLS
from bench.questions import DOCUMENT
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.bundle import read_bundle
from sark_pdp.engine.opa import Opa
from sark_pdp.engine.policies import LoadedEntrypoint, load
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import Seconds

PROMISED_TRIVIAL_US = 10.0
"""What a trivial policy may take of the processor. An evaluation never waits: on an idle machine that is its time."""
PROMISED_SHARE = 0.75
"""What a policy of the default set's size may take of `opa bench`'s time for it."""

OPA = TOOLS / "opa"
OWN = ROOT / "bench" / "policies"
DEFAULT = ROOT / "policies"
DATA = ("catalog", "directory")
"""The default set's data, which the policy of its size is asked about as well."""

_AT_ONCE = 500
_WARM_UP = 2_000
_TIMEOUT = Seconds(0.05)
_MEMORY = 64 * 1024 * 1024
_CALLS = 16
"""Of a built-in in one evaluation."""


class Case(Struct, frozen=True):
    """A question that the engine and OPA are asked in turns."""

    name: str
    query: str
    """For OPA."""
    folder: Path
    """Of the policy's sources."""
    entrypoint: LoadedEntrypoint
    question: Path
    """The input: what is left of the document when the entrypoint's projection was taken, as in the sidecar."""


class Round(Struct, frozen=True):
    """Microseconds for one evaluation."""

    engine: float
    engine_cpu: float
    """Of the whole process: tells what a busy machine hides."""
    opa: float


class Clock:
    """The system's."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return time.time_ns()


def main() -> None:
    """Prints a table for the policies and one for the built-ins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each policy [7]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round of the engine [1]")
    parser.add_argument("--quick", action="store_true", help="3 rounds of a third of a second")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rounds, seconds = (3, 0.3) if options.quick else (options.rounds, options.seconds)
    # Threads and children that begin later stay on this core too.
    os.sched_setaffinity(0, {SERVER_CORE})
    runtime = Runtime(eval_timeout=_TIMEOUT, memory_limit=_MEMORY, clock=Clock())
    try:
        with tempfile.TemporaryDirectory(prefix="sark-bench-") as name:
            kept = _run(Path(name), runtime, rounds, seconds, options.json)
    finally:
        runtime.close()
    raise SystemExit(0 if kept else 1)


def _run(work: Path, runtime: Runtime, rounds: int, seconds: float, output: Path | None) -> bool:
    cases = (
        _case(work, runtime, "trivial", "bench/trivial/allow", OWN / "trivial"),
        _case(work, runtime, "default set's size, no host built-ins", "bench/rules/decision", _with_data(work)),
        _case(work, runtime, "default set", "sark/mcp/decision", DEFAULT),
    )
    builtins = _load(work, runtime, OWN / "builtins")
    measured: dict[str, list[Round]] = {case.name: [] for case in cases}
    calls: dict[str, list[float]] = {name: [] for name in builtins}
    for _ in range(rounds):
        for case in cases:
            engine, cpu = _evaluate(case.entrypoint, case.question.read_bytes(), seconds)
            measured[case.name].append(Round(engine, cpu, _opa_bench(case)))
        numbers = json.dumps({"numbers": [time.time_ns() + at for at in range(_CALLS)]}).encode()
        for name, entrypoint in builtins.items():
            calls[name].append(_evaluate(entrypoint, numbers, seconds / 3)[0])
    return _report(measured, _per_call(calls), output)


def _case(work: Path, runtime: Runtime, name: str, entrypoint: str, folder: Path) -> Case:
    """Compiles it, and makes sure that the engine and OPA decide alike: else figures compare nothing."""
    loaded = _load(work, runtime, folder, entrypoint)[entrypoint]
    question = work / f"{folder.name}.json"
    question.write_text(json.dumps(loaded.projection.project(DOCUMENT)))
    case = Case(name, f"data.{entrypoint.replace('/', '.')}", folder, loaded, question)
    answer = loaded.evaluate(question.read_bytes())
    expected = json.loads(_opa("eval", case))["result"][0]["expressions"][0]["value"]
    if answer is None or json.loads(answer) != expected:
        raise SystemExit(f"{entrypoint}: the engine answers {answer!r}, OPA {expected}")
    return case


def _with_data(work: Path) -> Path:
    """The policy of the default set's size, put together with the default set's data."""
    folder = work / "rules"
    shutil.copytree(OWN / "rules", folder)
    for name in DATA:
        shutil.copytree(DEFAULT / name, folder / name)
    return folder


def _load(work: Path, runtime: Runtime, folder: Path, *entrypoints: str) -> Mapping[str, LoadedEntrypoint]:
    output = work / f"{folder.name}.tar.gz"
    opa = Opa(str(OPA))
    build_bundle(folder, output, opa=opa, entrypoints=entrypoints, revision=None, report=lambda _line: None)
    policies = load(read_bundle(output), runtime)
    return {name: policies.entrypoint(name) for name in policies.names}


def _evaluate(entrypoint: LoadedEntrypoint, input_json: bytes, seconds: float) -> tuple[float, float]:
    """Microseconds for one evaluation, by the wall clock and of the processor."""
    evaluate = entrypoint.evaluate
    for _ in range(_WARM_UP):
        evaluate(input_json)
    done = 0
    began, began_cpu = time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(_AT_ONCE):
            evaluate(input_json)
        done += _AT_ONCE
    return took / done * 1e6, (time.process_time() - began_cpu) / done * 1e6


def _opa_bench(case: Case) -> float:
    """Its ns/op, in microseconds."""
    found = json.loads(_opa("bench", case))
    nanoseconds: int = found["T"]
    count: int = found["N"]
    return nanoseconds / count / 1e3


def _opa(command: str, case: Case) -> bytes:
    sources = ("--data", case.folder, "--ignore", "*.tar.gz")
    arguments = (OPA, command, *sources, "--input", case.question, "--format", "json", case.query)
    return subprocess.run(arguments, capture_output=True, check=True, timeout=120).stdout


def _per_call(calls: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Of each built-in: what its rule takes beyond the one without calls, for one call."""
    base = calls["bench/builtins/none"]
    return {
        name.rpartition("/")[2].removesuffix("_each"): [
            (took - without) / _CALLS for took, without in zip(rounds, base, strict=True)
        ]
        for name, rounds in calls.items()
        if rounds is not base
    }


def _report(measured: Mapping[str, list[Round]], calls: Mapping[str, list[float]], output: Path | None) -> bool:
    """Prints what the rounds show and says whether the promises are kept."""
    rows, processor, shares = [], [], []
    for name, rounds in measured.items():
        engine, opa = [each.engine for each in rounds], [each.opa for each in rounds]
        cpu = statistics.median(each.engine_cpu for each in rounds)
        processor.append(cpu)
        shares.append(statistics.median(engine) / statistics.median(opa))
        rows.append((name, *spread(engine), cpu, *spread(opa), f"{shares[-1]:.3f}"))
    print("µs for one evaluation; medians, least and most of the rounds; CPU of the engine's whole process")
    print(table(("policy", "engine", "least", "most", "CPU", "opa bench", "least", "most", "share"), rows))
    built_ins = [(name, *spread(values)) for name, values in calls.items()]
    print(table(("built-in, µs for one call", "median", "least", "most"), built_ins))
    trivial, share = processor[0], shares[1]
    print(f"trivial: {trivial:.1f} µs of the processor (promised at most {PROMISED_TRIVIAL_US:.0f})")
    print(f"share of `opa bench` at the default set's size: {share:.3f} (promised at most {PROMISED_SHARE})")
    figures = {"trivial_cpu_us": trivial, "share": share, "policies": to_builtins(measured), "builtins": calls}
    write_json(output, figures)
    return trivial <= PROMISED_TRIVIAL_US and share <= PROMISED_SHARE


if __name__ == "__main__":
    main()
