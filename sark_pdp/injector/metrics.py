"""What the injector counts."""

from collections.abc import Callable
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

from sark_pdp.injector.admission import Outcome

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds. 20 ms is what is promised of 99 in 100."""
_INVALID: Final = "invalid"
_UNREAD: Final = "unread"
_CROWDED: Final = ("connection", "review")
_EVENTS: Final = ("sent", "failed", "dropped", "repeated")


class InjectorMetrics:
    """The instruments of one injector."""

    def __init__(self, expires: Callable[[], float]) -> None:
        """`expires` is when the certificate in use ends, in seconds since 1970."""
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._reviews = Counter(
            "sark_injector_reviews",
            "Admission reviews: injected, complete (nothing was missing), skipped, refused, admitted (without a "
            "sidecar, though it should have one), invalid (no review of a pod), unread (too large, or not whole in "
            "time).",
            ["outcome"],
            registry=registry,
        )
        self._duration = Histogram(
            "sark_injector_review_duration_seconds",
            "Time of an answer, from when the review was read.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.events = Counter(
            "sark_injector_events",
            "Kubernetes Events about pods without a sidecar: sent, failed, dropped (too many waited), repeated (the "
            "same was told within a minute).",
            ["result"],
            registry=registry,
        )
        self.crowded_out = Counter(
            "sark_injector_crowded_out",
            "What made room, where too many were held open: connections on which nothing came for the longest, and "
            "reviews that were not whole.",
            ["what"],
            registry=registry,
        )
        self.reloads = Counter(
            "sark_injector_certificate_reloads", "How often another certificate was taken.", registry=registry
        )
        expiry = Gauge(
            "sark_injector_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in seconds since 1970.",
            registry=registry,
        )
        expiry.set_function(expires)
        for outcome in (*Outcome, _INVALID, _UNREAD):
            self._reviews.labels(outcome)
        for result in _EVENTS:
            self.events.labels(result)
        for what in _CROWDED:
            self.crowded_out.labels(what)

    def unread(self) -> None:
        """A review was given up before it was whole."""
        self._reviews.labels(_UNREAD).inc()

    def answered(self, outcome: Outcome | None, seconds: float) -> None:
        """A review was answered; None where it was none."""
        self._reviews.labels(outcome or _INVALID).inc()
        self._duration.observe(seconds)
