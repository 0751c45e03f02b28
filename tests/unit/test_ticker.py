"""The epoch: it advances while somebody wants it to, for as long as any evaluation may take, and then rests."""

import threading
import time
from collections.abc import Iterator

import pytest
import wasmtime

from sark_pdp.engine.wasm.ticker import TICK, Ticker, ticks_in
from sark_pdp.model import Seconds


class CountingEngine(wasmtime.Engine):
    """Counts the ticks of its epoch."""

    ticks = 0

    def increment_epoch(self) -> None:
        self.ticks += 1


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def ticker(engine: CountingEngine) -> Iterator[Ticker]:
    made = Ticker(engine, Seconds(0.01))
    yield made
    made.close()


def wait_parked(ticker: Ticker, engine: CountingEngine, least: int) -> None:
    """Until at least so many ticks are over and no more follow for a while."""
    deadline = time.monotonic() + 30
    seen = -1
    while engine.ticks < least or engine.ticks != seen:
        assert time.monotonic() < deadline
        seen = engine.ticks
        time.sleep(0.1)


TIMEOUTS = [0.0001, 0.001, 0.005, 0.05, 0.1, 0.65, 1.0, 10.0]


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_ticks_outlast_the_timeout_by_little(timeout: float) -> None:
    ticks = ticks_in(Seconds(timeout))
    # The first tick may come at once.
    assert (ticks - 1) * TICK >= timeout
    assert ticks * TICK <= timeout + 2 * TICK + 1e-9


def test_nobody_is_woken_while_nothing_is_evaluated(ticker: Ticker, engine: CountingEngine) -> None:
    time.sleep(0.05)
    assert engine.ticks == 0
    ticker.want()
    wait_parked(ticker, engine, 64)
    assert engine.ticks == 64
    ticker.want()
    wait_parked(ticker, engine, 2 * 64)
    assert engine.ticks == 2 * 64


def test_a_round_outlasts_the_longest_evaluation(engine: CountingEngine) -> None:
    ticker = Ticker(engine, Seconds(0.8))
    try:
        ticker.want()
        wait_parked(ticker, engine, ticker.ticks)
        assert engine.ticks >= ticker.ticks
    finally:
        ticker.close()


def test_wanting_it_during_a_round_gives_another_whole_one(ticker: Ticker, engine: CountingEngine) -> None:
    ticker.want()
    deadline = time.monotonic() + 30
    while engine.ticks < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    ticker.want()
    wait_parked(ticker, engine, 2 * 64)
    assert engine.ticks == 2 * 64


def test_closing_ends_the_thread(engine: CountingEngine) -> None:
    for wanted in (False, True):
        others = set(threading.enumerate())
        ticker = Ticker(engine, Seconds(0.01))
        [thread] = [each for each in threading.enumerate() if each not in others and each.name == "epoch"]
        if wanted:
            ticker.want()
        ticker.close()
        assert not thread.is_alive()
