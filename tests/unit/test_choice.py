"""Whether Redis is asked: the quicker way, measured, and measured again."""

import pytest

from sark_pdp.cache import choice
from sark_pdp.cache.choice import Choice


class Time:
    """`time.monotonic()` as the choice sees it."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(choice, "time", made)
    return made


def measured(made: Choice, round_trip: float, miss: float, entrypoint: str = "e") -> Choice:
    made.asked(entrypoint, round_trip)
    made.missed(entrypoint, miss)
    return made


@pytest.mark.usefixtures("clock")
def test_always_asks_whatever_it_costs() -> None:
    assert measured(Choice("always"), 1.0, 0.001).asks("e")


def test_who_measures_nothing_does_what_is_quicker_and_takes_no_turn_of_those_who_measure(clock: Time) -> None:
    made = measured(Choice("auto"), 0.001, 0.0001)
    clock.now += 11
    assert [made.prefers("e") for _ in range(100)] == [False] * 100
    assert made.asks("e")
    assert measured(Choice("always"), 1.0, 0.001).prefers("e")
    assert made.prefers("other")


@pytest.mark.usefixtures("clock")
def test_what_was_not_measured_yet_is_asked() -> None:
    made = Choice("auto")
    assert made.asks("e")
    made.missed("e", 0.001)
    assert made.asks("e")


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("round_trip", "miss", "asks"), [(0.0001, 0.002, True), (0.002, 0.0001, False)])
def test_auto_takes_the_quicker_way_for_each_entrypoint(round_trip: float, miss: float, asks: bool) -> None:
    made = measured(Choice("auto"), round_trip, miss)
    measured(made, miss, round_trip, "other")
    assert [made.asks("e") for _ in range(100)] == [asks] * 100
    assert made.asks("other") is not asks
    mine, other = made.costs()
    assert (mine.entrypoint, mine.round_trip, mine.miss, mine.asks) == ("e", round_trip, miss, asks)
    assert (other.entrypoint, other.asks) == ("other", not asks)


@pytest.mark.parametrize("asks", [True, False])
def test_the_other_way_is_tried_now_and_then(clock: Time, asks: bool) -> None:
    made = measured(Choice("auto"), 0.001 if asks else 0.002, 0.0015)
    for _ in range(3):
        clock.now += 10
        tried = [made.asks("e") for _ in range(100)]
        assert tried == [not asks] * 8 + [asks] * 92


def test_a_way_that_became_quick_is_taken_again(clock: Time) -> None:
    made = measured(Choice("auto"), 0.005, 0.001)
    for _ in range(20):
        clock.now += 10
        while made.asks("e") and not made.costs()[0].asks:
            made.asked("e", 0.0001)
    assert made.costs()[0].asks


@pytest.mark.usefixtures("clock")
def test_one_outlier_does_not_decide() -> None:
    made = Choice("auto")
    for _ in range(5):
        measured(made, 0.0001, 0.00001)
    made.missed("e", 10.0)
    assert not made.asks("e")


@pytest.mark.usefixtures("clock")
def test_the_number_of_entrypoints_is_bounded() -> None:
    made = Choice("auto")
    for number in range(1000):
        made.missed(f"e-{number}", 0.001)
    assert len(made.costs()) <= 256
