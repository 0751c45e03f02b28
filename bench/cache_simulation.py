"""The hit rates of the cache on a simulated clock, beside the other ways to make a key.

`python -m bench.cache_simulation [--requests N] [--quick] [--output FOLDER]`; exits with 1 where a promise is not kept.
Prints tables; the figures and plots go to bench/results. 1,000,000 requests take some minutes.

No two requests have the same id, address, port, time and parameters. Users and tools are drawn by Zipf's law with
exponent 1.1; roles, sessions and sensitivities change now and then (`bench/cache_world.py`). Keys, projections, L1 and
evaluations are the sidecar's own. The right answer to each request is what the policy says of its whole document.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from bench.cache_attributes import REGISTRY, Looked, Sizes, look_up
from bench.cache_plots import Bar, plot_bars, plot_lines
from bench.cache_scenarios import (
    ALWAYS,
    ROLES,
    SCENARIOS,
    SEED,
    SHIPPED,
    STEP,
    WARM_UP,
    Clock,
    Scenario,
    Tally,
    simulate,
)
from bench.cache_world import LEVELS
from bench.figures import table, write_json
from bench.machine import ROOT, TOOLS
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.bundle import read_bundle
from sark_pdp.engine.opa import Opa
from sark_pdp.engine.policies import LoadedEntrypoint, load
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import Seconds

RATE: Final = 2000
"""Lookups of each kind of attributes per second."""
ATTRIBUTES: Final = (
    Sizes(1000, 10.0, 60.0),
    Sizes(1000, 10.0, 600.0),
    Sizes(1000, 10.0, 1200.0),
    Sizes(1000, 10.0, 2100.0),
    Sizes(1000, 10.0, 3600.0),
    Sizes(10_000, 10.0, 2100.0),
    Sizes(10_000, 60.0, 2100.0),
)
_REQUESTS: Final = 1_000_000
_QUICK: Final = 200_000

Simulated = Mapping[str, Mapping[str, Tally]]
"""By the titles of scenarios, and by the names of ways of caching."""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=_REQUESTS, help=f"of each scenario [{_REQUESTS:,}]")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK:,} requests, and no exit code")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "bench" / "results", help="folder of figures and plots [bench/results]"
    )
    options = parser.parse_args()
    requests = _QUICK if options.quick else options.requests
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as name:
        simulated = simulate_all(Path(name), requests)
    attributes = {
        (kind, sizes): look_up(count, sizes, rate=RATE, requests=requests, warm_up=WARM_UP, seed=SEED)
        for kind, count in REGISTRY.items()
        for sizes in ATTRIBUTES
    }
    options.output.mkdir(parents=True, exist_ok=True)
    report(simulated, attributes, options.output)
    print(f"{time.monotonic() - began:.0f} s in all")
    raise SystemExit(0 if options.quick or kept(simulated) else 1)


def simulate_all(folder: Path, requests: int) -> Simulated:
    """Every scenario; `folder` is for what is built."""
    runtime = Runtime(eval_timeout=Seconds(5.0), memory_limit=64 << 20, clock=Clock())
    try:
        entrypoints = {SHIPPED: shipped_policy(runtime), ROLES: roles_policy(runtime, folder)}
        return {each.title: simulate(each, entrypoints[each.entrypoint], requests) for each in SCENARIOS}
    finally:
        runtime.close()


def shipped_policy(runtime: Runtime) -> LoadedEntrypoint:
    """`sark/mcp/decision` of the default bundle."""
    return load(read_bundle(ROOT / "policies" / "default.tar.gz"), runtime).entrypoint(SHIPPED)


def roles_policy(runtime: Runtime, folder: Path) -> LoadedEntrypoint:
    """The one of `bench/policies/roles`."""
    output = folder / "roles.tar.gz"
    sources = ROOT / "bench" / "policies" / "roles"
    opa = Opa(str(TOOLS / "opa"))
    build_bundle(sources, output, opa=opa, entrypoints=(), revision="bench", report=lambda _line: None)
    return load(read_bundle(output), runtime).entrypoint(ROLES)


def kept(simulated: Simulated) -> bool:
    """Whether what is promised holds; prints what does not."""
    missed = [each for each in SCENARIOS if simulated[each.title][ALWAYS].hits < each.promised]
    for each in missed:
        print(f"not kept: {each.title}: {simulated[each.title][ALWAYS].hits:.2%} of {each.promised:.0%}")
    return not missed


def report(simulated: Simulated, attributes: Mapping[tuple[str, Sizes], Looked], folder: Path) -> None:
    """Prints the tables; writes figures and plots."""
    for scenario in SCENARIOS:
        print(f"\n{_stated(scenario)}\n")
        print(_answers(simulated[scenario.title]))
    print("\nattributes\n")
    print(_lookups(attributes))
    figures = {
        "decisions": msgspec.to_builtins(simulated),
        "attributes": [
            {"kind": kind, **msgspec.to_builtins(sizes), **msgspec.to_builtins(looked)}
            for (kind, sizes), looked in attributes.items()
        ],
    }
    write_json(folder / "cache.json", figures)
    plot_bars(folder / "cache-tiers.svg", "Where answers come from", list(_bars(simulated)))
    first = SCENARIOS[0].title
    lines = {
        name: [hits / answers for hits, answers in tally.steps if answers] for name, tally in simulated[first].items()
    }
    plot_lines(folder / "cache-time.svg", f"{first}: hit rate over both tiers", STEP, lines)


def _stated(scenario: Scenario) -> str:
    workload = scenario.workload
    levels = ", ".join(f"{share:.1%} {level}" for level, share in zip(LEVELS, workload.levels, strict=True))
    pods = f"{scenario.pods} pods share L2" if scenario.pods > 1 else "one pod"
    return f"{scenario.title}: {pods}, {workload.rate:,} req/s in all; {levels}"


def _answers(ways: Mapping[str, Tally]) -> str:
    head = ("key", "L1", "L2", "both", *LEVELS, "wrongly allowed", "wrongly denied")
    rows = []
    for name, tally in ways.items():
        levels = (tally.levels.get(level, [0, 0]) for level in LEVELS)
        of_levels = [f"{hits / answers:.1%}" if answers else "-" for hits, answers in levels]
        l1, l2 = tally.l1 / tally.answers, tally.l2 / tally.answers
        wrong = (tally.wrong_allows, tally.wrong_denials)
        rows.append((name, f"{l1:.2%}", f"{l2:.2%}", f"{tally.hits:.2%}", *of_levels, *wrong))
    return table(head, rows)


def _lookups(attributes: Mapping[tuple[str, Sizes], Looked]) -> str:
    head = ("attributes", "L1 entries", "L1 TTL, s", "Redis TTL, s", "L1", "L1 and Redis", "held in Redis", "queries/s")
    rows = []
    for (kind, sizes), looked in attributes.items():
        lookups = looked.l1 + looked.l2 + looked.database
        of_sizes = (f"{sizes.l1_size:,}", f"{sizes.l1_ttl:g}", f"{sizes.l2_ttl:g}")
        shares = (f"{looked.l1 / lookups:.1%}", f"{looked.hits:.1%}")
        rows.append((kind, *of_sizes, *shares, f"{looked.held:,}", f"{looked.database / lookups * RATE:.0f}"))
    return table(head, rows)


def _bars(simulated: Simulated) -> list[Bar]:
    bars = []
    for title, ways in simulated.items():
        for number, (name, tally) in enumerate(ways.items()):
            shares = (tally.l1 / tally.answers, tally.l2 / tally.answers, tally.evaluated / tally.answers)
            wrong = tally.wrong_allows + tally.wrong_denials
            note = f"{tally.hits:.1%}" + (f", {wrong:,} wrong" if wrong else "")
            bars.append(Bar(name, shares, note, "" if number else title))
    return bars


if __name__ == "__main__":
    main()
