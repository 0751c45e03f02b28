"""The simulation of the cache in short: a clock of its own and one seed, so the counts are exact."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from bench.cache_attributes import Sizes, look_up
from bench.cache_plots import Bar, plot_bars, plot_lines
from bench.cache_scenarios import ALWAYS, AUTO, NAMES, SCENARIOS, SHIPPED, WHOLE, Clock, Scenario, Tally, simulate
from bench.cache_simulation import report, shipped_policy
from bench.cache_world import LEVELS, Workload, World, dealt, zipf
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import Seconds

SMALL = Scenario("small", SHIPPED, 2, Workload(20, 20, (0.6, 0.2, 0.15, 0.05), 100), promised=0.5)


@pytest.fixture(scope="module")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Tally]]:
    """Of 15,000 requests in 150 seconds."""
    runtime = Runtime(
        eval_timeout=Seconds(60.0),
        memory_limit=64 << 20,
        clock=Clock(),
        compiled_folder=tmp_path_factory.mktemp("compiled"),
    )
    try:
        yield dict(simulate(SMALL, shipped_policy(runtime), 15_000))
    finally:
        runtime.close()


def test_what_the_policy_reads_is_the_best_key_that_is_always_right(tallies: dict[str, Tally]) -> None:
    right = {name: tally.wrong_allows + tally.wrong_denials == 0 for name, tally in tallies.items()}
    assert right == {ALWAYS: True, AUTO: True, WHOLE: True, NAMES: False}
    assert tallies[NAMES].hits > tallies[ALWAYS].hits > tallies[AUTO].hits > tallies[WHOLE].hits == 0


def test_tiers_and_lifetimes_show(tallies: dict[str, Tally]) -> None:
    always = tallies[ALWAYS]
    assert always.l1 > 0
    assert always.l2 > 0
    assert tallies[AUTO].l2 == 0
    rates = [always.levels[level][0] / always.levels[level][1] for level in LEVELS]
    # The policy lets answers for the more sensitive tools live shorter, and those for critical ones not at all.
    assert all(longer > shorter for longer, shorter in pairwise(rates))
    assert rates[-1] == 0
    assert all(tally.answers == 10_000 for tally in tallies.values())
    assert all(sum(answers for _, answers in tally.steps) == 15_000 for tally in tallies.values())


def test_a_report_is_made_of_all_scenarios(
    tallies: dict[str, Tally], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = Sizes(10, 10.0, 60.0)
    looked = look_up(100, sizes, rate=100, requests=1000, warm_up=1.0, seed=1)
    report({each.title: tallies for each in SCENARIOS}, {("users", sizes): looked}, tmp_path)
    printed = capsys.readouterr().out
    assert all(each.title in printed for each in SCENARIOS)
    assert {file.name for file in tmp_path.iterdir()} == {"cache.json", "cache-tiers.svg", "cache-time.svg"}


def test_no_two_requests_are_the_same_as_a_whole() -> None:
    seen = [asked.document for asked in World(SMALL.workload, 1).requests(300)]
    for path in (("request_id",), ("context", "timestamp"), ("context", "client_port"), ("parameters", "page")):
        values = []
        for document in seen:
            value = document
            for step in path:
                value = value[step]
            values.append(value)
        assert len(set(values)) == 300
    assert [asked.document for asked in World(SMALL.workload, 1).requests(300)] == seen


def test_every_level_has_its_share_down_the_ranking() -> None:
    weights = zipf(300)
    shares = {"low": 0.7, "high": 0.3}
    levels = dealt(weights, shares)
    for count in (10, 100, 300):
        low = sum(weight for weight, level in zip(weights[:count], levels, strict=False) if level == "low")
        assert low == pytest.approx(0.7 * sum(weights[:count]), abs=0.1)


def test_attributes_begin_as_if_it_had_always_been_so() -> None:
    """Each of a thousand that are asked for once a second is found unless its minute has just passed."""
    sizes = Sizes(1, 0.001, 60.0)
    looked = look_up(1, sizes, rate=1, requests=6000, warm_up=0.0, seed=1)
    assert looked.database == pytest.approx(6000 / 61, abs=3)
    assert look_up(1, Sizes(1, 10.0, 60.0), rate=1, requests=6000, warm_up=0.0, seed=1).l1 > 4000


def test_plots_are_drawn(tmp_path: Path) -> None:
    plot_bars(tmp_path / "bars.svg", "a & b", [Bar("one", (0.5, 0.25, 0.25), "75 %", "group")])
    plot_lines(tmp_path / "lines.svg", "a & b", 10.0, {"one": [0.0, 0.5, 1.0]})
    assert 'width="240.0"' in (tmp_path / "bars.svg").read_text()
    assert "a &amp; b" in (tmp_path / "lines.svg").read_text()
