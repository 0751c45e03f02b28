"""Instruments of what is asked of PostgreSQL."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sark_pdp.model import Seconds
from sark_pdp.observability.instruments import Histogram

QUERY_BUCKETS = (0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""

ReadPool = Callable[[], tuple[int, int]]
"""Connections that there are, and those that the pool is meant to have."""


class DatabaseMetrics(Collector):
    """Registered where a database is configured. Operations and tables are few and named by the program."""

    def __init__(self) -> None:
        self._queries: dict[tuple[str, str], Histogram] = {}
        self._pool: ReadPool = lambda: (0, 0)

    def query(self, operation: str, table: str, took: Seconds) -> None:
        """One query was answered."""
        times = self._queries.get((operation, table))
        if times is None:
            times = self._queries.setdefault((operation, table), Histogram(QUERY_BUCKETS))
        times.observe(took)

    def read_pool(self, read: ReadPool) -> None:
        """`read` is asked on each scrape."""
        self._pool = read

    def queries(self) -> dict[tuple[str, str], int]:
        """How many there were, by operation and table."""
        return {key: times.count() for key, times in [*self._queries.items()]}

    def collect(self) -> Iterator[Metric]:
        """What a scrape shows."""
        family = HistogramMetricFamily(
            "sark_db_query_duration_seconds", "Time that queries took.", labels=["operation", "table"]
        )
        for labels, times in sorted([*self._queries.items()]):
            family.add_metric([*labels], *times.cumulative())
        yield family
        size, meant = self._pool()
        yield GaugeMetricFamily("sark_db_pool_size", "Connections of the pool.", value=min(size, meant))
        yield GaugeMetricFamily(
            "sark_db_pool_overflow", "Connections beyond the size of the pool.", value=max(size - meant, 0)
        )
