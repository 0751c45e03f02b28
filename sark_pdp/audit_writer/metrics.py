"""What the writer counts."""

import time
from collections import deque
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from sark_pdp.audit_writer.store import Written

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
"""Seconds."""
_WINDOW: Final = 30.0
"""Seconds over which the load is measured: about what an HPA looks at."""


class WriterMetrics:
    """The instruments of one writer. `batch` and `pending` are called by its event loop, `load` by a scrape."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._events = Counter(
            "sark_audit_writer_events",
            "Events that are in the database: inserted, duplicate (were there already) or rejected.",
            ["result"],
            registry=registry,
        )
        self._batch_events = Histogram(
            "sark_audit_writer_batch_events",
            "Events of a committed batch.",
            buckets=(1, 10, 50, 100, 250, 500, 1000, 2000, 5000),
            registry=registry,
        )
        self._queries = Histogram(
            "sark_db_query_duration_seconds",
            "Time of a query, or of a committed batch.",
            ["operation", "table"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._pending_events = Gauge(
            "sark_audit_writer_pending_events", "Events that wait for their batch.", registry=registry
        )
        self._pending_bytes = Gauge(
            "sark_audit_writer_pending_bytes", "Memory of events that are not committed yet.", registry=registry
        )
        self._pending: dict[bool, tuple[int, int]] = {}
        self.streams = Gauge("sark_audit_writer_streams", "Open streams of sidecars.", registry=registry)
        self.tails = Gauge("sark_audit_writer_tails", "Open calls of Tail.", registry=registry)
        self.retries = Counter("sark_audit_writer_retries", "Batches that had to be tried again.", registry=registry)
        self.refused = Counter(
            "sark_audit_writer_refused_calls", "Calls that were refused.", ["reason"], registry=registry
        )
        self.pool_size = Gauge("sark_db_pool_size", "Connections for queries.", registry=registry)
        self.pool_overflow = Gauge("sark_db_pool_overflow", "Of these, above database.pool_size.", registry=registry)
        load = Gauge(
            "sark_audit_writer_load",
            "The share of the last 30 seconds in which batches were being committed, 0 to 1: add replicas above 0.7.",
            registry=registry,
        )
        self._batches: deque[tuple[float, float]] = deque(maxlen=10_000)
        load.set_function(self.load)
        for result in ("inserted", "duplicate", "rejected"):
            self._events.labels(result)

    def batch(self, written: Written, events: int, took: float, *, late: bool) -> None:
        """A batch was committed, after so many seconds. Late ones are no load: more replicas would not help them."""
        self._events.labels("inserted").inc(written.inserted)
        self._events.labels("duplicate").inc(written.duplicates)
        self._events.labels("rejected").inc(written.rejected)
        self._batch_events.observe(events)
        self.query("write", took)
        if not late:
            self._batches.append((time.monotonic(), took))

    def query(self, operation: str, took: float) -> None:
        """A question to the database was answered, after so many seconds."""
        self._queries.labels(operation, "audit_events").observe(took)

    def pending(self, events: int, size: int, *, late: bool) -> None:
        """So much is in memory now."""
        self._pending[late] = (events, size)
        self._pending_events.set(sum(each for each, _ in self._pending.values()))
        self._pending_bytes.set(sum(each for _, each in self._pending.values()))

    def load(self) -> float:
        """Of the last seconds, the share in which a batch was being committed."""
        since = time.monotonic() - _WINDOW
        return min(1.0, sum(took for ended, took in self._batches.copy() if ended >= since) / _WINDOW)
