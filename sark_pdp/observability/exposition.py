"""Turns the instruments, and what other parts tell of themselves, into Prometheus' metric families on a scrape."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sark_pdp.interfaces import StoreStatistics
from sark_pdp.observability.bundles import BundleReading
from sark_pdp.observability.fronts import front_families
from sark_pdp.observability.metrics import Metrics

CODE_NAMES = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)
"""The status codes by number, as grpc-go writes them: the spelling of the usual gRPC dashboards."""

_log = logging.getLogger(__name__)


class AuditReadings(Struct, frozen=True):
    """The audit trail at one moment."""

    queue_depth: int
    """Events that wait for the spool."""
    spool_bytes: int
    """On disk."""
    dropped: int
    """Events lost since the start."""
    ships: bool
    """Whether there is an audit writer."""
    shipped: int
    """Events that it acknowledged since the start."""
    lag_seconds: float
    """Age of the oldest event that was sent and is not acknowledged."""


class Readings(Struct, frozen=True):
    """What is asked of other parts on each scrape; each callable is quick and thread-safe."""

    stores: Callable[[], Iterable[StoreStatistics]]
    bundles: Callable[[], Iterable[BundleReading]]
    audit: Callable[[], AuditReadings]


def registry(metrics: Metrics, readings: Readings) -> CollectorRegistry:
    """Everything that a scrape shows, the process and the interpreter included."""
    everything = CollectorRegistry()
    everything.register(_Exposition(metrics, readings))
    ProcessCollector(registry=everything)
    PlatformCollector(registry=everything)
    GCCollector(registry=everything)
    return everything


class _Exposition(Collector):
    def __init__(self, metrics: Metrics, readings: Readings) -> None:
        self._metrics = metrics
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        """One part that fails costs its own metrics, not the scrape."""
        self._metrics.refresh()
        parts = (
            self._decisions,
            self._evaluations,
            self._calls,
            self._fronts,
            self._events,
            self._stores,
            self._bundles,
            self._audit,
        )
        for part in parts:
            try:
                families = part()
            except Exception:  # noqa: BLE001 (logged)
                _log.exception("metrics could not be read", extra={"part": part.__name__.strip("_")})
                continue
            for family in families:
                # A scrape is milliseconds of Python: answers that wait for the interpreter go first.
                time.sleep(0)
                yield family

    def _decisions(self) -> list[Metric]:
        family = CounterMetricFamily("sark_decisions", "Decisions answered.", labels=["outcome", "tier"])
        for outcome, tier, count in self._metrics.decisions():
            family.add_metric([outcome.name.lower(), tier.name.lower()], count)
        return [family]

    def _evaluations(self) -> list[Metric]:
        family = HistogramMetricFamily(
            "sark_policy_evaluation_duration_seconds",
            "Time that policy evaluations took; answers from a cache are not in it.",
            labels=["policy", "decision"],
        )
        for entrypoint, outcome, times in self._metrics.evaluations():
            family.add_metric([entrypoint, outcome.name.lower()], *times.cumulative())
        return [family]

    def _calls(self) -> list[Metric]:
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls that were answered, with any status.", labels=[*labels, "grpc_code"]
        )
        handling = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time from when a call was taken up until it ended.", labels=labels
        )
        for calls in self._metrics.all_calls():
            values = [calls.kind, calls.service, calls.method]
            for code, count in zip(CODE_NAMES, calls.by_code(), strict=True):
                if count or code == "OK":
                    handled.add_metric([*values, code], count)
            handling.add_metric(values, *calls.seconds.cumulative())
        return [handled, handling]

    def _fronts(self) -> list[Metric]:
        return front_families(self._metrics.fronts())

    def _events(self) -> list[Metric]:
        activation = HistogramMetricFamily(
            "sark_bundle_activation_seconds", "Time from reading a bundle until it answered."
        )
        activation.add_metric([], *self._metrics.activation.cumulative())
        shed = CounterMetricFamily(
            "sark_shed_requests", "Calls refused because a limit was reached.", value=self._metrics.shed.value
        )
        return [activation, shed]

    def _stores(self) -> list[Metric]:
        hits = CounterMetricFamily("sark_cache_hits", "Answers found in the cache.", labels=["cache_name"])
        misses = CounterMetricFamily("sark_cache_misses", "Answers not found in the cache.", labels=["cache_name"])
        entries = GaugeMetricFamily("sark_cache_entries", "Answers that the cache holds.", labels=["cache_name"])
        for store in self._readings.stores():
            hits.add_metric([store.name], store.hits)
            misses.add_metric([store.name], store.misses)
            if store.capacity:
                entries.add_metric([store.name], store.entries)
        return [hits, misses, entries]

    def _bundles(self) -> list[Metric]:
        return self._metrics.bundles.families(self._readings.bundles())

    def _audit(self) -> list[Metric]:
        audit = self._readings.audit()
        shipping = [
            CounterMetricFamily("sark_audit_shipped", "Events that an audit writer has.", value=audit.shipped),
            GaugeMetricFamily(
                "sark_audit_lag_seconds",
                "Age of the oldest event that was sent to an audit writer and is not acknowledged.",
                value=audit.lag_seconds,
            ),
        ]
        return [
            *(shipping if audit.ships else ()),
            GaugeMetricFamily("sark_audit_queue_depth", "Events that wait for the spool.", value=audit.queue_depth),
            GaugeMetricFamily("sark_audit_spool_bytes", "Size of the spool on disk.", value=audit.spool_bytes),
            CounterMetricFamily("sark_audit_dropped", "Events that were lost.", value=audit.dropped),
        ]
