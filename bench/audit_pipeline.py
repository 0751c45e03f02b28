"""From the answer to the row at a fixed rate: a sidecar, an audit writer and PostgreSQL on the two cores of the load.

    python -m bench.audit_pipeline [--rate 10000] [--seconds 60]

h2load calls `Check` of a real `sark-pdp serve`, which ships to a real `sark-pdp audit-writer`, which writes to a
PostgreSQL of this run, sized by `sark-pdp db tune`; `POSTGRES_BIN` and `POSTGRES_PRELOAD=timescaledb` make it one with
TimescaleDB. All four share two cores. Answers are L1 hits unless `--evaluated` is given.

Exits with 1 where not all calls are answered at the rate, an event is dropped, the table has another number of
decisions than were made, the trail is more than 2 seconds behind when the load ends, or `sark-pdp audit verify` finds
anything.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from msgspec import Struct

from bench import h2load
from bench.figures import table, write_json
from bench.loads import Load, Shape, Target
from bench.machine import cpu_seconds, free_port, running, wait_ready, wait_until
from bench.postgres_server import PostgresServer, age, postgres_server
from bench.questions import CHECK, DOCUMENT, framed
from bench.servers import Serving, is_ready, scraped, serving, total
from sark_pdp._proto.decision_pb2 import CheckRequest

_CORES: Final = "0,1"
_CLIENTS: Final = 10
_STREAMS: Final = 100
_USERS: Final = 4
"""Each asked about by a process of its own, for h2load sends the same message all the time."""
_RATE_KEPT: Final = 0.99
_MOST_BEHIND: Final = 2.0
"""Seconds."""
_DRAIN_SECONDS: Final = 120.0
_WARM_UP: Final = 2.0
_VERIFY_SECONDS: Final = 900


class Processes(Struct, frozen=True):
    """What runs besides the load."""

    served: Serving
    writer: int
    """Its process."""
    writer_metrics: str
    server: PostgresServer

    def cpu(self) -> dict[str, float]:
        """Seconds that each used so far."""
        return {
            "sidecar": cpu_seconds(self.served.pid),
            "audit writer": cpu_seconds(self.writer),
            "PostgreSQL": self.server.cpu(),
        }

    def stored(self) -> float:
        """Events that the writer has put into the table."""
        return total(scraped(self.writer_metrics), "sark_audit_writer_events_total", result="inserted")

    def decisions(self) -> float:
        """That the sidecar made."""
        return self.served.metric("sark_decisions_total")


class Found(Struct):
    """What one run showed."""

    load: Load
    cpu: dict[str, float]
    """Seconds of each process during the load."""
    lags: list[float]
    """Age of the oldest event that is not stored, in seconds, once a second."""
    behind: float
    """Seconds at the rate, for what was answered and not stored when the load ended."""
    drained: float
    """Seconds from then until all was stored."""
    decisions: int
    dropped: int
    failed: int
    rows: int = 0
    """Decisions in the table."""
    verified: bool = False


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=10_000, help="calls per second [10000]")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--evaluated", action="store_true", help="without L1: every call is evaluated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    h2load.program()
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as name, postgres_server() as server:
        age(server)
        subprocess.run([str(_command()), "db", "migrate", "--dsn", server.dsn], check=True, capture_output=True)
        found = _run(Path(name), server, options)
        found.rows, found.verified = _stored(server.dsn)
    _print(found, options.rate)
    write_json(options.json, msgspec.to_builtins(found))
    problems = _missed(found, options.rate)
    for problem in problems:
        print(f"not kept: {problem}")
    raise SystemExit(1 if problems else 0)


def _run(folder: Path, server: PostgresServer, options: argparse.Namespace) -> Found:
    """Ends with all processes but PostgreSQL stopped in order."""
    with _writer(folder, server) as (writer, address, metrics):
        place = folder / "sidecar"
        place.mkdir()
        settings = {"audit.writer": address, "shutdown.grace": "25s"}
        if options.evaluated:
            settings["cache.l1.size"] = "0"
        with serving(place, settings, _CORES) as served:
            return _loaded(folder, Processes(served, writer, metrics, server), options)


def _loaded(folder: Path, processes: Processes, options: argparse.Namespace) -> Found:
    target, bodies = Target(processes.served.grpc, CHECK), _bodies()
    shape = Shape(_CLIENTS, _STREAMS, options.rate, latencies=True)
    h2load.send(folder, target, bodies, shape, _WARM_UP)
    _wait_stored(processes)
    lags: list[float] = []
    before, asked = processes.cpu(), processes.decisions()
    with _watching(processes.served, lags):
        load = h2load.send(folder, target, bodies, shape, options.seconds)
    cpu = {name: used - before[name] for name, used in processes.cpu().items()}
    decisions = processes.decisions()
    behind = max(decisions - processes.stored(), 0.0) / options.rate
    began = time.monotonic()
    _wait_stored(processes)
    samples = processes.served.samples()
    handled = total(samples, "grpc_server_handled_total") - total(samples, "grpc_server_handled_total", grpc_code="OK")
    return Found(
        load=load,
        cpu=cpu,
        lags=lags,
        behind=behind,
        drained=time.monotonic() - began,
        decisions=int(decisions),
        dropped=int(total(samples, "sark_audit_dropped_total")),
        failed=load.failed + int(handled) + max(load.calls - int(decisions - asked), 0),
    )


def _bodies() -> list[bytes]:
    documents = [{**DOCUMENT, "user": {**DOCUMENT["user"], "id": f"user-{at}"}} for at in range(_USERS)]
    return [framed(CheckRequest(input_json=msgspec.json.encode(each)).SerializeToString()) for each in documents]


def _wait_stored(processes: Processes) -> None:
    """Until the table has every decision; other events come on top."""
    wait_until(
        lambda: processes.stored() >= processes.decisions(), _DRAIN_SECONDS, "not every decision came into the table"
    )


@contextmanager
def _watching(served: Serving, lags: list[float]) -> Iterator[None]:
    """Notes the lag once a second meanwhile."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            # A scrape that the full machine holds up tells nothing.
            with suppress(OSError):
                lags.append(served.metric("sark_audit_lag_seconds"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _writer(folder: Path, server: PostgresServer) -> Iterator[tuple[int, str, str]]:
    """A `sark-pdp audit-writer`: its process, its address, that of its metrics."""
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {"database.dsn": server.dsn, "listen.grpc": address, "listen.metrics": metrics}
    command = [_command(), "audit-writer", *(f"--set={key}={value}" for key, value in settings.items())]
    output = folder / "writer"
    with running(command, _CORES, output) as process:
        wait_ready(process, lambda: is_ready(f"http://{metrics}/readyz"), output)
        yield process.pid, address, metrics


def _stored(dsn: str) -> tuple[int, bool]:
    """Decisions in the table, and whether the check of the whole trail finds nothing."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM audit_events WHERE decision IS NOT NULL").fetchone()
    assert row is not None
    check = [str(_command()), "audit", "verify", "--dsn", dsn]
    verified = subprocess.run(check, capture_output=True, text=True, timeout=_VERIFY_SECONDS, check=False)
    print(verified.stdout.strip())
    return int(row[0]), verified.returncode == 0


def _print(found: Found, rate: int) -> None:
    load = found.load
    used = {**found.cpu, "h2load": load.generator_cpu}
    rows = [
        (name, f"{seconds / load.seconds:.0%}", f"{seconds / load.calls * 1e6:.0f}") for name, seconds in used.items()
    ]
    whole = sum(used.values())
    rows.append(("together, of two", f"{whole / load.seconds:.0%}", f"{whole / load.calls * 1e6:.0f}"))
    print(table(("process", "of a core", "µs of CPU a call"), rows))
    times = ", ".join(f"p{name} {load.latencies[name] / 1000:.1f} ms" for name in ("50", "99", "99.9"))
    print(f"{load.calls:,} calls in {load.seconds:.1f} s: {load.rps:,.0f} a second of {rate:,} ({times})")
    lags = f"{max(found.lags, default=0):.2f} s at most, {found.lags[-1] if found.lags else 0:.2f} s at the end"
    print(f"lag {lags}; {found.behind:.2f} s behind when the load ended, all stored {found.drained:.2f} s later")
    print(f"{found.decisions:,} decisions, {found.rows:,} in the table, {found.dropped:,} dropped")


def _missed(found: Found, rate: int) -> list[str]:
    checks = {
        f"{found.load.rps:,.0f} calls a second instead of {rate:,}": found.load.rps >= _RATE_KEPT * rate,
        f"{found.failed:,} calls failed": not found.failed,
        f"{found.dropped:,} events were dropped": not found.dropped,
        f"{found.decisions:,} decisions and {found.rows:,} rows": found.decisions == found.rows,
        f"the trail was {found.behind:.1f} s behind at the end": found.behind <= _MOST_BEHIND,
        "sark-pdp audit verify found a difference": found.verified,
    }
    return [problem for problem, kept in checks.items() if not kept]


def _command() -> Path:
    return Path(sys.executable).with_name("sark-pdp")


if __name__ == "__main__":
    main()
