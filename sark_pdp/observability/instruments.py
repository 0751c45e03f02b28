"""Counters and histograms for the answer path: `prometheus_client` reads them on a scrape, nothing else of it is paid.

They take no lock, which would cost more than the count itself. The statement that changes a number has no call in it,
and CPython with its global lock changes threads only at calls, returns and backward jumps: no count is lost. A build
without that lock would lose some; a test shows the promise on the build at hand.
"""

from bisect import bisect_left
from collections.abc import Sequence


class Counter:
    """Only ever grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Adds one."""
        self.value += 1


class Histogram:
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper ones, ascending, included in their bucket; a last bucket takes what is above."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one observation."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._sum += value

    def add(self, by_bucket: Sequence[int], total: float) -> None:
        """Adds observations that somebody else counted: how many fell into each bucket, and their sum."""
        for bucket, number in enumerate(by_bucket):
            self._counts[bucket] += number
        self._sum += total

    def count(self) -> int:
        """All observations."""
        return sum(self._counts)

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """For each bound as Prometheus writes it how many were not above, `+Inf` last; and the sum."""
        # Read before the counts: a scrape in between shows a sum of fewer observations, never of more.
        total = self._sum
        names = [*map(str, self._bounds), "+Inf"]
        seen = 0
        buckets: list[tuple[str, float]] = []
        for name, count in zip(names, self._counts.copy(), strict=True):
            seen += count
            buckets.append((name, seen))
        return buckets, total
