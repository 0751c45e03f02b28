"""Who may be evaluated where nothing may wait: quick ones, and slow ones ever less often."""

import pytest

from sark_pdp.engine.wasm.pace import BUDGET, Pace

QUICK, SLOW = BUDGET / 2, BUDGET * 2


def rounds_until_quick(pace: Pace) -> int:
    """How many quick evaluations it takes."""
    rounds = 0
    while not pace.quick:
        pace.observe(QUICK)
        rounds += 1
    return rounds


def test_everything_is_quick_until_it_was_slow() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.observe(BUDGET)
    assert pace.quick
    pace.observe(SLOW)
    assert not pace.quick


def test_a_suspicion_that_proves_wrong_costs_one_evaluation_each_time() -> None:
    """A busy machine makes anything look slow by the clock on the wall."""
    pace = Pace()
    for _ in range(100):
        pace.suspect()
        assert not pace.quick
        assert rounds_until_quick(pace) == 1


def test_a_suspicion_does_not_shorten_what_was_proved() -> None:
    """What was cut off may have begun before another evaluation proved to be slow."""
    pace = Pace()
    pace.observe(SLOW)
    pace.suspect()
    assert rounds_until_quick(pace) == 64


def test_who_is_slow_again_comes_back_later_each_time() -> None:
    pace = Pace()
    came_back = []
    for _ in range(8):
        pace.suspect()
        pace.observe(SLOW)
        came_back.append(rounds_until_quick(pace))
    assert came_back == [64, 256, 1024, 4096, 16_384, 65_536, 65_536, 65_536]


@pytest.mark.parametrize("quick", [0, 1, 63])
def test_only_quick_ones_in_a_row_count(quick: int) -> None:
    pace = Pace()
    pace.observe(SLOW)
    for _ in range(quick):
        pace.observe(QUICK)
    pace.observe(SLOW)
    assert rounds_until_quick(pace) == 256
