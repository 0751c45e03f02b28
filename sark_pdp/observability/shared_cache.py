"""What a scrape shows of the cache that sidecars share."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sark_pdp.model import Seconds


class EntrypointCosts(Struct, frozen=True):
    """What asking Redis and not asking it cost for one entrypoint, on average."""

    entrypoint: str
    round_trip: Seconds | None
    """None where it was not measured yet."""
    miss: Seconds | None
    """Of an evaluation; None where it was not measured yet."""
    asks: bool
    """Whether Redis is asked, rather than the policy at once."""


class SharedCacheReadings(Struct, frozen=True):
    """The shared cache at one moment; counts are since the start."""

    up: bool
    """Whether Redis is asked: the breaker is closed."""
    errors: Mapping[str, int]
    """How often Redis was of no use, by reason."""
    oddities: Mapping[str, int]
    """Values that were not believed, by reason."""
    dropped: int
    """Values that were not kept because too many waited."""
    costs: Sequence[EntrypointCosts]
    trusted: bool
    """Whether it is proved that invalidations are heard."""
    channel: Mapping[str, int]
    """What happened on the channel of invalidations, by event."""


class SharedCacheMetrics(Collector):
    """Asks for the readings on each scrape."""

    def __init__(self, read: Callable[[], SharedCacheReadings]) -> None:
        self._read = read

    def collect(self) -> list[Metric]:
        """The families now."""
        return _families(self._read())


def _families(now: SharedCacheReadings) -> list[Metric]:
    errors = CounterMetricFamily("sark_redis_errors", "Times that Redis was of no use.", labels=["reason"])
    for reason, count in now.errors.items():
        errors.add_metric([reason], count)
    refused = CounterMetricFamily(
        "sark_cache_l2_refused_values", "Values in Redis that were not believed, or too large.", labels=["reason"]
    )
    for oddity, count in now.oddities.items():
        refused.add_metric([oddity], count)
    channel = CounterMetricFamily(
        "sark_cache_channel_events",
        "Invalidations that were heard, malformed ones, and times that the channel was lost.",
        labels=["event"],
    )
    for event, count in now.channel.items():
        channel.add_metric([event], count)
    costs = GaugeMetricFamily(
        "sark_cache_l2_cost_seconds",
        "What asking Redis (round_trip) and evaluating instead (miss) take on average.",
        labels=["policy", "way"],
    )
    asked = GaugeMetricFamily("sark_cache_l2_asked", "1: Redis is asked, 0: it is skipped.", labels=["policy"])
    for each in now.costs:
        asked.add_metric([each.entrypoint], each.asks)
        for way, cost in (("round_trip", each.round_trip), ("miss", each.miss)):
            if cost is not None:
                costs.add_metric([each.entrypoint, way], cost)
    return [
        errors,
        refused,
        costs,
        asked,
        GaugeMetricFamily("sark_redis_up", "1 while Redis is asked, 0 while the breaker is open.", value=now.up),
        channel,
        GaugeMetricFamily("sark_cache_channel_trusted", "1 while invalidations are heard for sure.", value=now.trusted),
        CounterMetricFamily(
            "sark_cache_l2_dropped_writes", "Values not kept because too many waited.", value=now.dropped
        ),
    ]
