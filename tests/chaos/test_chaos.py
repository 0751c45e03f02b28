"""Half a minute of chaos, and what the longer run of `make chaos` relies on: its schedule and its judge."""

import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sark_pdp.audit.reader import SourceEnd
from tests.chaos.asking import Answer
from tests.chaos.evidence import Evidence, Gap, Phase, Row
from tests.chaos.schedule import CENTRAL, HURRIED, LOCAL, NEEDS_DISK, UNHURRIED, Kind, phases
from tests.chaos.verdict import ANYWHERE, STRICT, judge
from tests.chaos.watching import Committed
from tests.chaos.world import Absence, Death
from tests.fix_tools import ROOT

SEED = 1
"""With it a disk is full twice within the first twenty seconds."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_half_a_minute_of_chaos_every_committed_event_is_stored_once() -> None:
    """Real processes are killed, stopped, frozen and cut off; times are no promises here, in `make chaos` they are."""
    command = [sys.executable, "-m", "tests.chaos", f"--seed={SEED}", "--seconds=20", "--hurried", "--anywhere"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        said = run.communicate(timeout=500)[0]
    except subprocess.TimeoutExpired:
        # It ends what it has started.
        run.terminate()
        pytest.fail(run.communicate()[0])
    assert run.returncode == 0, said
    # Root can fill a disk; for others the run says why it did not.
    assert "is full" in said or "no disk is filled: " in said
    assert "BROKEN" not in said


@given(seed=st.integers(0, 2**32), pace=st.sampled_from([UNHURRIED, HURRIED]), disk=st.booleans())
def test_a_seed_gives_one_schedule_in_which_every_kind_comes_and_no_two_hit_the_same(
    seed: int, pace: Any, disk: bool
) -> None:
    chosen = list(islice(phases(seed, pace, disk=disk), 60))
    assert chosen == list(islice(phases(seed, pace, disk=disk), 60))
    expected = {kind for kind in Kind if disk or kind not in NEEDS_DISK}
    assert {fault.kind for faults in chosen for fault in faults} == expected
    for faults in chosen:
        hit = [name for fault in faults for name in fault.hits]
        assert len(hit) == len(set(hit))
        assert all(pace.shortest <= fault.seconds <= pace.longest for fault in faults)
    assert {*CENTRAL, *LOCAL} == {*Kind}


START = 1_700_000_000.0
KILLED = 0.1
"""When the sidecar of the evidence is killed, on the monotonic clock; it gives an answer each 10 ms from zero on."""
LOST = 2
"""The last answers before that are in no spool."""


def id_of(number: int) -> str:
    """A UUIDv7 of a decision that was made so many times 10 ms after START."""
    text = f"{int(START * 1000) + 10 * number:012x}7000800000000000{number:04x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def answer(number: int, **changes: Any) -> Answer:
    due = number / 100
    return replace(Answer(due, due + 0.001, f"request-{number}", id_of(number), "allow", recorded=True), **changes)


def row(number: int) -> Row:
    chain = number.to_bytes(32)
    return Row(id_of(number), "sidecar-0/aa", number, chain, START + number / 100, "allow", f"request-{number}")


ROWS = [row(number) for number in range(1, 9)]
GOOD = Evidence(
    rows=ROWS,
    committed={(row.source, row.sequence): Committed(row.id, row.chain) for row in ROWS},
    ends=[SourceEnd(1, "sidecar-0/aa", "blake2b-256", 8, ROWS[-1].chain, 8, ROWS[-1].chain)],
    answers=[[answer(number) for number in range(1, 9 + LOST)]],
    on_full=["drop"],
    deaths=[Death(0, KILLED, None)],
    absences=[Absence(0, KILLED, KILLED + 5.0)],
    phases=[Phase("calm", 0.0, 0.04), Phase("central", 0.04, 0.08)],
)


def broken(evidence: Evidence, strictness: Any = STRICT) -> list[str]:
    return [check.promise for check in judge(evidence, strictness) if not check.kept]


def test_what_is_lost_as_is_stated_is_no_broken_promise() -> None:
    unanswered = answer(12, decision_id="", decision="UNAVAILABLE", recorded=False)
    denied = answer(13, decision_id=id_of(13), decision="error", recorded=False)
    dropped = answer(7000)
    told = replace(
        GOOD,
        answers=[[*GOOD.answers[0], unanswered, denied, dropped]],
        gaps=[Gap(0, 1, START + 70.0, START + 70.0)],
    )
    assert broken(GOOD) == broken(told) == []


def with_answers(*more: Answer) -> Callable[[Evidence], Evidence]:
    return lambda good: replace(good, answers=[[*good.answers[0], *more]])


FULL = [answer(number) for number in range(500, 600)]
"""Given over a second, and in no table."""
TAMPERED: dict[str, tuple[Callable[[Evidence], Evidence], str]] = {
    "a row is missing": (lambda good: replace(good, rows=[*good.rows[:3], *good.rows[4:]]), "in the table, once"),
    "a row is there twice": (lambda good: replace(good, rows=[*good.rows, good.rows[2]]), "without a gap"),
    "two rows have one id": (
        lambda good: replace(good, rows=[*good.rows, replace(good.rows[2], sequence=9)]),
        "without a gap",
    ),
    "a chain value is another": (
        lambda good: replace(good, rows=[replace(good.rows[0], chain=bytes(32)), *good.rows[1:]]),
        "once and unchanged",
    ),
    "a spool said two things": (lambda good: replace(good, differing=[("sidecar-0/aa", 3)]), "once and unchanged"),
    "the last rows are missing, which nobody saw": (
        lambda good: replace(
            good,
            rows=good.rows[:-1],
            committed={place: event for place, event in good.committed.items() if place[1] < 8},
            answers=[good.answers[0][:-3]],
        ),
        "their sources end",
    ),
    "a spool is not empty": (lambda good: replace(good, ends=[replace(good.ends[0], shipped=7)]), "spools are empty"),
    "an event was set aside": (lambda good: replace(good, rejected=[("sidecar-0/aa", 9, "odd")]), "set aside"),
    "an answer is missing that no kill cost": (with_answers(answer(9000)), "a kept decision_id"),
    "an answer is missing long before the kill": (
        lambda good: replace(good, deaths=[Death(0, KILLED + 1.0, None)]),
        "a kept decision_id",
    ),
    "less is confessed than is missing": (
        lambda good: replace(
            with_answers(answer(7000), answer(7001))(good), gaps=[Gap(0, 1, START + 70.0, START + 70.1)]
        ),
        "a kept decision_id",
    ),
    "more is confessed than can be missing": (
        lambda good: replace(good, gaps=[Gap(0, 5, START, START + 1.0)]),
        "a kept decision_id",
    ),
    "it answered without records, which it must not": (
        lambda good: replace(with_answers(*FULL)(good), on_full=["deny"], deaths=[*good.deaths, Death(0, 9.0, 4.9)]),
        "on_full: deny",
    ),
    "the table says another decision": (
        lambda good: replace(good, rows=[replace(good.rows[0], decision="deny"), *good.rows[1:]]),
        "what its caller was told",
    ),
    "a call got no answer": (
        with_answers(answer(9000, decision_id="", decision="UNAVAILABLE", recorded=False)),
        "a sidecar that runs answers",
    ),
    "answers are slow while the database is away": (
        lambda good: replace(good, answers=[[*good.answers[0][:5], answer(6, came=5.0), *good.answers[0][6:]]]),
        "at most 3 times",
    ),
}


@pytest.mark.parametrize(("tamper", "promise"), TAMPERED.values(), ids=TAMPERED)
def test_the_judge_finds_what_was_broken(tamper: Callable[[Evidence], Evidence], promise: str) -> None:
    found = broken(tamper(GOOD))
    assert any(promise in each for each in found), found


def test_answers_without_records_are_excused_by_a_full_disk_where_dropping_is_allowed() -> None:
    full = replace(with_answers(*FULL)(GOOD), deaths=[*GOOD.deaths, Death(0, 9.0, 4.9)])
    assert broken(full) == []
    assert broken(replace(full, deaths=GOOD.deaths)) != []


def test_each_kill_on_a_full_disk_may_cost_a_group_though_nothing_may_be_answered_without_a_record() -> None:
    deaths = [*GOOD.deaths, Death(0, 9.0, 4.9), Death(0, 19.0, 14.9)]
    groups = [answer(number) for number in (500, 501, 502, 1500, 1501, 1502)]
    full = replace(with_answers(*groups)(GOOD), on_full=["deny"], deaths=deaths)
    assert broken(full) == []
    assert broken(replace(with_answers(*groups, answer(1600))(GOOD), on_full=["deny"], deaths=deaths)) != []


def test_on_a_busy_machine_times_are_told_and_not_judged() -> None:
    late = replace(GOOD, deaths=[Death(0, KILLED + 1.0, None)])
    assert broken(late, ANYWHERE) == []
