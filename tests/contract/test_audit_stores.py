"""Several writers on one database: what they do at the same time, each event being stored once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from sark_pdp.audit_writer.schema import Form
from sark_pdp.audit_writer.sessions import WRITING, session_of
from sark_pdp.audit_writer.store import EventStore, Written
from sark_pdp.postgres.connections import connect
from tests.fix_store import Trail, event, now

COUNTED = "SELECT (SELECT sum(count) FROM audit_events_hourly) = (SELECT count(*) FROM audit_events)"


def together(*functions: Callable[[], Any]) -> list[Any]:
    """What each returns, all begun at the same moment on threads of their own; raises what one of them does."""
    barrier = threading.Barrier(len(functions))

    def begin(function: Callable[[], Any]) -> Any:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [done.result() for done in [pool.submit(begin, function) for function in functions]]


@pytest.fixture
def stores(trail: Trail) -> Iterator[list[EventStore]]:
    """As many writers."""
    made = [EventStore(lambda: connect(session_of(trail.dsn, WRITING), "test")) for _ in range(3)]
    yield made
    for store in made:
        store.close()


def test_writers_with_the_same_events_store_each_once_and_do_not_wait_in_a_circle(
    trail: Trail, stores: list[EventStore]
) -> None:
    rows = [event(number) for number in range(1, 1501)]
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        orders = (part, part[::-1], part[250:] + part[:250])
        writes = (partial(store.write, order) for store, order in zip(stores, orders, strict=True))
        written = together(*writes)
        assert sum(each.inserted for each in written) == 500
        assert sum(each.duplicates for each in written) == 1000
    assert trail.all("SELECT count(*), count(DISTINCT id) FROM audit_events") == [(1500, 1500)]


def test_writers_make_the_days_that_they_need_at_the_same_time(trail: Trail, stores: list[EventStore]) -> None:
    for round_ in range(3):
        days = [(now() - timedelta(days=10 * round_ + day)).isoformat() for day in range(1, 11)]
        numbers = [range(1000 * index + 100 * round_, 1000 * index + 100 * round_ + 10) for index in range(1, 4)]
        batches = [[event(number, timestamp=day) for number, day in zip(each, days, strict=True)] for each in numbers]
        written = together(*(partial(it.write, batch) for it, batch in zip(stores, batches, strict=True)))
        assert written == [Written(inserted=10)] * 3


def again(function: Callable[..., Any], *arguments: Any) -> Any:
    """As a writer does: what fails is done again."""
    for _ in range(20):
        try:
            return function(*arguments)
        except psycopg.Error:
            continue
    return function(*arguments)


def test_passes_and_batches_of_several_writers_go_on_at_the_same_time(trail: Trail, stores: list[EventStore]) -> None:
    """A day may be dropped while one writer puts events there and another makes it anew: none is taken for poison."""
    if trail.form is Form.TIMESCALE:
        pytest.skip("its own jobs make and drop chunks")
    for round_ in range(5):
        old = [event(100 * round_ + n, timestamp=(now() - timedelta(days=95 + n)).isoformat()) for n in range(1, 6)]
        new = [event(1000 + 100 * round_ + number) for number in range(50)]
        done = together(
            partial(again, trail.maintain),
            partial(again, trail.maintain),
            partial(again, stores[0].write, new[:25] + old[:3]),
            partial(again, stores[1].write, new[25:] + old[3:]),
            partial(again, stores[2].write, old),
        )
        assert any(done[:2])
    assert trail.all("SELECT count(*), count(DISTINCT id) FROM audit_events WHERE sequence >= 1000") == [(250, 250)]
    assert trail.all("SELECT count(*) FROM audit_rejected") == [(0,)]
    assert again(trail.maintain)
    assert trail.all("SELECT count(*) FROM audit_events WHERE sequence < 1000") == [(0,)]
    assert trail.all(COUNTED) == [(True,)]
