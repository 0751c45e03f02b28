"""The arithmetic on rounds, what is promised of it, and the report that tells of it."""

from pathlib import Path

import msgspec
import pytest

from bench.figures import (
    GroupResult,
    Measured,
    Proof,
    Results,
    Round,
    ratio,
    read_results,
    spread,
    table,
    write_results,
)
from bench.groups import EVALUATED, FRONT_ECHO, GROUPS, HITS, OPA_ENVOY, group_named
from bench.promises import PROMISES, Promise, missed
from bench.report import write_report

QUIET = Round(
    calls=40_000,
    failed=0,
    seconds=4.0,
    cpu_us=25.0,
    resident_mib=50.0,
    server_idle=0.02,
    load_idle=0.4,
    server_busy=0.97,
    generator_busy=0.58,
    stolen=0.01,
    latencies={"50": 100.0, "99": 900.0, "99.9": 3000.0},
)


def rounds(*rps: float) -> Measured:
    """Of these numbers of calls in a second."""
    return Measured([msgspec.structs.replace(QUIET, calls=int(each), seconds=1.0) for each in rps])


def results(ours: Measured, peer: Measured, group: str = "no-log") -> Results:
    """Of one run."""
    servers = {HITS: ours, OPA_ENVOY: peer}
    return Results({"processor": "p"}, {group: GroupResult("abc", "2026-01-02", 4.0, servers)})


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """A machine that is slow for a round is so for both: the ratio of the medians would be 5.5."""
    assert ratio(rounds(1000, 100, 550), rounds(100, 10, 110), "rps") == 10
    assert ratio(rounds(1000), rounds(), "rps") is None
    assert ratio(rounds(10), Measured([msgspec.structs.replace(QUIET, latencies={})]), "99") is None


def test_medians_pass_over_rounds_without_the_figure() -> None:
    """And there is none where none has it."""
    measured = Measured([QUIET, msgspec.structs.replace(QUIET, latencies={})])
    assert measured.median("99.9") == 3000
    assert measured.median("max") is None
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "generator_bound", "disturbed"),
    [
        ({}, False, False),
        ({"load_idle": 0.01, "generator_busy": 0.98}, True, False),
        ({"load_idle": 0.01}, True, True),
        ({"server_busy": 0.5}, False, True),
        ({"stolen": 0.2}, False, True),
        # More than all of it: the audit queue was drained after the load.
        ({"server_busy": 1.1}, False, False),
    ],
)
def test_a_round_tells_who_used_the_cores(changes: dict[str, float], generator_bound: bool, disturbed: bool) -> None:
    """A generator without a rest measures itself; others on the cores measure nobody."""
    found = msgspec.structs.replace(QUIET, **changes)
    assert (found.generator_bound, found.disturbed) == (generator_bound, disturbed)


@pytest.mark.parametrize("promise", PROMISES)
def test_promises_are_of_what_is_measured(promise: Promise) -> None:
    """Of servers of their run, by figures that it takes, with one limit."""
    group = group_named(promise.group)
    assert {promise.server, promise.against or promise.server} <= set(group.servers)
    assert group.shape.latencies or not promise.figure[0].isdigit()
    assert (promise.at_least is None) != (promise.at_most is None)


def test_what_does_not_hold_is_told() -> None:
    """A missed figure, a failed call, a dropped event, a trail that lacks one or does not verify."""
    kept = results(rounds(900), rounds(100))
    assert missed(kept) == []
    assert missed(Results({})) == []
    (line,) = missed(results(rounds(700), rounds(100)))
    assert "7" in line
    assert "at least 8" in line
    losing = Measured([msgspec.structs.replace(QUIET, failed=3, counters={"dropped": 2.0})])
    losing.proofs = [Proof(10, 9, verified=True), Proof(10, 10, verified=False), Proof(10, 10, verified=True)]
    lines = missed(results(losing, rounds(1)))
    assert [word for line in lines for word in ("3 calls", "2 audit", "9 events", "refuses") if word in line] == [
        "3 calls",
        "2 audit",
        "9 events",
        "refuses",
    ]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Every number to six digits."""
    file = tmp_path / "new" / "results.json"
    measured = Measured([msgspec.structs.replace(QUIET, cpu_us=12.3456789, calls=123_456_789)], [Proof(5, 5, True)])
    write_results(file, results(measured, rounds(7)))
    found = read_results(file)
    ours = found.groups["no-log"].servers[HITS]
    assert ours.rounds[0].cpu_us == 12.3457
    assert ours.rounds[0].calls == 123_456_789
    assert ours.proofs[0].whole
    write_results(file, found)
    assert read_results(file) == found
    assert [path.name for path in file.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"machine": 1}', '{"machine": {}, "groups": {"a": {}}}'])
def test_other_files_are_no_results(tmp_path: Path, content: str) -> None:
    """One sentence that names the file."""
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(SystemExit, match=r"results\.json holds no results"):
        read_results(file)


def test_the_report_is_written_anew_from_the_results(tmp_path: Path) -> None:
    """Tables and plots of what was measured, and of nothing else; twice the same."""
    found = results(rounds(900, 910), rounds(100, 100))
    found.groups["no-log"].servers[OPA_ENVOY].rounds[0] = msgspec.structs.replace(
        QUIET, calls=100, seconds=1.0, counters={"logged": 201.0}
    )
    fixed = {FRONT_ECHO: Measured([QUIET]), HITS: Measured([QUIET], [Proof(7, 7, True)]), EVALUATED: Measured([QUIET])}
    found.groups["fixed"] = GroupResult("abc", "2026-01-02", 4.0, fixed)
    write_report(tmp_path, found)
    text = (tmp_path / "README.md").read_text()
    assert "| L1 hits, no decision log: times the peer | at least 8 | 9.05 | 1.0 | yes |" in text
    assert "| 10,000 calls a second, audited: p99.9, µs | at most 5,000 | 3,000 | - | yes |" in text
    assert "| evaluated, spool against console log: times the peer | at least 5 | not measured | - |  |" in text
    assert f"| {HITS} | 905 (900-910) |" in text
    assert f"| {HITS} | 7 | 7 | passes |" in text
    assert f"{OPA_ENVOY} wrote 201 lines into its decision log, for 200 answers" in text
    assert "One call at a time" not in text
    plots = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert plots == ["fixed-50.svg", "fixed-99.svg", "fixed-99_9.svg", "no-log-rps.svg"]
    for name in plots:
        assert f"]({name})" in text
        assert f">{HITS}<" in (tmp_path / name).read_text()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(tmp_path, found)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_runs_have_names_of_their_own_and_a_base_that_takes_part() -> None:
    """Results are kept by name."""
    assert len({group.name for group in GROUPS}) == len(GROUPS)
    assert all(group.base in group.servers for group in GROUPS)
    with pytest.raises(SystemExit, match="choose among no-log, "):
        group_named("other")


def test_a_table_is_markdown() -> None:
    """Floats have one decimal."""
    assert table(("a", "b"), [("x", 1234.56), (1, "y")]) == "| a | b |\n|---|---|\n| x | 1,234.6 |\n| 1 | y |"
