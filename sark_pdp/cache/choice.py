"""Whether to ask Redis at all: what a round trip and a miss cost, measured for each entrypoint."""

import time
from typing import Final, Literal, TypeAlias

from sark_pdp.model import Seconds
from sark_pdp.observability.shared_cache import EntrypointCosts

Mode: TypeAlias = Literal["always", "auto"]

_WEIGHT: Final = 0.1
"""Of the latest measurement in an average."""
_OUTLIER: Final = 8.0
"""Times the average: a longer one, of a thread that had to wait for its turn, counts as this much."""
_AGAIN: Final = 10.0
"""Seconds after which what is skipped is measured again."""
_SAMPLES: Final = 8
"""How often it is then taken, so that one outlier does not decide."""
_MOST_ENTRYPOINTS: Final = 256


class _Measured:
    __slots__ = ("measure_again", "miss", "round_trip", "samples_left")

    def __init__(self, now: float) -> None:
        self.round_trip: float | None = None
        self.miss: float | None = None
        self.measure_again = now + _AGAIN
        self.samples_left = 0


class Choice:
    """`always` asks Redis; `auto` takes the quicker way. Thread-safe: a measurement that is lost changes nothing."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self._measured: dict[str, _Measured] = {}

    def asks(self, entrypoint: str) -> bool:
        """Whether to ask Redis this time."""
        if self.mode == "always":
            return True
        measured = self._measured.get(entrypoint)
        if measured is None:
            return True
        preferred = _asks(measured)
        now = time.monotonic()
        if now >= measured.measure_again:
            measured.measure_again = now + _AGAIN
            measured.samples_left = _SAMPLES
        if measured.samples_left > 0:
            measured.samples_left -= 1
            return not preferred
        return preferred

    def prefers(self, entrypoint: str) -> bool:
        """Whether asking Redis is the quicker way as far as is known, for who measures nothing."""
        measured = self._measured.get(entrypoint)
        return self.mode == "always" or measured is None or _asks(measured)

    def asked(self, entrypoint: str, took: float) -> None:
        """Redis was asked, and took so many seconds to answer or not to."""
        measured = self._of(entrypoint)
        measured.round_trip = _average(measured.round_trip, took)

    def missed(self, entrypoint: str, took: float) -> None:
        """The policy was evaluated in so many seconds."""
        measured = self._of(entrypoint)
        measured.miss = _average(measured.miss, took)

    def costs(self) -> list[EntrypointCosts]:
        """What is known now."""
        return [
            EntrypointCosts(name, _seconds(it.round_trip), _seconds(it.miss), self.mode == "always" or _asks(it))
            for name, it in sorted(self._measured.copy().items())
        ]

    def _of(self, entrypoint: str) -> _Measured:
        measured = self._measured.get(entrypoint)
        if measured is None:
            if len(self._measured) >= _MOST_ENTRYPOINTS:
                self._measured = {}
            measured = self._measured.setdefault(entrypoint, _Measured(time.monotonic()))
        return measured


def _asks(measured: _Measured) -> bool:
    return measured.round_trip is None or measured.miss is None or measured.round_trip <= measured.miss


def _average(former: float | None, latest: float) -> float:
    if former is None:
        return latest
    return former + _WEIGHT * (min(latest, _OUTLIER * former) - former)


def _seconds(value: float | None) -> Seconds | None:
    return None if value is None else Seconds(value)
