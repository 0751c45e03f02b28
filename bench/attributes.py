"""Lookups of attributes by primary key, beside pgbench on the same table in the same run, and the plans behind them.

    python -m bench.attributes [--seconds 5] [--rounds 5] [--quick]

A PostgreSQL of its own with the registry of `sark-pdp db seed`: 10,000 servers, 100,000 tools, 50,000 users. pgbench
asks for one row of `sark_pdp.tools` by its id, with prepared statements and as many connections as the source has: 8,
because with fewer both wait for the scheduler more than they work. The source is asked for single rows by as many
threads as it has connections, and for batches of 100 rows, each with a query. Rounds alternate; shares are medians of
each round's own.
"""

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import psycopg

from bench.figures import table
from bench.machine import wait_until
from bench.postgres_server import postgres_server
from sark_pdp.attributes.names import TOOL
from sark_pdp.attributes.postgres import PostgresOptions, PostgresSource
from sark_pdp.attributes.registry.schema import plan
from sark_pdp.attributes.registry.seed import Sizes, seed
from sark_pdp.attributes.statements import questions, statement
from sark_pdp.model import NO_DEADLINE, Seconds
from sark_pdp.observability.database import DatabaseMetrics
from sark_pdp.postgres.migrations import migrate

WANTED: Final = {"single": 0.3, "batched": 2.0}
"""Of what pgbench reaches: rows of batches, too."""
_CONNECTIONS: Final = 8
_SWITCH_INTERVAL: Final = 0.0001
"""Seconds, as in a sidecar."""
_BATCH: Final = 100
_FULL: Final = Sizes(servers=10_000, tools=100_000, users=50_000)
_QUICK: Final = Sizes(servers=100, tools=1_000, users=500)


def main() -> None:
    """Prints the figures; ends with 1 where a share is below what is wanted."""
    parser = argparse.ArgumentParser(prog="python -m bench.attributes")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small registry and one short round: shows that it runs")
    options = parser.parse_args()
    sizes, rounds, seconds = (_QUICK, 1, 1.0) if options.quick else (_FULL, options.rounds, options.seconds)
    with postgres_server(tuned=False) as server:
        ids = _registry(server.dsn, sizes)
        print(_plan(server.dsn, ids[0]))
        shares = _measured(server.programs, server.dsn, ids, rounds, seconds)
    short = [name for name, share in shares.items() if share < WANTED[name]]
    if short and not options.quick:
        raise SystemExit(f"below what is wanted of pgbench's rate: {', '.join(short)}")


def _measured(programs: Path, dsn: str, ids: list[str], rounds: int, seconds: float) -> dict[str, float]:
    rows = []
    shares: dict[str, list[float]] = {"single": [], "batched": []}
    source = PostgresSource(PostgresOptions(dsn, None, _CONNECTIONS, 0, Seconds(10.0)), DatabaseMetrics())
    source.start()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        wait_until(lambda: _answers(source, ids[0]), 30, "the source does not answer")
        for _ in range(rounds):
            reached = _pgbench(programs, dsn, len(ids), seconds)
            single = _rows_a_second(source, ids, 1, seconds)
            batched = _rows_a_second(source, ids, _BATCH, seconds)
            shares["single"].append(single / reached)
            shares["batched"].append(batched / reached)
            rows.append((f"{reached:,.0f}", *(f"{it:,.0f} ({it / reached:.2f})" for it in (single, batched))))
    finally:
        source.close()
    print(table(("pgbench, rows/s", "single, rows/s (share)", f"batches of {_BATCH}, rows/s (share)"), rows))
    medians = {name: statistics.median(each) for name, each in shares.items()}
    print("median shares: " + ", ".join(f"{name} {it:.2f} (wanted {WANTED[name]})" for name, it in medians.items()))
    return medians


def _rows_a_second(source: PostgresSource, ids: list[str], batch: int, seconds: float) -> float:
    counts = [0] * _CONNECTIONS
    ends = time.monotonic() + seconds

    def ask(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < ends:
            found = source.read({(TOOL, chance.choice(ids)) for _ in range(batch)}, NO_DEADLINE)
            counts[number] += len(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _pgbench(programs: Path, dsn: str, tools: int, seconds: float) -> float:
    """Rows a second, which are its transactions."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(
            f"\\set n random(0, {tools - 1})\n"
            "SELECT * FROM sark_pdp.tools WHERE id = 'tool-' || lpad(:n::int::text, 6, '0');\n"
        )
        script.flush()
        options = ["-n", "-M", "prepared", "-c", str(_CONNECTIONS), "-j", "2", "-T", str(max(round(seconds), 1))]
        run = subprocess.run(
            [programs / "pgbench", *options, "-f", script.name, dsn], capture_output=True, text=True, check=True
        )
    found = re.search(r"tps = ([0-9.]+)", run.stdout)
    assert found, run.stdout
    return float(found[1])


def _registry(dsn: str, sizes: Sizes) -> list[str]:
    """The ids of its tools."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in migrate(connection, plan(connection, "public", triggers=False).migrations):
            pass
        seed(connection, sizes, 1, replace=False, report=lambda *_: None)
        connection.execute("VACUUM ANALYZE")
        return [id_ for (id_,) in connection.execute("SELECT id FROM sark_pdp.tools ORDER BY id")]


def _plan(dsn: str, id_: str) -> str:
    (question,) = questions([(TOOL, id_)])
    sql = statement(question.view.name, question.kinds, "text", "text").decode()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"PREPARE asked (text[]) AS {sql}".encode())
        rows = connection.execute(f"EXPLAIN (COSTS OFF) EXECUTE asked ('{{{id_}}}')".encode()).fetchall()
    return "\n".join(row for (row,) in rows)


def _answers(source: PostgresSource, id_: str) -> bool:
    return not source.away and bool(source.read([(TOOL, id_)], NO_DEADLINE))


if __name__ == "__main__":
    main()
