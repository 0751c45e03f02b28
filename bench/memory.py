"""Resident memory of `sark-pdp serve` over 100,000 decisions, repeated and distinct, one by one and in batches.

`python -m bench.memory [--decisions N] [--transport NAME] [--json FILE]`; exits with 1 above the promised limit.
"""

import argparse
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.figures import table, write_json
from bench.machine import resident_mib, take_load_core
from bench.questions import DOCUMENT
from bench.servers import Serving, serving
from sark_pdp.client import Client, Question
from sark_pdp.model import Json

LIMIT_MIB = 100.0
BATCH = 1_000
"""`limits.max_batch`."""


def main() -> None:
    """Prints the memory after each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=100_000, help="decisions in all [100000]")
    parser.add_argument("--transport", choices=("auto", "front", "grpcio"), default="auto", help="the carrier [auto]")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    take_load_core()
    with (
        tempfile.TemporaryDirectory(prefix="sark-bench-") as folder,
        serving(Path(folder), {"transport": options.transport}) as served,
    ):
        stages = _stages(served, options.decisions)
        peak = resident_mib(served.pid, "VmHWM")
        dropped = served.metric("sark_audit_dropped_total")
    print(table(("after", "resident MiB"), stages))
    print(f"peak {peak:.1f} MiB of at most {LIMIT_MIB:.0f}; audit events dropped {dropped:.0f}")
    write_json(options.json, {"stages": dict(stages), "peak": peak, "audit_dropped": dropped})
    raise SystemExit(0 if peak <= LIMIT_MIB else 1)


def _stages(served: Serving, decisions: int) -> list[tuple[str, float]]:
    stages = [("the start", resident_mib(served.pid))]

    def note(what: str) -> None:
        stages.append((what, resident_mib(served.pid)))

    tenth = decisions // 10
    with Client(served.grpc, timeout=30) as pdp:
        _ask_each(pdp, (DOCUMENT for _ in range(4 * tenth)))
        note(f"{4 * tenth} times the same question")
        _ask_each(pdp, (_of_user(number) for number in range(4 * tenth)))
        note(f"{4 * tenth} different questions")
        for first in range(0, 2 * tenth, BATCH):
            numbers = range(first, min(first + BATCH, 2 * tenth))
            _must_decide(pdp.check_many([Question(_of_user(-number)) for number in numbers]).error)
        note(f"{2 * tenth} different questions in batches of {BATCH}")
    return stages


def _ask_each(pdp: Client, documents: Iterable[Json]) -> None:
    with ThreadPoolExecutor(8) as threads:
        for error in threads.map(lambda document: pdp.check_input(document).error, documents):
            _must_decide(error)


def _of_user(number: int) -> dict[str, Json]:
    user = {**DOCUMENT["user"], "id": f"user-{number}", "email": f"user-{number}@example.com"}
    return {**DOCUMENT, "user": user}


def _must_decide(error: str | None) -> None:
    if error is not None:
        raise SystemExit(f"a question got no decision: {error}")


if __name__ == "__main__":
    main()
