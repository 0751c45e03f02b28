"""What tracing adds to one answer from L1, in one process: off, on but not sampled, on and sampled, in turns.

    python -m bench.tracing [--rounds 40] [--calls 2000] [--json FILE]

Times are of the processor, of the thread that answers: from the bytes of a `CheckRequest` with a `traceparent` to those
of its answer, with a record of each for the audit trail. Beside them, what the thread that exports takes of a processor
for one span, to a collector on loopback that answers at once, and what the packages take of memory.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.collector import collector
from bench.figures import table, write_json
from bench.machine import describe
from bench.questions import DOCUMENT
from sark_pdp._proto.decision_pb2 import TIER_L1, CheckRequest, CheckResponse
from sark_pdp.caching import Caches
from sark_pdp.client.question import encode
from sark_pdp.clock import SystemClock
from sark_pdp.decision.service import DecisionService
from sark_pdp.engine.bundle import read_bundle
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedPolicies
from sark_pdp.engine.policies import load as load_policies
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.interfaces import AuditSink
from sark_pdp.model import AuditRecord, Entrypoint
from sark_pdp.observability.metrics import Metrics
from sark_pdp.settings import Settings, default_bundle, load
from sark_pdp.transport.documents import Documents
from sark_pdp.transport.handler import Metadata, Method
from sark_pdp.transport.native import SERVICE, methods
from sark_pdp.transport.questions import Questions

_PARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
_EXPORTS: Final = 20
_BATCH: Final = 512


class _Trail:
    """An AuditSink that keeps its latest records."""

    required, keeps = False, True

    def __init__(self) -> None:
        self.kept: deque[AuditRecord] = deque(maxlen=10_000)

    def put_nowait(self, record: AuditRecord) -> bool:
        self.kept.append(record)
        return True

    def accepts(self) -> bool:
        return True


class _Active:
    """A PolicySource whose policies never change."""

    def __init__(self, policies: LoadedPolicies) -> None:
        self._policies = policies
        self.entrypoint = policies.entrypoint

    def active(self) -> LoadedPolicies:
        return self._policies


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="turns of each [40]")
    parser.add_argument("--calls", type=int, default=2000, metavar="N", help="in a turn [2000]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    settings = load(None, ["cache.l1.ttl=1h"], {}).settings
    before = _resident_mib()
    # What a sidecar imports where tracing is on, and only there.
    from sark_pdp.observability.otlp import OtlpExporter
    from sark_pdp.observability.spans import Spans, TracedSink

    memory = _resident_mib() - before
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as folder:
        runtime = Runtime(
            eval_timeout=settings.limits.eval_timeout,
            memory_limit=settings.limits.wasm_memory,
            clock=SystemClock(),
            compiled_folder=Path(folder),
        )
        active = _Active(load_policies(read_bundle(default_bundle()), runtime))
        # Never started: what is queued is only counted against its room.
        spans = Spans(OtlpExporter("http://127.0.0.1:9", None, "bench", "bench"), options.rounds * options.calls + 100)
        traced = TracedSink(_Trail(), spans, 0.0, lambda: 1.0)
        ways: Mapping[str, tuple[Method, str]] = {
            "off": (_check(settings, active, _Trail()), "01"),
            "on, the caller is not sampled": (_check(settings, active, traced), "00"),
            "on, the caller is sampled": (_check(settings, active, traced), "01"),
        }
        times = _measured(ways, options.rounds, options.calls)
        runtime.close()
    export_us = _export_us(active.entrypoint(settings.policy.entrypoint))
    _report(times, export_us, memory, options.json)


def _check(settings: Settings, active: _Active, sink: AuditSink) -> Method:
    metrics, limits = Metrics(), settings.limits
    decider = Caches(settings.cache).above(Evaluator(metrics.evaluation))
    service = DecisionService(active, decider, sink, metrics.decision)
    documents = Documents(limits.max_input_bytes, limits.max_depth, limits.max_values)
    return methods(service, Questions(documents, settings.policy.entrypoint), limits.max_batch)[f"/{SERVICE}/Check"]


def _measured(ways: Mapping[str, tuple[Method, str]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds for one answer, by way and round."""
    message = CheckRequest(input_json=encode("document", DOCUMENT)).SerializeToString()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for method, _ in ways.values():
        for _ in range(100):
            method.answer(Metadata(), message)
    gc.disable()
    for turn in range(rounds):
        # Each has its place in the turn as often as the others.
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in names:
            method, flags = ways[name]
            metadata = Metadata(pairs=(("traceparent", _PARENT + flags),))
            began = time.thread_time_ns()
            for _ in range(calls):
                reply = method.answer_nowait(metadata, message)
            times[name].append((time.thread_time_ns() - began) / calls / 1e3)
            if reply is None or CheckResponse.FromString(reply.message).tier != TIER_L1:
                raise SystemExit("an answer did not come from L1")
        gc.collect()
    return times


def _export_us(entrypoint: Entrypoint) -> float:
    """Of a processor, for one span, by the thread that exports: the median of the batches."""
    from sark_pdp.model import DecisionId, Outcome, Seconds, Tier
    from sark_pdp.observability.otlp import OtlpExporter
    from sark_pdp.observability.spans import Finished

    id_ = DecisionId("01900000-0000-7000-8000-000000000000")
    one = Finished(f"{_PARENT}01", id_, entrypoint, time.time_ns(), 1000, Outcome.ALLOW, Tier.L1, Seconds(1.0))
    took = []
    with collector() as url:
        exporter = OtlpExporter(url, None, "bench", "bench")
        for _ in range(_EXPORTS):
            began = time.thread_time_ns()
            if problem := exporter.export([one] * _BATCH):
                raise SystemExit(problem)
            took.append((time.thread_time_ns() - began) / _BATCH / 1e3)
        exporter.abort()
    return statistics.median(took)


def _resident_mib() -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def _report(times: Mapping[str, Sequence[float]], export_us: float, memory: float, output: Path | None) -> None:
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratios = {
        name: statistics.median(mine / off for mine, off in zip(each, times["off"], strict=True))
        for name, each in times.items()
    }
    rows = [[name, f"{medians[name]:.2f}", f"{ratios[name]:.3f}"] for name in times]
    print(table(["tracing", "µs of CPU for an answer", "times off"], rows))
    print(f"one span, by the thread that exports: {export_us:.0f} µs of CPU; the packages: {memory:.1f} MiB resident")
    figures = {"answer_us": medians, "times_off": ratios, "export_us": export_us, "packages_mib": memory}
    write_json(output, {"machine": describe(), "figures": figures})


if __name__ == "__main__":
    main()
