"""Judges a run by what it left behind. No I/O: each check is shown evidence, and says what it found."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from tests.chaos.asking import Answer
from tests.chaos.evidence import Evidence, Gap
from tests.chaos.world import Death

WINDOW: Final = 0.05
"""Seconds of answers that a kill may cost: a group is committed every 20 ms, and takes some to commit."""
WINDOW_ANYWHERE: Final = 5.0
"""The same on a machine that may stand still at any moment."""
RATIO: Final = 3.0
"""Of the p99 while writers and database are faulty to that without faults."""
_NEARBY: Final = 1.0
"""Seconds: of clocks and threads that do one thing after another."""
_MOST: Final = 5
"""Examples that are named."""


class Check(Struct, frozen=True):
    """One promise, and whether it was kept."""

    promise: str
    found: str
    kept: bool


class Strictness(Struct, frozen=True):
    """How far times are promises."""

    window: float
    ratio: float | None
    """None: it is told and not judged."""


STRICT: Final = Strictness(WINDOW, RATIO)
ANYWHERE: Final = Strictness(WINDOW_ANYWHERE, None)


def judge(evidence: Evidence, strictness: Strictness) -> list[Check]:
    """All checks, the weightiest first."""
    return [
        _committed_once(evidence),
        _no_gap_and_no_duplicate(evidence),
        _ends_agree(evidence),
        _nothing_rejected(evidence),
        *_kept_ids(evidence, strictness),
        _same_decisions(evidence),
        _always_answered(evidence),
        _latency(evidence, strictness),
    ]


def _committed_once(evidence: Evidence) -> Check:
    stored: defaultdict[tuple[str, int], list[tuple[str, bytes]]] = defaultdict(list)
    for row in evidence.rows:
        stored[row.source, row.sequence].append((row.id, row.chain))
    wrong = [
        place for place, event in evidence.committed.items() if stored.get(place) != [(event.id, event.chain)]
    ] + list(evidence.differing)
    return _check(
        "what was committed to a spool is in the table, once and unchanged",
        f"{len(evidence.committed):,} events were seen in spools",
        wrong,
    )


def _no_gap_and_no_duplicate(evidence: Evidence) -> Check:
    wrong: list[object] = [id_ for id_, times in Counter(row.id for row in evidence.rows).items() if times > 1]
    by_source: defaultdict[str, list[int]] = defaultdict(list)
    for row in evidence.rows:
        by_source[row.source].append(row.sequence)
    wrong += [source for source, found in by_source.items() if sorted(found) != list(range(1, len(found) + 1))]
    found = f"{len(evidence.rows):,} rows of {len(by_source)} sources"
    return _check("the table has every event of each source once, without a gap", found, wrong)


def _ends_agree(evidence: Evidence) -> Check:
    last = {row.source: (row.sequence, row.chain) for row in sorted(evidence.rows, key=lambda row: row.sequence)}
    wrong = [
        end.name
        for end in evidence.ends
        if end.shipped != end.sequence or last.get(end.name) != (end.sequence, end.chain)
    ]
    found = f"{len(evidence.ends)} sources that spools remember"
    return _check("spools are empty, and their sources end where those of the table do", found, wrong)


def _nothing_rejected(evidence: Evidence) -> Check:
    return _check("no event was set aside", f"{len(evidence.rejected)} in audit_rejected", evidence.rejected)


def _kept_ids(evidence: Evidence, strictness: Strictness) -> Iterator[Check]:
    stored = {row.id for row in evidence.rows}
    for number, (answers, on_full) in enumerate(zip(evidence.answers, evidence.on_full, strict=True)):
        kept = [answer for answer in answers if answer.decision_id and answer.recorded]
        missing = [answer for answer in kept if answer.decision_id not in stored]
        deaths = [death for death in evidence.deaths if death.sidecar == number]
        gaps = [gap for gap in evidence.gaps if gap.sidecar == number]
        lost = _Lost(missing, deaths, strictness.window, drops=on_full == "drop")
        denied = sum(bool(answer.decision_id) and not answer.recorded for answer in answers)
        failed = sum(not answer.decision_id for answer in answers)
        yield _check(
            f"sidecar {number} (on_full: {on_full}): a kept decision_id is in the table, or was lost as is stated",
            f"{len(kept):,} kept, {lost.by_kill} lost by {len(deaths)} kills"
            + (f", the oldest {lost.oldest * 1000:.0f} ms before" if lost.by_kill else "")
            + (f", {lost.when_full:,} killed with a full disk" if lost.when_full else "")
            + f"; {len(lost.left):,} dropped; {denied:,} denied for want of a record",
            [*_not_confessed(lost.left, gaps), *_too_many(lost.left, gaps, failed + denied)],
        )


class _Lost:
    """Answers that are not in the table, by what lost them."""

    def __init__(self, missing: Sequence[Answer], deaths: Sequence[Death], window: float, *, drops: bool) -> None:
        self.by_kill = 0
        self.when_full = 0
        """Given while nothing could be committed, by a sidecar that was killed so."""
        self.oldest = 0.0
        """Seconds between the first answer that a kill cost, and the kill."""
        self.left: list[Answer] = []
        """Lost by no kill."""
        full: list[list[Answer]] = [[] for _ in deaths]
        for answer in missing:
            # What was on its way as the process died arrives after its death.
            before = min((age for death in deaths if (age := death.at - answer.came) > -_NEARBY), default=None)
            if (number := _when_full(deaths, answer.came)) is not None:
                full[number].append(answer)
            elif before is not None and before <= window:
                self.by_kill += 1
                self.oldest = max(self.oldest, before)
            else:
                self.left.append(answer)
        for given in full:
            # One that must not answer without a record finds out within a group that there are none, and denies then.
            came = [answer.came for answer in given]
            if drops or not came or max(came) - min(came) <= window:
                self.when_full += len(given)
            else:
                self.left += given


def _when_full(deaths: Sequence[Death], came: float) -> int | None:
    """The number of the death before which it came, while the disk was full."""
    for number, death in enumerate(deaths):
        if death.full_since is not None and death.full_since <= came <= death.at:
            return number
    return None


def _not_confessed(left: Sequence[Answer], gaps: Sequence[Gap]) -> list[object]:
    """Those that no gap is about, and gaps that are about fewer than were lost in them."""
    unknown = [
        answer.decision_id
        for answer in left
        if not any(gap.first - _NEARBY <= _made(answer.decision_id) <= gap.last + _NEARBY for gap in gaps)
    ]
    confessed = sum(gap.dropped for gap in gaps)
    return [*unknown, *([f"{len(left)} dropped, {confessed} confessed"] if len(left) > confessed else [])]


def _too_many(left: Sequence[Answer], gaps: Sequence[Gap], others: int) -> list[object]:
    """More confessed than can have been lost: `others` got no answer, or one that says that it is in no record."""
    confessed = sum(gap.dropped for gap in gaps)
    return [f"{confessed} confessed, {len(left)} dropped"] if confessed > len(left) + others else []


def _made(decision_id: str) -> float:
    """When, in seconds since the epoch: a UUIDv7 begins with it."""
    return (UUID(decision_id).int >> 80) / 1000


def _same_decisions(evidence: Evidence) -> Check:
    rows = {row.id: row for row in evidence.rows}
    wrong, compared = [], 0
    for answers in evidence.answers:
        for answer in answers:
            row = rows.get(answer.decision_id) if answer.recorded else None
            if row is not None:
                compared += 1
                if (row.decision, row.request_id) != (answer.decision, answer.request_id):
                    wrong.append(answer.decision_id)
    return _check("the table says of each decision what its caller was told", f"{compared:,} compared", wrong)


def _always_answered(evidence: Evidence) -> Check:
    wrong = []
    for number, answers in enumerate(evidence.answers):
        absences = [absence for absence in evidence.absences if absence.sidecar == number]
        for answer in answers:
            # The client finds a sidecar again within a fraction of a second.
            excused = any(each.since <= answer.came and answer.due <= each.until + _NEARBY for each in absences)
            if not answer.decision_id and not excused:
                wrong.append(f"{answer.request_id} {answer.decision}")
    asked = sum(map(len, evidence.answers))
    return _check("whatever failed, a sidecar that runs answers", f"{asked:,} questions", wrong)


def _latency(evidence: Evidence, strictness: Strictness) -> Check:
    calm, faulty = (_p99(_took(evidence, label)) for label in ("calm", "central"))
    ratio = faulty / calm if calm else 0.0
    judged = strictness.ratio is not None
    kept = not judged or (0.0 < ratio <= (strictness.ratio or 0.0))
    found = f"p99 {calm * 1000:.2f} ms without faults, {faulty * 1000:.2f} ms with: {ratio:.1f} times"
    promise = f"with faults of writers and database alone, p99 is at most {RATIO:.0f} times that without faults"
    return Check(promise if judged else f"{promise} (not judged here)", found, kept)


def _took(evidence: Evidence, label: str) -> list[float]:
    """Seconds, of the questions that were due in such phases."""
    phases = [phase for phase in evidence.phases if phase.label == label]
    return [
        answer.came - answer.due
        for answers in evidence.answers
        for answer in answers
        if answer.decision_id and any(phase.start <= answer.due < phase.end for phase in phases)
    ]


def _p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98] if len(took) > 1 else 0.0


def _check(promise: str, found: str, wrong: Sequence[object]) -> Check:
    if not wrong:
        return Check(promise, found, kept=True)
    examples = ", ".join(map(str, wrong[:_MOST]))
    return Check(promise, f"{found}; {len(wrong):,} are wrong: {examples}", kept=False)
