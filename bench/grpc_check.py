"""`Check` against a bare grpcio echo server: both on one core, the load on the other, in turns.

`python -m bench.grpc_check [--rounds N] [--calls N] [--json FILE]`; exits with 1 where the promise is not kept.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import grpc
from msgspec import Struct, to_builtins

from bench.harness import (
    CHECK,
    ECHO,
    SERVER_CORE,
    Load,
    Serving,
    check_request,
    cpu_seconds,
    free_port,
    ghz,
    running,
    serving,
    table,
    write_json,
)

PROMISED = 0.55
"""The share of the echo server's throughput that `Check` must reach on an L1 hit, audit and metrics on."""
WORKERS = 4
"""Threads of the echo server, as many as `sark-pdp serve` has on one core."""


def main() -> None:
    """Prints a table and what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each server [7]")
    parser.add_argument("--calls", type=int, default=20_000, help="calls in a round [20000]")
    parser.add_argument("--concurrency", type=int, default=50, help="calls in flight [50]")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"threads of the echo server [{WORKERS}]")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serving() as served:
        folder = Path(name)
        port = free_port()
        command = [sys.executable, "-m", "bench.echo_server", str(port), str(options.workers)]
        with running(command, SERVER_CORE, folder / "echo.log") as process:
            echo = Target("echo", f"127.0.0.1:{port}", ECHO, process.pid)
            with grpc.insecure_channel(echo.address) as channel:
                grpc.channel_ready_future(channel).result(30)
            kept = _compare(folder, served, echo, options)
    raise SystemExit(0 if kept else 1)


class Target(Struct, frozen=True):
    """One of the two servers."""

    name: str
    address: str
    method: str
    pid: int


class Round(Struct, frozen=True):
    """One turn of one server."""

    load: Load
    cpu_us: float
    """Of the server, for each call: tells what a busy machine hides."""


def _compare(folder: Path, served: Serving, echo: Target, options: argparse.Namespace) -> bool:
    """Runs the rounds, prints what they show and says whether the promise is kept."""
    check = Target("Check", served.grpc, CHECK, served.pid)
    for target in (echo, check):
        ghz(folder, target.address, target.method, options.calls // 4, options.concurrency)
    before = _l1(served)
    bare: list[Round] = []
    ours: list[Round] = []
    for _ in range(options.rounds):
        bare.append(_round(folder, echo, options))
        ours.append(_round(folder, check, options))
    hits, misses = (after - start for after, start in zip(_l1(served), before, strict=True))
    dropped = served.metric("sark_audit_dropped_total")
    rows = [(echo.name, *_medians(bare)), (check.name, *_medians(ours))]
    shares = [one.load.rps / other.load.rps for one, other in zip(ours, bare, strict=True)]
    errors = sum(each.load.errors for each in bare + ours)
    ratio = rows[1][1] / rows[0][1]
    size = len(check_request())
    print(f"{options.rounds} rounds of {options.calls} calls of {size} bytes, {options.concurrency} in flight")
    print(table(("server on one core", "calls/s, median", "p50 µs", "p99 µs", "CPU µs a call"), rows))
    print(f"share of the echo: {ratio:.3f} (single rounds {min(shares):.3f} to {max(shares):.3f}; promised {PROMISED})")
    print(f"L1 hits {hits:.0f}, misses {misses:.0f}; audit events dropped {dropped:.0f}; failed calls {errors}")
    figures = {"ratio": ratio, "l1_hits": hits, "l1_misses": misses, "audit_dropped": dropped, "errors": errors}
    rounds = {"echo": to_builtins(bare), "check": to_builtins(ours)}
    write_json(options.json, {**figures, "rounds": rounds})
    # An entry lives 10 s: each expiry is one miss.
    return ratio >= PROMISED and not errors and not dropped and misses < hits / 100


def _round(folder: Path, target: Target, options: argparse.Namespace) -> Round:
    before = cpu_seconds(target.pid)
    load = ghz(folder, target.address, target.method, options.calls, options.concurrency)
    return Round(load, (cpu_seconds(target.pid) - before) / options.calls * 1e6)


def _l1(served: Serving) -> tuple[float, float]:
    hits = served.metric("sark_cache_hits_total", cache_name="l1")
    return hits, served.metric("sark_cache_misses_total", cache_name="l1")


def _medians(rounds: list[Round]) -> tuple[float, float, float, float]:
    return (
        statistics.median(each.load.rps for each in rounds),
        statistics.median(each.load.p50_us for each in rounds),
        statistics.median(each.load.p99_us for each in rounds),
        statistics.median(each.cpu_us for each in rounds),
    )


if __name__ == "__main__":
    main()
