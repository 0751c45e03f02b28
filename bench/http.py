"""The HTTP/JSON API beside a bare starlette echo on the same server, in turns, on one core; and its memory.

    python -m bench.http [--seconds 4] [--rounds 5] [--quick]

The echo reads a body and gives it back: what uvicorn, h11 and starlette cost alone. Both have core 1, h2load core 0,
with 8 connections of HTTP/1.1. Shares are medians of each round's own.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import run
from typing import Final

from msgspec import Struct

from bench import h2load
from bench.figures import table
from bench.machine import SERVER_CORE, cpu_seconds, free_port, resident_mib, running, take_load_core, wait_ready
from bench.questions import DOCUMENT
from bench.servers import AUDIT, NO_AUDIT, NO_CACHE, Settings, serving

EVALUATE: Final = "/api/v1/policy/evaluate"
BATCH: Final = "/api/v1/policy/batch-evaluate"
_CLIENTS: Final = 8
_IN_BATCH: Final = 100
_TIMEOUT: Final = 10.0


class Side(Struct, frozen=True):
    """One that is measured."""

    name: str
    url: str
    body: bytes
    pid: int
    decisions: int = 1
    """In each answer."""


class Round(Struct, frozen=True):
    """What one of them did in one round."""

    per_second: float
    cpu_us: float
    """Of the server, for each request."""


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.http")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it runs")
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    h2load.program()
    take_load_core()
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as folder, ExitStack() as stack:
        sides = _sides(Path(folder), stack)
        for side in sides:
            _require_answer(side)
        measured = _measured(Path(folder), sides, rounds, seconds)
        print(_report(sides, measured))
    print(_memory())


def _sides(folder: Path, stack: ExitStack) -> list[Side]:
    one = json.dumps(DOCUMENT).encode()
    many = json.dumps([DOCUMENT] * _IN_BATCH).encode()
    settings: Mapping[str, Settings] = {"hits": NO_AUDIT, "audited": AUDIT, "evaluated": {**NO_AUDIT, **NO_CACHE}}
    url, pid = stack.enter_context(_echo(folder))
    sides = [Side("bare echo", url, one, pid)]
    names = {"hits": "L1 hits", "audited": "L1 hits, audited", "evaluated": "evaluated each time"}
    for key, chosen in settings.items():
        place = folder / key
        place.mkdir()
        address = f"127.0.0.1:{free_port()}"
        served = stack.enter_context(serving(place, {**chosen, "listen.http": address}))
        sides.append(Side(names[key], f"http://{address}{EVALUATE}", one, served.pid))
        if key == "hits":
            name = f"batches of {_IN_BATCH}, L1 hits"
            sides.append(Side(name, f"http://{address}{BATCH}", many, served.pid, _IN_BATCH))
    return sides


@contextmanager
def _echo(folder: Path) -> Iterator[tuple[str, int]]:
    port, output = free_port(), folder / "echo"
    with running([sys.executable, "-m", "bench.http_echo", port], SERVER_CORE, output) as process:
        url = f"http://127.0.0.1:{port}/echo"
        wait_ready(process, lambda: _answer(url, b"{}") is not None, output)
        yield url, process.pid


def _answer(url: str, body: bytes) -> bytes | None:
    try:
        with urllib.request.urlopen(url, body, timeout=_TIMEOUT) as response:  # noqa: S310 (our own listener)
            answer: bytes = response.read()
            return answer
    except OSError:
        return None


def _require_answer(side: Side) -> None:
    answer = _answer(side.url, side.body)
    if answer is None or (side.name != "bare echo" and b'"allow":true' not in answer):
        raise SystemExit(f"{side.name}: an unexpected answer: {answer!r}")


def _measured(folder: Path, sides: Sequence[Side], rounds: int, seconds: float) -> list[list[Round]]:
    """For each side its rounds; they take turns, forwards and backwards."""
    measured: list[list[Round]] = [[] for _ in sides]
    order = list(range(len(sides)))
    for index in order:
        _round(folder, sides[index], 1.0)
    for _ in range(rounds):
        for index in order:
            measured[index].append(_round(folder, sides[index], seconds))
        order.reverse()
    return measured


def _round(folder: Path, side: Side, seconds: float) -> Round:
    body = folder / "body"
    body.write_bytes(side.body)
    began = cpu_seconds(side.pid)
    command = (
        *(h2load.program(), "--h1", "--threads", 1, "--clients", _CLIENTS, "--duration", max(int(seconds), 1)),
        *("--header", "content-type: application/json", "--data", body, side.url),
    )
    done = run([str(part) for part in command], capture_output=True, text=True, timeout=seconds + 120, check=True)
    used = cpu_seconds(side.pid) - began
    load = h2load.read(done.stdout)
    if load is None or load.failed or re.search(r"[1-9]\d* [345]xx", done.stdout):
        raise SystemExit(f"{side.name}: not all was answered:\n{done.stdout}")
    return Round(load.calls / load.seconds, used / load.calls * 1e6)


def _report(sides: Sequence[Side], measured: Sequence[Sequence[Round]]) -> str:
    rows = []
    bare = measured[0]
    for side, rounds in zip(sides, measured, strict=True):
        share = statistics.median(it.per_second / echo.per_second for it, echo in zip(rounds, bare, strict=True))
        rate = statistics.median(it.per_second for it in rounds)
        cpu = statistics.median(it.cpu_us for it in rounds)
        rows.append((side.name, f"{rate:,.0f}", f"{share:.2f}", f"{rate * side.decisions:,.0f}", f"{cpu:.0f}"))
    return table(("", "requests/s", "of the echo", "decisions/s", "CPU µs a request"), rows)


def _memory() -> str:
    found = {}
    for name, address in (("off", ""), ("on", f"127.0.0.1:{free_port()}")):
        with (
            tempfile.TemporaryDirectory(prefix="sark-bench-") as folder,
            serving(Path(folder), {"listen.http": address}) as served,
        ):
            if address and _answer(f"http://{address}{EVALUATE}", json.dumps(DOCUMENT).encode()) is None:
                raise SystemExit("no answer over HTTP")
            found[name] = resident_mib(served.pid)
    return f"resident after the start: {found['off']:.1f} MiB without listen.http, {found['on']:.1f} MiB with it"


if __name__ == "__main__":
    main()
