"""What is counted of bundles. Names are those of the settings, reasons a closed set: no label grows without bound."""

import time
from collections.abc import Iterable
from threading import Lock

from msgspec import Struct
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric


class BundleReading(Struct, frozen=True):
    """One configured bundle at one moment."""

    name: str
    revision: str
    """Its digest where it has none; empty where nothing of it is active."""
    failing: bool
    """What was delivered last is not active, or nothing is delivered."""


class BundleMetrics:
    """Activations and failures since the start; `_lock` guards them, for they are rare."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._activations: dict[str, int] = {}
        self._activated_at: dict[str, float] = {}
        self._failures: dict[tuple[str, str], int] = {}

    def activated(self, name: str) -> None:
        """A new content of this bundle answers."""
        with self._lock:
            self._activations[name] = self._activations.get(name, 0) + 1
            self._activated_at[name] = time.time()

    def failed(self, name: str, reason: str) -> None:
        """It could not be fetched or activated."""
        with self._lock:
            self._failures[name, reason] = self._failures.get((name, reason), 0) + 1

    def families(self, readings: Iterable[BundleReading]) -> list[Metric]:
        """As a scrape shows them."""
        info = InfoMetricFamily("sark_bundle", "The active policy bundles.", labels=[])
        failing = GaugeMetricFamily(
            "sark_bundle_failing", "1 where what was delivered last is not active.", labels=["name"]
        )
        activations = CounterMetricFamily("sark_bundle_activations", "Contents that were activated.", labels=["name"])
        activated = GaugeMetricFamily(
            "sark_bundle_last_activation_timestamp_seconds", "When the active content came.", labels=["name"]
        )
        failures = CounterMetricFamily(
            "sark_bundle_failures", "Contents that were refused, and fetches that failed.", labels=["name", "reason"]
        )
        for reading in readings:
            failing.add_metric([reading.name], float(reading.failing))
            if reading.revision:
                info.add_metric([], {"name": reading.name, "revision": reading.revision})
        with self._lock:
            for name, count in self._activations.items():
                activations.add_metric([name], count)
                activated.add_metric([name], self._activated_at[name])
            for (name, reason), count in self._failures.items():
                failures.add_metric([name, reason], count)
        return [info, failing, activations, activated, failures]
