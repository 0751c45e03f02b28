"""What the publisher counts, and shows on a scrape."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sark_pdp.observability.instruments import Counter

_KINDS: Final = ("user", "server", "tool", "unknown")


class PublisherMetrics(Collector):
    """Counted by the publisher's thread alone."""

    def __init__(self) -> None:
        self.listening = False
        """Whether changes are heard now."""
        self.connections = Counter()
        self.invalidated = Counter()
        """Subjects."""
        self.failures = Counter()
        self._heard = {kind: Counter() for kind in _KINDS}

    def heard(self, kind: str) -> None:
        """One notification came; a kind that there is not counts as unknown."""
        self._heard[kind if kind in self._heard else "unknown"].inc()

    def registry(self) -> CollectorRegistry:
        """Everything that a scrape shows, the process and the interpreter included."""
        everything = CollectorRegistry()
        everything.register(self)
        ProcessCollector(registry=everything)
        PlatformCollector(registry=everything)
        GCCollector(registry=everything)
        return everything

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield GaugeMetricFamily(
            "sark_publisher_listening", "1 while changes of the registry are heard.", value=float(self.listening)
        )
        yield CounterMetricFamily(
            "sark_publisher_connections", "How often the registry began to be heard.", value=self.connections.value
        )
        heard = CounterMetricFamily(
            "sark_publisher_notifications", "Notifications of the registry that came.", labels=["kind"]
        )
        for kind, count in self._heard.items():
            heard.add_metric([kind], count.value)
        yield heard
        yield CounterMetricFamily(
            "sark_publisher_invalidations",
            "Subjects that were invalidated for every sidecar.",
            value=self.invalidated.value,
        )
        yield CounterMetricFamily(
            "sark_publisher_failures", "Invalidations that Redis did not take.", value=self.failures.value
        )
