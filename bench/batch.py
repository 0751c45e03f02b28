"""What 100 checks in one `CheckBatch` take beside one `Check`: latency at concurrency 1, all answered from L1.

    python -m bench.batch [--rounds 2000] [--checks 100] [--carrier front --carrier grpcio] [--awake] [--json FILE]

`sark-pdp serve` as by default, its audit trail included, asked about as many users as a batch has checks. Turns of one
batch and some single checks, each over a connection of its own to the same process: first with prepared bytes
(`bench.wire`), whose own time is a few microseconds; then with bytes that have never come before, because each document
has a time in it that no rule reads; then with the Python SDK. Where the promise is not kept with the first, over either
carrier, it ends with 1.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from bench.awake import Awake
from bench.figures import table, write_json
from bench.machine import describe, take_load_core
from bench.questions import DOCUMENT
from bench.servers import Serving, serving
from bench.wire import Caller
from sark_pdp._proto.decision_pb2 import TIER_L1, CheckBatchRequest, CheckBatchResponse, CheckRequest, CheckResponse
from sark_pdp.client import Client, Question
from sark_pdp.client.question import encode
from sark_pdp.model import Json
from sark_pdp.transport.native import SERVICE

PROMISED: Final = 12.0
"""Times the median latency of one check, for 100."""
_CHECKS: Final = 100
_SINGLES: Final = 10
"""Checks in each turn, of one batch."""
_WARM_UP: Final = 100
_TIMEOUT: Final = 30.0
_MISSES: Final = 0.02
"""Of the hits: what may be evaluated of what is measured."""


class Figures(Struct, frozen=True):
    """Medians, in microseconds."""

    check: float
    batch: float

    @property
    def ratio(self) -> float:
        """How many single checks the batch takes."""
        return self.batch / self.check


Call: TypeAlias = Callable[[], None]
"""What is timed: asks, and makes sure of the answer."""


class Asking(Struct, frozen=True):
    """One way to ask. Both make ready what is timed then."""

    check: Callable[[int], Call]
    """The question with this number."""
    batch: Callable[[], Call]
    """All of them."""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000, metavar="N", help="turns of each way to ask [2000]")
    parser.add_argument("--checks", type=int, default=_CHECKS, metavar="N", help="in a batch [100]")
    parser.add_argument("--carrier", action="append", choices=("front", "grpcio"), help="of the server [both]")
    parser.add_argument("--awake", action="store_true", help="keep the cores awake between calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    take_load_core()
    figures: dict[str, Figures] = {}
    for carrier in options.carrier or ("front", "grpcio"):
        with tempfile.TemporaryDirectory(prefix="sark-bench-") as folder, ExitStack() as stack:
            # Longer than the run: what is measured is hits.
            settings = {"transport": carrier, "cache.l1.ttl": "1h"}
            served = stack.enter_context(serving(Path(folder), settings))
            if options.awake:
                stack.enter_context(Awake())
            for name, way in _WAYS.items():
                with way(served, options.checks) as asking:
                    figures[f"{carrier}, {name}"] = _measured(asking, options.rounds, options.checks)
            _require_hits(served)
    raise SystemExit(_report(figures, options))


def _documents(count: int) -> list[dict[str, Json]]:
    return [{**DOCUMENT, "user": {**DOCUMENT["user"], "id": f"user-{number}"}} for number in range(count)]


@contextmanager
def _prepared(served: Serving, count: int) -> Iterator[Asking]:
    checks = [CheckRequest(input_json=encode("document", document)) for document in _documents(count)]
    singles = [check.SerializeToString() for check in checks]
    batch = CheckBatchRequest(checks=checks).SerializeToString()
    with _callers(served) as (single, many):
        _require_l1(single, many, singles, batch)
        yield Asking(lambda number: partial(_call, single, singles[number]), lambda: partial(_call, many, batch))


@contextmanager
def _timestamped(served: Serving, count: int) -> Iterator[Asking]:
    documents = _documents(count)
    clock = itertools.count(1_700_000_000)

    def made(document: dict[str, Json]) -> CheckRequest:
        context = {**document["context"], "timestamp": next(clock)}
        return CheckRequest(input_json=encode("document", {**document, "context": context}))

    def batch() -> bytes:
        return CheckBatchRequest(checks=map(made, documents)).SerializeToString()

    def one(number: int) -> bytes:
        return made(documents[number]).SerializeToString()

    with _callers(served) as (single, many):
        _require_l1(single, many, [one(number) for number in range(count)], batch())
        yield Asking(lambda number: partial(_call, single, one(number)), lambda: partial(_call, many, batch()))


@contextmanager
def _sdk(served: Serving, count: int) -> Iterator[Asking]:
    questions = [Question(document) for document in _documents(count)]
    with Client(served.grpc, timeout=_TIMEOUT) as pdp:

        def check(document: Mapping[str, Json]) -> None:
            if not pdp.check_input(document):
                raise SystemExit("a check of the SDK was denied")

        def check_all() -> None:
            if not pdp.check_many(questions):
                raise SystemExit("one of a batch of the SDK was denied")

        yield Asking(lambda number: partial(check, questions[number].document), lambda: check_all)


_WAYS: Final = {"prepared bytes": _prepared, "bytes never seen before": _timestamped, "SDK": _sdk}


@contextmanager
def _callers(served: Serving) -> Iterator[tuple[Caller, Caller]]:
    callers = [Caller(served.grpc, f"/{SERVICE}/{method}", _TIMEOUT) for method in ("Check", "CheckBatch")]
    try:
        yield callers[0], callers[1]
    finally:
        for caller in callers:
            caller.close()


def _call(caller: Caller, message: bytes) -> None:
    caller.send(message)
    if not caller.receive():
        raise SystemExit("an answer was empty")


def _require_l1(single: Caller, many: Caller, singles: Sequence[bytes], batch: bytes) -> None:
    """After a first batch; or figures would tell of something else."""
    answers: list[CheckResponse] = []
    for _ in range(2):
        many.send(batch)
        answers = [each.response for each in CheckBatchResponse.FromString(many.receive()).results]
    for message in singles:
        single.send(message)
        answers.append(CheckResponse.FromString(single.receive()))
    if not all(answer.allow and answer.tier == TIER_L1 for answer in answers):
        raise SystemExit("an answer does not allow, or does not come from L1")


def _measured(asking: Asking, rounds: int, count: int) -> Figures:
    """Turns, so that whatever slows the machine down slows both."""
    singles: list[float] = []
    batches: list[float] = []
    for round_ in range(-_WARM_UP, rounds):
        # The first after a batch would find what the batch left to do.
        asking.check(round_ % count)()
        first = round_ * _SINGLES
        taken = [_timed(asking.check(number % count)) for number in range(first, first + _SINGLES)]
        took = _timed(asking.batch())
        if round_ >= 0:
            singles += taken
            batches.append(took)
    return Figures(statistics.median(singles), statistics.median(batches))


def _timed(call: Call) -> float:
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1000


def _require_hits(served: Serving) -> None:
    """The policy lets answers live for a minute or more, so a slow run sees each evaluated a few times."""
    hits, misses = (served.metric(f"sark_cache_{what}_total", cache_name="l1") for what in ("hits", "misses"))
    if misses > _MISSES * hits:
        raise SystemExit(f"L1 missed {misses:g} times and was hit {hits:g} times: figures would tell of something else")


def _report(figures: dict[str, Figures], options: argparse.Namespace) -> int:
    """Prints; 1 where the promise is not kept."""
    rows: Sequence[Sequence[object]] = [
        (name, f"{each.check:.0f}", f"{each.batch:.0f}", f"{each.ratio:.1f}") for name, each in figures.items()
    ]
    print(table(("carrier, client", "Check, µs", f"CheckBatch of {options.checks}, µs", "times"), rows))
    ratios = {name: each.ratio for name, each in figures.items()}
    write_json(options.json, {"machine": describe(), "checks": options.checks, "figures": figures, "ratios": ratios})
    broken = [name for name, ratio in ratios.items() if name.endswith("prepared bytes") and ratio > PROMISED]
    if broken and options.checks == _CHECKS:
        print(f"not kept: more than {PROMISED:g} times a Check ({'; '.join(broken)})")
        return 1
    return 0


if __name__ == "__main__":
    main()
