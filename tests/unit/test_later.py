"""Writes behind the answers: bounded, grouped, and never the end of the thread that makes them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sark_pdp.cache import later
from sark_pdp.cache.later import LaterQueue

MakeQueue = Callable[..., LaterQueue[int]]


@pytest.fixture
def make_queue() -> Iterator[MakeQueue]:
    with ExitStack() as made:

        def make(write: Callable[..., None], tick: Callable[[], None] = lambda: None) -> LaterQueue[int]:
            queue: LaterQueue[int] = LaterQueue(write, tick)
            made.callback(queue.close)
            return queue

        yield make


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_what_is_put_is_written_in_order_and_in_groups(make_queue: MakeQueue) -> None:
    groups: list[list[int]] = []
    queue = make_queue(lambda group: groups.append(list(group)))
    queue.put([(number, 10) for number in range(2500)])
    queue.start()
    until(lambda: sum(map(len, groups)) == 2500)
    assert [number for group in groups for number in group] == list(range(2500))
    assert [len(group) for group in groups] == [1000, 1000, 500]
    assert queue.dropped == 0


def test_a_group_is_not_more_than_a_network_takes_in_a_moment(make_queue: MakeQueue) -> None:
    groups: list[int] = []
    queue = make_queue(lambda group: groups.append(len(group)))
    queue.put([(number, 100_000) for number in range(9)])
    queue.start()
    until(lambda: sum(groups) == 9)
    assert groups == [3, 3, 3]


@pytest.mark.parametrize(("size", "fits"), [(1, 4096), (100_000, 83)])
def test_more_than_there_is_room_for_is_dropped_and_counted(make_queue: MakeQueue, size: int, fits: int) -> None:
    written: list[int] = []
    queue = make_queue(written.extend)
    queue.put([(number, size) for number in range(3000)])
    queue.put([(number, size) for number in range(3000, 6000)])
    assert queue.dropped == 6000 - fits
    queue.start()
    until(lambda: len(written) == fits)
    assert written == list(range(fits))
    # And there is room again.
    queue.put([(7, size)])
    until(lambda: len(written) == fits + 1)


def test_a_write_that_fails_costs_what_it_held_alone(make_queue: MakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    written: list[int] = []

    def write(group: list[int]) -> None:
        if 1 in group:
            raise ValueError("it cannot be written")
        written.extend(group)

    queue = make_queue(write)
    queue.start()
    queue.put([(1, 1)])
    until(lambda: "the cache could not be written" in caplog.text)
    queue.put([(2, 1)])
    until(lambda: written == [2])


def test_what_may_have_changed_is_looked_at_however_much_there_is_to_write(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "_TICK", 0.05)
    ticks: list[float] = []
    queue: LaterQueue[int]

    def write(_group: list[int]) -> None:
        queue.put([(1, 1)])

    queue = make_queue(write, lambda: ticks.append(time.monotonic()))
    queue.put([(1, 1)])
    queue.start()
    until(lambda: len(ticks) == 3)


def test_nobody_waits_for_a_write_that_hangs(make_queue: MakeQueue) -> None:
    hanging, let_go = threading.Event(), threading.Event()

    def write(_group: list[int]) -> None:
        hanging.set()
        let_go.wait(30)

    queue = make_queue(write)
    queue.start()
    queue.put([(1, 1)])
    assert hanging.wait(30)
    for number in range(10_000):
        queue.put([(number, 1)])
    assert queue.dropped == 10_000 - 4096
    let_go.set()
