"""Load runs: SARK PDP beside other decision points, in turns, on one core, with the load on the other.

`python -m bench [OPTIONS] [RUN ...]`; results, report and plots go to bench/results. Exits with 1 where something that
is promised does not hold.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from bench import h2load
from bench.awake import Awake
from bench.figures import Results, read_results, write_results
from bench.groups import GROUPS, Group, group_named
from bench.lineup import Peers, lineup
from bench.machine import ROOT, TOOLS, describe, take_load_core
from bench.promises import missed
from bench.report import write_report
from bench.rounds import Course, commit, new_result, run_group
from bench.servers import build_policy

_RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """See above."""
    options = _options()
    file: Path = options.output / "results.json"
    if options.report:
        write_report(options.output, read_results(file))
        return
    h2load.program()
    take_load_core()
    # Servers are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("ended by SIGTERM; --resume goes on"))
    chosen = [group_named(name) for name in options.run] or [
        group for group in GROUPS if group.quick or not options.quick
    ]
    results = read_results(file) if file.exists() else Results({})
    results.machine = {**describe(), "cores between calls": "kept awake" if options.awake else "may sleep"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sark-bench-", dir=options.folder) as name:
        bundle = build_policy(Path(name))
        with Awake() if options.awake else nullcontext(Awake()) as awake:
            for group in chosen:
                _run(group, Path(name), bundle, results, options, awake)
    _say(f"{time.monotonic() - began:.0f} s in all; see {options.output}/README.md")
    problems = missed(results)
    for problem in problems:
        _say(f"not kept: {problem}")
    raise SystemExit(1 if problems else 0)


def _run(group: Group, folder: Path, bundle: Path, results: Results, options: argparse.Namespace, awake: Awake) -> None:
    earlier = results.groups.get(group.name)
    if not (options.resume and earlier and (earlier.commit, earlier.seconds) == (commit(), options.seconds)):
        earlier = new_result(options.seconds)
    results.groups[group.name] = earlier

    def save() -> None:
        write_results(options.output / "results.json", results)

    peers = Peers(options.opa_envoy, options.opa, options.cerbos)
    place = folder / group.name
    place.mkdir()
    starts = lineup(group, place, bundle, peers)
    run_group(group, starts, place, earlier, Course(options.rounds, _say, save, awake))
    write_report(options.output, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", nargs="*", metavar="RUN", help=f"which load runs [all]: {', '.join(group.name for group in GROUPS)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs, 3 rounds of a second: within 3 minutes")
    parser.add_argument("--rounds", type=int, help="rounds of each server [5]")
    parser.add_argument("--seconds", type=float, help="of a round [4]")
    parser.add_argument("--opa-envoy", type=_program, metavar="PATH", help="OPA with the Envoy plugin, to compare with")
    parser.add_argument("--opa", type=_program, metavar="PATH", help="OPA [the one that `make tools` builds]")
    parser.add_argument("--cerbos", type=_program, metavar="PATH", help="the server of Cerbos, to compare with")
    parser.add_argument("--awake", action="store_true", help="keep both cores from sleeping, on a virtual machine")
    parser.add_argument("--resume", action="store_true", help="keep the rounds that this commit has already had")
    parser.add_argument("--report", action="store_true", help="only write report and plots anew, from the results")
    parser.add_argument(
        "--output", type=Path, default=_RESULTS, help="folder of results, report and plots [bench/results]"
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where state and logs go meanwhile [/tmp]")  # noqa: S108
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 4.0)
    options.opa = options.opa or (None if options.quick else TOOLS / "opa")
    return options


def _program(text: str) -> Path:
    path = Path(text).resolve()
    if not os.access(path, os.X_OK):
        raise argparse.ArgumentTypeError(f"{path} is no program that can be run")
    return path


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
