"""What a run of the whole corpus found, for people: committed, so that a change shows in its diff."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.conformance.corpus import pinned_version
from tests.conformance.skips import EXPLAINED
from tests.conformance.verdicts import Outcome, Verdict

REPORT: Final = Path(__file__).with_name("report.md")

_HEAD: Final = """# OPA's own test cases

What `make conformance` found: each case of the corpus in OPA's Go module ({version}, `v1/test/cases/testdata/v1`),
compiled with `opa build -t wasm` and evaluated by `sark_pdp.engine`. That command writes this file.

**{summary}**
"""


def summary(counts: Mapping[Outcome, int]) -> str:
    """The line that a run ends with."""
    return ", ".join(f"{counts.get(outcome, 0)} {outcome.value}" for outcome in Outcome)


def report(verdicts: Sequence[Verdict]) -> str:
    """The whole text; the verdicts are sorted by name."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    lines = [_HEAD.format(version=pinned_version(), summary=summary(counts))]
    lines += _unpassed("Failed", [verdict for verdict in verdicts if verdict.outcome is Outcome.FAILED])
    lines += _unpassed("Skipped", [verdict for verdict in verdicts if verdict.outcome is Outcome.SKIPPED])
    lines += _namespaces(verdicts)
    lines += _builtins(verdicts)
    return "\n".join(lines).rstrip() + "\n"


def _unpassed(title: str, verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield f"## {title}\n"
    if not verdicts:
        yield "None.\n"
        return

    def reason(verdict: Verdict) -> str:
        return EXPLAINED.get(verdict.note, verdict.reason)

    for why, alike in groupby(sorted(verdicts, key=lambda verdict: (reason(verdict), verdict.name)), key=reason):
        yield f"{why[:1].upper()}{why[1:]}:\n"
        yield from (f"- `{verdict.name}`" for verdict in alike)
        yield ""


def _namespaces(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "## By namespace\n"
    yield "| namespace | passed | failed | skipped |"
    yield "|---|---|---|---|"
    for namespace, found in groupby(verdicts, key=lambda verdict: verdict.namespace):
        counts = Counter(verdict.outcome for verdict in found)
        yield f"| {namespace} | {' | '.join(str(counts[outcome]) for outcome in Outcome)} |"
    yield ""


def _builtins(verdicts: Sequence[Verdict]) -> Iterator[str]:
    passed = [verdict for verdict in verdicts if verdict.outcome is Outcome.PASSED]
    names = sorted({name for verdict in passed for name in verdict.builtins if name != "test.sleep"})
    yield f"## Built-ins of the host\n\n{len(names)} are called by cases that passed:\n"
    yield ", ".join(f"`{name}`" for name in names)
