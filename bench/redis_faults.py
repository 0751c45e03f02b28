"""Redis killed, frozen and restarted under load, beside a sidecar without Redis: no call fails, and none waits for it.

`python -m bench.redis_faults [OPTIONS]`; exits with 1 where a call failed, was not allowed, or the p99 is further above
the one without Redis than `cache.l2.timeout` and 5 ms.

Two sidecars, one with L2 and one without, get the same calls at a fixed rate from ghz, in turns. No two calls of a
round are the same, so none is answered from L1: each asks Redis for generations and for a decision. A fault comes after
the first third of a round; a frozen server goes on after the second.
"""

import argparse
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench import ghz
from bench.figures import table, write_json
from bench.loads import Shape, Target
from bench.machine import take_load_core
from bench.questions import CHECK, DOCUMENT
from bench.redis_server import RedisServer, redis_server
from bench.servers import Serving, serving
from sark_pdp._proto.decision_pb2 import DESCRIPTOR, CheckRequest

TIMEOUT_MS: Final = 5.0
"""`cache.l2.timeout`, as by default."""
SLACK_MS: Final = 5.0
_WITHOUT: Final = "without Redis"
_WELL: Final = "Redis well"
_ERRORS: Final = "sark_redis_errors_total"
_PATIENCE: Final = 30.0
_WARM_UP: Final = 1.0

Found = dict[str, list[dict[str, float]]]
"""Of each round: latencies in microseconds by percentile, and what went wrong, by the name of what happened."""


class Faults:
    """What happens to Redis in a round. `happen` runs on a timer's thread, one at a time."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.kinds: Mapping[str, Callable[[float], None]] = {
            _WELL: lambda _: None,
            "killed": lambda _: server.kill(),
            "frozen": self._freeze,
            "restarted": lambda _: server.restart(),
        }

    def _freeze(self, seconds: float) -> None:
        self._server.freeze()
        time.sleep(seconds / 3)
        self._server.thaw()

    @contextmanager
    def during(self, kind: str, seconds: float) -> Iterator[None]:
        """In the middle of a round of so many seconds."""
        timer = threading.Timer(seconds / 3, self.kinds[kind], (seconds,))
        timer.start()
        try:
            yield
        finally:
            timer.join()


def messages(policy: str, count: int) -> list[bytes]:
    """Of users that nobody has asked about before."""
    run = secrets.token_hex(4)
    made = []
    for number in range(count):
        document = {**DOCUMENT, "user": {**DOCUMENT["user"], "id": f"user-{run}-{number}"}}
        made.append(CheckRequest(policy=policy, input_json=msgspec.json.encode(document)).SerializeToString())
    return made


def measure(served: Serving, folder: Path, rate: int, seconds: float) -> dict[str, float]:
    """Microseconds by percentile; calls that failed, that were not allowed, and failures of Redis."""
    before, errors = served.metric("sark_decisions_total", outcome="allow"), served.metric(_ERRORS)
    asked = messages("", int(rate * seconds * 1.2))
    load = ghz.send(folder, Target(served.grpc, CHECK), DESCRIPTOR, asked, Shape(4, 4, rate), seconds)
    allowed = served.metric("sark_decisions_total", outcome="allow") - before
    return {
        **load.latencies,
        "calls": load.calls,
        "failed": load.failed,
        "refused": load.calls - allowed,
        "errors": served.metric(_ERRORS) - errors,
    }


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000, help="calls per second [1000]")
    parser.add_argument("--rounds", type=int, default=5, help="of each [5]")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a round [6]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    take_load_core()
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as name:
        folders = [Path(name) / each for each in ("redis", "with", "without")]
        for folder in folders:
            folder.mkdir()
        keys = folders[0] / "mac-keys"
        keys.write_text(secrets.token_hex(32) + "\n")
        keys.chmod(0o600)
        with redis_server(folders[0]) as server:
            settings = {"cache.l2.url": server.url, "cache.l2.mac_key_file": str(keys)}
            with serving(folders[1], settings) as shared, serving(folders[2]) as alone:
                found = _rounds(Faults(server), server, shared, alone, folders[1], options)
    print(_table(found))
    write_json(options.json, {"rounds": found})
    raise SystemExit(1 if _missed(found) else 0)


def _rounds(
    faults: Faults, server: RedisServer, shared: Serving, alone: Serving, folder: Path, options: argparse.Namespace
) -> Found:
    found: Found = {name: [] for name in (_WITHOUT, *faults.kinds)}
    for served in (alone, shared):
        measure(served, folder, options.rate, _WARM_UP)
    for _ in range(options.rounds):
        for kind in faults.kinds:
            found[_WITHOUT].append(measure(alone, folder, options.rate, options.seconds))
            with faults.during(kind, options.seconds):
                found[kind].append(measure(shared, folder, options.rate, options.seconds))
            server.restart()
            _until_used(shared, folder, options.rate)
    return found


def _until_used(shared: Serving, folder: Path, rate: int) -> None:
    """Until Redis keeps what the sidecar decides: the next round begins with all well."""
    deadline = time.monotonic() + _PATIENCE
    while measure(shared, folder, rate, 0.5)["errors"] or not shared.metric("sark_redis_up"):
        if time.monotonic() > deadline:
            raise SystemExit(f"Redis is not used again within {_PATIENCE:g} s")


def _median(rounds: list[dict[str, float]], figure: str) -> float:
    return statistics.median(one[figure] for one in rounds)


def _table(found: Found) -> str:
    base = _median(found[_WITHOUT], "99")
    rows = [
        (
            name,
            f"{_median(rounds, '50') / 1000:.2f}",
            f"{_median(rounds, '99') / 1000:.2f}",
            f"{max(one['max'] for one in rounds) / 1000:.1f}",
            f"{(_median(rounds, '99') - base) / 1000:+.2f}",
            f"{sum(one['calls'] for one in rounds):,.0f}",
            f"{sum(one['failed'] + one['refused'] for one in rounds):.0f}",
            f"{sum(one['errors'] for one in rounds):,.0f}",
        )
        for name, rounds in found.items()
    ]
    head = ("Redis", "p50, ms", "p99, ms", "longest, ms", "p99 above", "calls", "failed", "errors of Redis")
    return table(head, rows)


def _missed(found: Found) -> list[str]:
    """What is not kept; printed too."""
    base = _median(found[_WITHOUT], "99")
    missed = []
    for name, rounds in found.items():
        above = (_median(rounds, "99") - base) / 1000
        if above > TIMEOUT_MS + SLACK_MS:
            missed.append(f"{name}: the p99 is {above:.1f} ms above the one without Redis")
        failed = sum(one["failed"] + one["refused"] for one in rounds)
        if failed:
            missed.append(f"{name}: {failed:.0f} calls failed or were not allowed")
    for each in missed:
        print(f"not kept: {each}")
    return missed


if __name__ == "__main__":
    main()
