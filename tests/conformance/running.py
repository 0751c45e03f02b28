"""Runs the whole corpus, or a part of it, in several processes, and says what came of it."""

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import Seconds
from tests.conformance.compiling import Compiler
from tests.conformance.corpus import Case, CorpusError, read_cases
from tests.conformance.report import REPORT, report, summary
from tests.conformance.skips import EXPLAINED
from tests.conformance.verdicts import MEMORY, Judge, Outcome, Verdict
from tests.fix_engine import StillClock

_TOGETHER: Final = 20
"""Cases that one process judges before it takes others."""
_TIMEOUT: Final = Seconds(60.0)
"""For each evaluation: a busy machine is no failure."""


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 where every case passed, was skipped by name, or failed as explained."""
    options = _options(arguments)
    try:
        cases = [case for case in read_cases() if _is_wanted(case, options.only)]
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    verdicts: list[Verdict] = []
    for found in _verdicts(cases, options.jobs):
        verdicts += found
        for verdict in found:
            if verdict.outcome is Outcome.FAILED:
                print(f"FAILED {verdict.name}: {verdict.reason}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{len(verdicts)} of {len(cases)} ", end="", file=sys.stderr, flush=True)
    verdicts.sort(key=lambda verdict: verdict.name)
    if not options.only:
        REPORT.write_text(report(verdicts))
        print(f"written to {os.path.relpath(REPORT)}")
    print(summary(Counter(verdict.outcome for verdict in verdicts)))
    return int(any(v.outcome is Outcome.FAILED and v.note not in EXPLAINED for v in verdicts))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes; the number of cores if not said"
    )
    parser.add_argument(
        "only", nargs="*", metavar="NAMESPACE[/NOTE]", help="run what begins so, and write no report; else everything"
    )
    return parser.parse_args(arguments)


def _is_wanted(case: Case, prefixes: Sequence[str]) -> bool:
    return not prefixes or f"{case.namespace}/{case.note}".startswith(tuple(prefixes))


def _verdicts(cases: list[Case], jobs: int) -> Iterator[list[Verdict]]:
    shares = [cases[at : at + _TOGETHER] for at in range(0, len(cases), _TOGETHER)]
    # Each process compiles one module at a time; wasmtime would use all cores for each.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_judged, shares)


def _judged(cases: list[Case]) -> list[Verdict]:
    with closing(Runtime(eval_timeout=_TIMEOUT, memory_limit=MEMORY, clock=StillClock())) as runtime:
        judge = Judge(runtime, Compiler(runtime.engine))
        return [judge.verdict(case) for case in cases]
