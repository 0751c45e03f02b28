"""Spans of decisions: what the answer path notes of each, and the thread that has them exported.

An answer pays for one small record and its place in a bounded queue. Nothing here knows how a span is exported, and
nothing of it is imported where tracing is off.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from sark_pdp.interfaces import AuditSink
from sark_pdp.model import (
    AuditRecord,
    DecisionId,
    DecisionRecord,
    Entrypoint,
    FilterRecord,
    Outcome,
    Seconds,
    Tier,
)
from sark_pdp.observability.instruments import Counter

_BATCH: Final = 512
"""Spans of one export."""
_INTERVAL: Final = 1.0
"""Seconds from one look into the queue to the next. With the capacity it bounds what exporting takes of a processor."""
_SAMPLED: Final = frozenset("13579bdf")
"""The last digit of a `traceparent` whose sampled flag is set."""

_log = logging.getLogger(__name__)


class Finished(Struct, frozen=True, gc=False):
    """A decision that was answered, as far as its span tells of it: nothing of its document or reason."""

    parent: str
    """`traceparent` of the caller, or empty."""
    id: DecisionId | None
    """Of the event; None where it was not recorded, and something else was answered."""
    entrypoint: Entrypoint
    ended_ns: int
    """Since the epoch, UTC."""
    took_ns: int
    outcome: Outcome
    tier: Tier | None
    """None of a `Filter`, whose decisions may differ."""
    age: Seconds
    resources: int = 0
    """Of a `Filter`; zero of any other decision."""
    allowed: int = 0
    """Of these resources."""


class Exporter(Protocol):
    """Sends spans somewhere."""

    def export(self, finished: Sequence[Finished]) -> str:
        """May wait, a bounded time. What went wrong, as the end of a sentence; empty where they were taken."""

    def abort(self) -> None:
        """Called from another thread: an export that waits before it tries again gives up, and so do all others."""


class Spans(Collector):
    """A bounded queue and the thread that exports what is in it. `start` and `close` are called once each."""

    def __init__(self, exporter: Exporter, capacity: int = 4096) -> None:
        self._exporter = exporter
        # What put_nowait compares with: zero once the queue is closed.
        self._limit = capacity
        self._queue: deque[Finished] = deque()
        self._no_room = Counter()
        # Counted by the thread alone.
        self._failed = self._exported = 0
        self.problem = ""
        """Why the last export failed."""
        self._closing = False
        self._parked = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)

    @property
    def dropped(self) -> int:
        """Spans that nobody will see, since the start."""
        return self._no_room.value + self._failed

    def put_nowait(self, finished: Finished) -> None:
        """Queues one, or drops and counts it. From any thread; waits for nothing."""
        if len(self._queue) >= self._limit:
            self._no_room.inc()
            return
        self._queue.append(finished)
        if self._parked:
            self._wake.set()

    def start(self) -> None:
        """From now on they are exported."""
        self._thread.start()

    def close(self, grace: Seconds) -> None:
        """Exports what is left, within `grace` seconds."""
        self._limit = 0
        self._closing = True
        self._wake.set()
        if self.problem:
            self._exporter.abort()
        self._thread.join(grace)
        if self._thread.is_alive():
            self._exporter.abort()
            _log.warning("spans are lost: they were not exported within the grace", extra={"grace": grace})

    def problems(self) -> list[str]:
        """What an operator should know."""
        return [f"Spans are not exported: {self.problem}"] if self.problem else []

    def collect(self) -> list[Metric]:
        """The families now."""
        dropped = "Spans that were not exported: the queue was full, or the collector did not take them."
        return [
            CounterMetricFamily("sark_trace_spans_exported", "Spans that the collector has.", value=self._exported),
            CounterMetricFamily("sark_trace_spans_dropped", dropped, value=self.dropped),
        ]

    # What follows runs on the thread.

    def _run(self) -> None:
        while not self._closing:
            self._park()
            self._wake.clear()
            if not self._closing:
                self._wake.wait(_INTERVAL)
            self._export_queued()
        self._export_queued()

    def _park(self) -> None:
        """Waits for a span; an idle process wakes nobody."""
        self._wake.clear()
        self._parked = True
        # One that came before that line woke nobody.
        if not (self._queue or self._closing):
            self._wake.wait()
        self._parked = False

    def _export_queued(self) -> None:
        """What is there now, and no more: what comes meanwhile has its turn after the next interval."""
        left = len(self._queue)
        while left:
            batch = [self._queue.popleft() for _ in range(min(left, _BATCH))]
            left -= len(batch)
            self._note(self._export(batch), len(batch))

    def _export(self, batch: Sequence[Finished]) -> str:
        try:
            return self._exporter.export(batch)
        except Exception:  # noqa: BLE001 (logged)
            _log.exception("spans could not be exported")
            return "the exporter failed; the log has the reason"

    def _note(self, problem: str, number: int) -> None:
        if problem:
            self._failed += number
            if not self.problem:
                _log.warning("spans are not exported: %s", problem)
            if self._closing:
                # Or each of the batches that are left would wait for itself.
                self._exporter.abort()
        else:
            self._exported += number
            if self.problem:
                _log.info("spans are exported again")
        self.problem = problem


class TracedSink:
    """An AuditSink that notes a span of each decision before the audit trail has it. Thread-safe."""

    keeps = True

    def __init__(self, sink: AuditSink, spans: Spans, ratio: float, chance: Callable[[], float]) -> None:
        """`ratio` is the share of decisions without a parent that are traced; `chance` gives numbers from 0 to 1."""
        self.required = sink.required
        self.accepts = sink.accepts
        self._record = sink.put_nowait
        self._spans = spans
        self._ratio = ratio
        self._chance = chance

    def put_nowait(self, record: AuditRecord) -> bool:
        """As the audit trail does it."""
        kept = self._record(record)
        if type(record) is DecisionRecord:
            if self._sampled(record.request.trace):
                self._spans.put_nowait(_of_decision(record, given=kept or not self.required))
        elif type(record) is FilterRecord and self._sampled(record.requests[0].trace):
            self._spans.put_nowait(_of_filter(record, given=kept or not self.required))
        return kept

    def _sampled(self, parent: str) -> bool:
        return parent[-1] in _SAMPLED if parent else self._chance() < self._ratio


def _of_decision(record: DecisionRecord, *, given: bool) -> Finished:
    """`given`: whether it was answered; else an error was."""
    decision, request = record.decision, record.request
    return Finished(
        request.trace,
        record.id if given else None,
        request.entrypoint,
        record.time_ns,
        record.latency_ns,
        decision.verdict.outcome if given else Outcome.ERROR,
        decision.tier if given else Tier.EVALUATED,
        decision.age if given else Seconds(0.0),
    )


def _of_filter(record: FilterRecord, *, given: bool) -> Finished:
    """The outcome is that of its event: allowed where any is, for then there is something to see."""
    outcomes = [decision.verdict.outcome for decision in record.decisions] if given else [Outcome.ERROR]
    ranked = (Outcome.ALLOW, Outcome.ERROR, Outcome.DENY, Outcome.UNDEFINED)
    return Finished(
        record.requests[0].trace,
        record.id,
        record.requests[0].entrypoint,
        record.time_ns,
        record.latency_ns,
        next(outcome for outcome in ranked if outcome in outcomes),
        None,
        max(decision.age for decision in record.decisions),
        len(record.requests),
        outcomes.count(Outcome.ALLOW),
    )
