"""Memory and processor time of the central processes: what the chart's requests and limits come from.

    python -m bench.central [--events 200000] [--reviews 2000]

Each runs as the chart has it run, on a PostgreSQL and a Redis of this script's own: at rest, and at its peak (`VmHWM`)
while it takes what it can. Commands that end are measured to their end. Processor time is of the process alone.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psycopg

from bench.admission import injector, measure
from bench.audit_writer import events, written
from bench.machine import SERVER_CORE, cpu_seconds, free_port, resident_mib, running, wait_ready, wait_until
from bench.postgres_server import postgres_server
from bench.redis_server import redis_server

_COMMAND: Final = Path(sys.executable).with_name("sark-pdp")
_SOURCES: Final = 50
_CHANGES: Final = 2000
_TELL: Final = """
import os, re, sys
from sark_pdp.cli import main
main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], sum(os.times()[:2]))
"""


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000, metavar="N", help="for the writer [200000]")
    parser.add_argument("--reviews", type=int, default=2000, metavar="N", help="for the injector [2000]")
    options = parser.parse_args()
    print("| process | at rest, MiB | at its peak, MiB | CPU | while |\n|---|---|---|---|---|")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sark-bench-")))
        dsn = stack.enter_context(postgres_server()).dsn
        _ended("db migrate", dsn)
        _ended("db migrate --registry", dsn)
        _injector(folder, options.reviews)
        _writer(folder, dsn, options.events)
        _publisher(folder, dsn)
        _bundle_server(folder)


def _injector(folder: Path, reviews: int) -> None:
    with injector(folder) as (port, authority, pid):
        rest, spent = resident_mib(pid), cpu_seconds(pid)
        measure(port, authority, reviews, 4)
        each = (cpu_seconds(pid) - spent) / reviews
        _line("injector", rest, resident_mib(pid, "VmHWM"), f"{each * 1000:.1f} ms a review", f"{reviews:,} reviews")


def _writer(folder: Path, dsn: str, count: int) -> None:
    port = free_port()
    settings = {"listen.grpc": f"127.0.0.1:{port}", "database.dsn": dsn}
    with _serving(folder, "audit-writer", settings) as (pid, _):
        rest, spent = resident_mib(pid), cpu_seconds(pid)
        rate = asyncio.run(written(f"127.0.0.1:{port}", events(count, _SOURCES)))
        each = (cpu_seconds(pid) - spent) / count
        load = f"{count:,} events at {rate:,.0f} a second"
        _line("audit-writer", rest, resident_mib(pid, "VmHWM"), f"{each * 1e6:.0f} µs an event", load)


def _publisher(folder: Path, dsn: str) -> None:
    with (
        redis_server(folder) as redis,
        _serving(folder, "publisher", {"attributes.postgres_dsn": dsn, "cache.l2.url": redis.url}) as (pid, metrics),
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        rest, spent = resident_mib(pid), cpu_seconds(pid)
        for number in range(_CHANGES):
            row = (f"user-{number}", f"{number}@example.com", "developer")
            connection.execute("INSERT INTO sark_registry.users (id, email, role) VALUES (%s, %s, %s)", row)
        told = f'sark_publisher_notifications_total{{kind="user"}} {_CHANGES}.0'
        wait_until(lambda: told in _page(f"http://{metrics}/metrics"), 60.0, "not every change was told of")
        each = (cpu_seconds(pid) - spent) / _CHANGES
        _line("publisher", rest, resident_mib(pid, "VmHWM"), f"{each * 1000:.2f} ms a change", f"{_CHANGES:,} changes")


def _bundle_server(folder: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    output = folder / "bundle-server"
    command = (_COMMAND, "bundle", "serve", "policies", f"--listen={address}")
    url = f"http://{address}/default.tar.gz"
    with running(command, SERVER_CORE, output) as process:
        wait_ready(process, lambda: _answers(url), output)
        rest, spent = resident_mib(process.pid), cpu_seconds(process.pid)
        for _ in range(_CHANGES):
            assert _answers(url)
        each = (cpu_seconds(process.pid) - spent) / _CHANGES
        peak = resident_mib(process.pid, "VmHWM")
        _line("bundle serve", rest, peak, f"{each * 1000:.2f} ms a bundle", f"{_CHANGES:,} bundles")


@contextmanager
def _serving(folder: Path, command: str, settings: dict[str, str]) -> Iterator[tuple[int, str]]:
    """The pid of one that is ready, and its listen.metrics."""
    metrics = f"127.0.0.1:{free_port()}"
    flags = [f"--set={key}={value}" for key, value in {**settings, "listen.metrics": metrics}.items()]
    output = folder / command
    with running((_COMMAND, command, *flags), SERVER_CORE, output) as process:
        wait_ready(process, lambda: _answers(f"http://{metrics}/readyz"), output)
        yield process.pid, metrics


def _answers(url: str) -> bool:
    with suppress(OSError):
        _page(url)
        return True
    return False


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (on loopback)
        page: bytes = answer.read()
        return page.decode(errors="replace")


def _ended(command: str, dsn: str) -> None:
    # Its own word for it: to its parent, a child's peak is never below the parent's own size.
    ended = subprocess.run(
        [sys.executable, "-c", _TELL, *command.split()],
        env={**os.environ, "SARK_DB_DSN": dsn},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peak, seconds = ended.stdout.split()[-2:]
    print(f"| {command} | | {int(peak) / 1024:.1f} | {float(seconds):.1f} s | once |", flush=True)


def _line(name: str, rest: float, peak: float, cpu: str, load: str) -> None:
    print(f"| {name} | {rest:.1f} | {peak:.1f} | {cpu} | {load} |", flush=True)


if __name__ == "__main__":
    main()
