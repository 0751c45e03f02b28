"""What coalescing in the asyncio client is worth: latency and calls a second, with and without it, in turns.

    python -m bench.coalescing [--seconds 2] [--rounds 5] [--awake] [--json FILE]

Tasks that ask one question after the other, of one client, one process: 1, 4, 16 and 64 of them. With one task nothing
can travel together: its latency must not be more than 1.1 times that of a client that does not coalesce, or the script
ends with 1. All answers are L1 hits.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.awake import Awake
from bench.figures import table, write_json
from bench.machine import describe, take_load_core
from bench.questions import DOCUMENT
from bench.servers import serving
from sark_pdp.client import AsyncClient

MOST: Final = 1.1
"""Times the latency of a lone call."""
_TASKS: Final = (1, 4, 16, 64)
_WARM_UP: Final = 0.2
_WAYS: Final = {"alone": 1, "coalesced": 100}
"""What `coalesce` is given."""


class Turn(Struct, frozen=True):
    """One turn of one client."""

    rate: float
    """Answers a second."""
    median: float
    """Latency, in microseconds."""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn [2]")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each [5]")
    parser.add_argument("--awake", action="store_true", help="keep the cores awake between calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    take_load_core()
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as folder, ExitStack() as stack:
        served = stack.enter_context(serving(Path(folder), {"cache.l1.ttl": "1h"}))
        if options.awake:
            stack.enter_context(Awake())
        turns = asyncio.run(_measured(served.grpc, options.rounds, options.seconds))
    raise SystemExit(_report(turns, options))


async def _measured(address: str, rounds: int, seconds: float) -> dict[tuple[int, str], list[Turn]]:
    turns: dict[tuple[int, str], list[Turn]] = {(tasks, way): [] for tasks in _TASKS for way in _WAYS}
    clients = {way: AsyncClient(address, timeout=30, coalesce=most) for way, most in _WAYS.items()}
    for tasks in _TASKS:
        for client in clients.values():
            await _turn(client, tasks, _WARM_UP)
        for round_ in range(rounds):
            # Forwards and backwards.
            for way in list(clients)[:: 1 if round_ % 2 else -1]:
                turns[tasks, way].append(await _turn(clients[way], tasks, seconds))
    for client in clients.values():
        await client.close()
    return turns


async def _turn(client: AsyncClient, tasks: int, seconds: float) -> Turn:
    taken: list[float] = []
    ends = time.monotonic() + seconds

    async def ask(number: int) -> None:
        document = {**DOCUMENT, "user": {**DOCUMENT["user"], "id": f"user-{number}"}}
        while True:
            began = time.perf_counter_ns()
            answer = await client.check_input(document)
            taken.append((time.perf_counter_ns() - began) / 1000)
            if not answer:
                raise SystemExit(f"a question was denied: {answer.error or answer.reason}")
            if time.monotonic() > ends:
                return

    began = time.monotonic()
    await asyncio.gather(*map(ask, range(tasks)))
    return Turn(len(taken) / (time.monotonic() - began), statistics.median(taken))


def _report(turns: dict[tuple[int, str], list[Turn]], options: argparse.Namespace) -> int:
    """Prints; 1 where a lone call became slower."""
    rows = []
    ratios = {}
    for tasks in _TASKS:
        alone, coalesced = turns[tasks, "alone"], turns[tasks, "coalesced"]
        rate = statistics.median(two.rate / one.rate for one, two in zip(alone, coalesced, strict=True))
        latency = statistics.median(two.median / one.median for one, two in zip(alone, coalesced, strict=True))
        ratios[tasks] = latency
        figures = [statistics.median(each.rate for each in ways) for ways in (alone, coalesced)]
        figures += [statistics.median(each.median for each in ways) for ways in (alone, coalesced)]
        rows.append((tasks, *(f"{figure:,.0f}" for figure in figures), f"{rate:.2f}", f"{latency:.2f}"))
    head = ("tasks", "alone, /s", "coalesced, /s", "alone, µs", "coalesced, µs", "times the rate", "times the latency")
    print(table(head, rows))
    write_json(options.json, {"machine": describe(), "rows": [dict(zip(head, row, strict=True)) for row in rows]})
    if ratios[1] > MOST:
        print(f"not kept: a lone call takes {ratios[1]:.2f} times as long, more than {MOST:g}")
        return 1
    return 0


if __name__ == "__main__":
    main()
