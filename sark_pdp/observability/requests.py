"""What is counted of HTTP requests, and how a scrape shows it."""

from collections.abc import Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sark_pdp.model import Seconds
from sark_pdp.observability.instruments import Histogram

REQUEST_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds: what SARK's dashboards expect."""
OTHER: Final = "other"
"""What the label `endpoint` says of paths that nobody serves, and `method` of methods that HTTP does not name."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


class RequestMetrics:
    """The requests for one endpoint. For the one thread that carries them."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is its path as it is registered, never one that a caller sent."""
        self.endpoint = endpoint
        self._handled: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, Histogram] = {}

    def handled(self, method: str, status: int, took: Seconds) -> None:
        """One request ended."""
        named = method if method in _METHODS else OTHER
        self._handled[named, status] = self._handled.get((named, status), 0) + 1
        if named not in self._seconds:
            self._seconds[named] = Histogram(REQUEST_BUCKETS)
        self._seconds[named].observe(took)

    def counts(self) -> list[tuple[str, int, int]]:
        """Method, status, and how many there were."""
        return [(method, status, count) for (method, status), count in list(self._handled.items())]

    def times(self) -> list[tuple[str, Histogram]]:
        """By method."""
        return list(self._seconds.items())


class HttpMetrics(Collector):
    """All endpoints."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = {endpoint: RequestMetrics(endpoint) for endpoint in (*endpoints, OTHER)}

    def of(self, endpoint: str) -> RequestMetrics:
        """Of one of them."""
        return self._endpoints[endpoint]

    def collect(self) -> list[Metric]:
        """The families now."""
        requests = CounterMetricFamily(
            "sark_http_requests", "HTTP requests that were answered.", labels=["method", "endpoint", "status"]
        )
        times = HistogramMetricFamily(
            "sark_http_request_duration_seconds",
            "Time from the end of a request's headers until it was answered.",
            labels=["method", "endpoint"],
        )
        for counted in self._endpoints.values():
            for method, status, count in counted.counts():
                requests.add_metric([method, counted.endpoint, str(status)], count)
            for method, seconds in counted.times():
                times.add_metric([method, counted.endpoint], *seconds.cumulative())
        return [requests, times]
