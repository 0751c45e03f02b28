"""What a CPU limit costs: the latency of a sidecar in a control group that has half a core, beside one without a limit.

    python -m bench.limited [--cores 0.5] [--rounds 3] [--seconds 8] [--awake] [--json FILE]

Envoy's requests, audited, from L1 and evaluated every time, in turns at each rate, and as fast as answers come. All
servers are on one core, the generator is on the other. "core" is the share of a core that the process used, "throttled"
that of the kernel's periods of 100 ms in which the group had used up its own. Exits with 1 where a call failed, and
where no control group can be made.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench import h2load
from bench.awake import Awake
from bench.checks import answer_sizes, require_agreement, unexpected
from bench.cpu_group import CpuGroup, cpu_group
from bench.figures import table, write_json
from bench.loads import Shape
from bench.machine import cpu_seconds, take_load_core
from bench.questions import EXT_AUTHZ, TIMED, numbered
from bench.servers import AUDIT, NO_CACHE, Server, build_policy, sidecar

_RATES: Final = (100, 1_000, 5_000, 10_000, 0)
"""Calls a second; 0: as fast as answers come."""
_HITS: Final = "L1 hits"
_EVALUATED: Final = "evaluated"
_FIGURES: Final = ("rps", "50", "99", "99.9", "core", "throttled")

Row = tuple[str, int, str]
"""What answers, at which rate, and under which limit."""


class _Subject(Struct, frozen=True):
    """A server that takes turns."""

    kind: str
    limit: str
    server: Server
    group: CpuGroup | None
    sizes: Sequence[int]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=float, default=0.5, help="of the limit [0.5]")
    parser.add_argument("--rounds", type=int, default=3, help="of each [3]")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a round [8]")
    parser.add_argument(
        "--awake", action="store_true", help="keep the cores of a virtual machine from being put to sleep"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    h2load.program()
    take_load_core()
    found: dict[Row, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sark-bench-")))
        stack.enter_context(Awake() if options.awake else nullcontext())
        subjects = _started(stack, folder, options.cores)
        for number in range(options.rounds):
            for rate in _RATES:
                # Forwards and backwards in turns, as in the load runs.
                for subject in subjects[:: 1 if number % 2 == 0 else -1]:
                    measured = _round(subject, folder, rate, options.seconds, number)
                    found.setdefault((subject.kind, rate, subject.limit), []).append(measured)
    medians = {
        row: {name: statistics.median(each[name] for each in rounds) for name in _FIGURES}
        for row, rounds in found.items()
    }
    print(
        table(
            ("answers", "calls/s", "limit", "p50 µs", "p99 µs", "p99.9 µs", "core", "throttled"),
            _lines(medians),
        )
    )
    write_json(options.json, {" ".join(map(str, row)): rounds for row, rounds in found.items()})
    failed = sum(each["failed"] for rounds in found.values() for each in rounds)
    raise SystemExit(f"{failed:.0f} calls failed" if failed else 0)


def _started(stack: ExitStack, folder: Path, cores: float) -> list[_Subject]:
    bundle = build_policy(folder)
    subjects = []
    for kind, settings in ((_HITS, AUDIT), (_EVALUATED, {**AUDIT, **NO_CACHE})):
        for limit in ("none", f"{cores:g} core"):
            place = folder / f"{kind} {limit}".replace(" ", "-")
            place.mkdir()
            group = None if limit == "none" else stack.enter_context(cpu_group(cores))
            start = sidecar(EXT_AUTHZ, settings, bundle=bundle, within=() if group is None else group.entering)
            began = time.monotonic()
            server = stack.enter_context(start(place))
            print(f"{kind}, limit {limit}: ready after {time.monotonic() - began:.1f} s")
            require_agreement({f"{kind}, limit {limit}": server}, native=False)
            subjects.append(_Subject(kind, limit, server, group, answer_sizes(server)))
            _round(subjects[-1], folder, 0, 1.0, 0)
    return subjects


def _round(subject: _Subject, folder: Path, rate: int, seconds: float, number: int) -> dict[str, float]:
    server, group = subject.server, subject.group
    server.settle()
    used = cpu_seconds(server.pid)
    before = None if group is None else group.throttled()
    bodies = [EXT_AUTHZ.body(numbered(each, number)) for each in TIMED[:1]]
    # As many calls in flight as answers can be waited for where nothing says how many a second there are to be.
    shape = Shape(10, 100, rate, latencies=True) if rate else Shape(10, 10, latencies=True)
    load = h2load.send(folder, server.target, bodies, shape, seconds)
    throttled = 0.0
    if group is not None and before is not None:
        after = group.throttled()
        throttled = (after.throttled - before.throttled) / max(1, after.periods - before.periods)
    server.settle()
    return {
        "rps": load.rps,
        "failed": load.failed + unexpected(load, subject.sizes[:1]),
        "core": (cpu_seconds(server.pid) - used) / load.seconds,
        "throttled": throttled,
        **load.latencies,
    }


def _lines(medians: Mapping[Row, Mapping[str, float]]) -> list[tuple[str, ...]]:
    return [
        (
            kind,
            f"{figures['rps']:,.0f}{'' if rate else ' at most'}",
            limit,
            *(f"{figures[name]:,.0f}" for name in ("50", "99", "99.9")),
            f"{figures['core']:.2f}",
            "-" if limit == "none" else f"{figures['throttled']:.0%}",
        )
        for (kind, rate, limit), figures in sorted(medians.items(), key=_place)
    ]


def _place(entry: tuple[Row, object]) -> tuple[bool, int]:
    """What is measured with a limit comes after the same without."""
    kind, rate, _ = entry[0]
    return kind == _EVALUATED, _RATES.index(rate)


if __name__ == "__main__":
    main()
