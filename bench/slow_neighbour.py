"""What slow policies and hostile bodies do to those who are answered from L1: they should not notice.

`python -m bench.slow_neighbour [OPTIONS]`. Hits come at a fixed rate from ghz, alone and beside each neighbour in
turns; a ratio is the median of those that each round gives. Exits with 1 where a p99 is over 3 times the one alone.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import msgspec

from bench import ghz
from bench.figures import table, write_json
from bench.loads import Shape, Target
from bench.machine import ROOT, TOOLS, cpu_seconds, take_load_core
from bench.questions import Api
from bench.servers import Serving, serving
from sark_pdp._proto.decision_pb2 import DESCRIPTOR, CheckRequest, CheckResponse, Outcome
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.opa import Opa

CHECK: Final = "/sark.pdp.v1.PolicyDecision/Check"
MEBI: Final = 1 << 20
MOST: Final = 3.0
"""Times the p99 alone."""
SHARE: Final = 0.2
"""Of the server's core that slow evaluations take."""
WANTED_SECONDS: Final = 0.005
"""Of one slow evaluation."""

Neighbour = Callable[[grpc.Channel, threading.Event], None]
"""Sends until it is told to stop."""


def message(policy: str, document: bytes) -> bytes:
    """A `CheckRequest` that no cache may answer."""
    check = CheckRequest(policy=f"neighbour/{policy}", input_json=document)
    check.max_age.seconds = 0
    return check.SerializeToString()


def slow_document(words: int) -> bytes:
    """Of which every pair is looked at."""
    return msgspec.json.encode({"words": [f"w{number}" for number in range(words)]})


def of_a_mebibyte(unit: bytes) -> bytes:
    """A list of this again and again, in a field that the policy reads: as much as `limits.max_input_bytes` allows."""
    head, tail = b'{"given":[', b"]}"
    count = (MEBI - len(head) - len(tail) + 1) // (len(unit) + 1)
    return head + b",".join([unit] * count) + tail


HOSTILE: Final[Mapping[str, bytes]] = {
    "numbers": of_a_mebibyte(b"7"),
    "objects": of_a_mebibyte(b'{"a":1}'),
    "strings": of_a_mebibyte(b'"xy"'),
    "as many values as are read": b'{"given":[%b]}' % b",".join([b'{"a":"%b"}' % (b"x" * 90)] * 9_990),
    "one string": of_a_mebibyte(b'"' + b"x" * (MEBI - 20) + b'"'),
    "brackets": b"[" * MEBI,
}


def evaluating(words: int, took: float, channel: grpc.Channel, stop: threading.Event) -> None:
    """Slow evaluations, one after the other, with so much rest in between that they use their share of the core."""
    asked = message("slow", slow_document(words))
    call = _call(channel)
    due = time.monotonic()
    while not stop.is_set():
        call(asked)
        due = max(due + took / SHARE, time.monotonic())
        stop.wait(due - time.monotonic())


def hostile(body: bytes, channel: grpc.Channel, stop: threading.Event) -> None:
    """One large body at a time, each as soon as the one before it is answered or refused."""
    asked = message("whole", body)
    call = _call(channel)
    while not stop.is_set():
        try:
            call(asked)
        except grpc.RpcError as error:
            if error.code() not in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                raise


def _call(channel: grpc.Channel) -> Callable[[bytes], bytes]:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
    return partial(call, timeout=30.0)


def calibrated(served: Serving) -> tuple[int, float]:
    """How many words make an evaluation of 5 ms, and the seconds of the core that one then takes."""
    with grpc.insecure_channel(served.grpc) as channel:
        call = _call(channel)

        def took(words: int, calls: int = 20) -> float:
            asked = message("slow", slow_document(words))
            response = CheckResponse.FromString(call(asked))
            if response.outcome != Outcome.OUTCOME_UNDEFINED:
                raise SystemExit(f"a slow evaluation of {words} words came out otherwise: {response.reason}")
            began = cpu_seconds(served.pid)
            for _ in range(calls):
                call(asked)
            return (cpu_seconds(served.pid) - began) / calls

        # Its time grows with the square.
        words = max(10, int(50 * (WANTED_SECONDS / max(took(50), 1e-4)) ** 0.5))
        return words, took(words, 100)


@contextmanager
def beside(address: str, neighbour: Neighbour | None) -> Iterator[None]:
    """With the neighbour sending on a thread of this process, and on a connection of its own."""
    if neighbour is None:
        yield
        return
    stop = threading.Event()
    with grpc.insecure_channel(address) as channel:
        thread = threading.Thread(target=neighbour, args=(channel, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def measure(served: Serving, folder: Path, rate: int, seconds: float, neighbour: Neighbour | None) -> dict[str, float]:
    """Microseconds of hits by percentile, and the part of the server's core that all together used."""
    target = Target(served.grpc, Api(CHECK, "application/grpc", lambda _question: b"", lambda _answer: True))
    hit = CheckRequest(policy="neighbour/quick", input_json=b'{"user":"alice"}').SerializeToString()
    with beside(served.grpc, neighbour):
        began, used = time.monotonic(), cpu_seconds(served.pid)
        load = ghz.send(folder, target, DESCRIPTOR, [hit], Shape(4, 4, rate), seconds)
        core = (cpu_seconds(served.pid) - used) / (time.monotonic() - began)
    if load.failed:
        raise SystemExit(f"{load.failed} hits failed")
    return {**load.latencies, "rate": load.rps, "core": core}


def _silent(_line: str) -> None:
    """What the compiler does is not told."""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2000, help="hits per second [2000]")
    parser.add_argument("--rounds", type=int, default=5, help="of each [5]")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round [4]")
    parser.add_argument("--only", action="append", metavar="NAME", help="this neighbour; may be repeated [all]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    take_load_core()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "bundle.tar.gz"
        policies = ROOT / "bench" / "policies" / "neighbour"
        build_bundle(
            policies, bundle, opa=Opa(str(TOOLS / "opa")), entrypoints=(), revision=None, report=lambda _: None
        )
        settings = {
            "policy.bundles": msgspec.json.encode([{"name": "bench", "path": str(bundle)}]).decode(),
            "cache.l1.ttl": "1h",
            **dict(pair.split("=", 1) for pair in options.set),
        }
        with serving(folder, settings) as served:
            found = _rounds(served, folder, options)
    figures = _figures(found)
    print(table(("beside", "p50 µs", "p99 µs", "p99.9 µs", "core", "p99 to alone"), figures))
    worst = max(_ratios(found).values())
    write_json(options.json, {"rounds": found, "ratios": _ratios(found)})
    raise SystemExit(worst > MOST)


Found = Mapping[str, list[dict[str, float]]]


def _rounds(served: Serving, folder: Path, options: argparse.Namespace) -> Found:
    words, took = calibrated(served)
    print(f"a slow evaluation looks at the pairs of {words} words: {took * 1000:.1f} ms of the core")
    neighbours: dict[str, Neighbour | None] = {"nobody": None, "slow policy": partial(evaluating, words, took)}
    neighbours |= {f"1 MiB, {name}": partial(hostile, body) for name, body in HOSTILE.items()}
    chosen = [name for name in neighbours if not options.only or name == "nobody" or name in options.only]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    measure(served, folder, options.rate, 1.0, None)
    for _ in range(options.rounds):
        for name in chosen:
            found[name].append(measure(served, folder, options.rate, options.seconds, neighbours[name]))
    return found


def _ratios(found: Found) -> dict[str, float]:
    alone = found["nobody"]
    return {
        name: statistics.median(one["99"] / base["99"] for one, base in zip(rounds, alone, strict=True))
        for name, rounds in found.items()
    }


def _figures(found: Found) -> list[tuple[str, ...]]:
    def median(rounds: list[dict[str, float]], key: str) -> float:
        return statistics.median(one[key] for one in rounds)

    ratios = _ratios(found)
    return [
        (
            name,
            *(f"{median(rounds, key):.0f}" for key in ("50", "99")),
            f"{median(rounds, '99.9'):.0f}" if "99.9" in rounds[0] else "-",
            f"{median(rounds, 'core'):.0%}",
            f"{ratios[name]:.2f}",
        )
        for name, rounds in found.items()
    ]


if __name__ == "__main__":
    main()
