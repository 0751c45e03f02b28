"""What questions about the stored trail promise: bounds, whole answers, and ends; in both forms of the store."""

from datetime import timedelta
from threading import Thread

import psycopg
import pytest

from sark_pdp._proto.audit_pb2 import Event, Filter, SearchRequest
from sark_pdp.audit_writer import questions
from sark_pdp.audit_writer.questions import Asked, GivenUpError, TooManyError
from sark_pdp.audit_writer.sessions import ASKING, session_of
from sark_pdp.audit_writer.store import Written
from sark_pdp.audit_writer.tail import Commit
from tests.fix_store import Trail, event, now
from tests.fix_writer_streams import wait_for

MIB = 1 << 20


def pages(trail: Trail, size: int) -> list[list[Event]]:
    found = []
    request = SearchRequest(page_size=size)
    while True:
        page = trail.questions.search(Asked(), request)
        found.append(list(page.events))
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def test_no_page_is_larger_than_a_message_may_be_and_none_is_left_out(trail: Trail) -> None:
    """But one event alone, however large it is."""
    sizes = [MIB, MIB, MIB, 5 * MIB, MIB, 0, 0]
    rows = [event(number, details={"x": "x" * size}) for number, size in enumerate(sizes, 1)]
    trail.store.write(rows)
    found = pages(trail, 1000)
    assert sorted(each.sequence for page in found for each in page) == list(range(1, 8))
    for page in found:
        assert len(page) == 1 or sum(len(each.payload) for each in page) <= 3 * MIB
    assert len(found) >= 4


def test_pages_repeat_nothing_and_miss_nothing_while_late_and_new_events_are_stored(trail: Trail) -> None:
    """Of what was there before the first page, whatever time the others are of."""
    start = now() - timedelta(minutes=5)
    rows = [event(n, timestamp=(start + timedelta(milliseconds=n // 2)).isoformat()) for n in range(1, 61)]
    trail.store.write(rows)
    request, seen, number = SearchRequest(page_size=7), [], 1000
    while True:
        page = trail.questions.search(Asked(), request)
        seen += [each.sequence for each in page.events]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        times = (now(), start + timedelta(milliseconds=number % 30), start - timedelta(seconds=number))
        trail.store.write([event(number + n, timestamp=time.isoformat()) for n, time in enumerate(times)])
        number += len(times)
    assert len(set(seen)) == len(seen)
    before = [sequence for sequence in seen if sequence < 1000]
    assert before == [row.sequence for row in sorted(rows, key=lambda row: (row.time_us, row.key), reverse=True)]


def test_the_events_of_a_commit_come_in_parts_each_once(trail: Trail) -> None:
    rows = [event(number, user_id="bob" if number % 3 else "eve") for number in range(1, 2501)]
    assert trail.store.write(rows) == Written(inserted=len(rows))
    trail.store.write([event(5000)])
    ((transaction,),) = trail.all("SELECT DISTINCT xmin::text FROM audit_events WHERE sequence < 5000")
    commit = Commit(int(transaction), min(row.time_us for row in rows), max(row.time_us for row in rows))
    for wanted, expected in ((Filter(), rows), (Filter(user_id="eve"), rows[2::3])):
        seen, after, asked = [], None, 0
        while True:
            events, after = trail.questions.committed(Asked(), wanted, commit, after)
            seen += [each.sequence for each in events]
            asked += 1
            if after is None:
                break
        assert sorted(seen) == [row.sequence for row in expected]
        assert asked == -(-len(expected) // questions.LARGEST_PAGE)


def test_counts_are_all_or_none(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that is left out would be taken for nothing."""
    trail.store.write([event(number, user_id=f"user-{number}") for number in range(1, 12)])
    monkeypatch.setattr(questions, "MOST_COUNTS", 11)
    assert len(trail.questions.hourly_counts(Asked(), Filter()).counts) == 11
    monkeypatch.setattr(questions, "MOST_COUNTS", 10)
    with pytest.raises(TooManyError, match="shorter time"):
        trail.questions.hourly_counts(Asked(), Filter())


def test_a_question_that_is_given_up_ends_in_the_database_too(trail: Trail) -> None:
    """And its connection meets no other question."""
    trail.store.write([event(1)])
    asked = Asked()
    ended: list[Exception] = []

    def ask() -> None:
        try:
            trail.questions.search(asked, SearchRequest())
        except (psycopg.Error, GivenUpError) as error:
            ended.append(error)

    with psycopg.connect(trail.dsn) as other:
        other.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        thread = Thread(target=ask)
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_for(lambda: trail.all(waiting) == [(1,)])
        asked.give_up()
        thread.join(30)
        assert isinstance(ended[0], psycopg.errors.QueryCanceled)
        assert trail.all(waiting) == [(0,)]
    asked.give_up()
    with pytest.raises(GivenUpError):
        trail.questions.search(asked, SearchRequest())
    assert [each.sequence for each in trail.questions.search(Asked(), SearchRequest()).events] == [1]


def test_a_session_of_questions_writes_nothing_whoever_it_is(trail: Trail) -> None:
    with psycopg.connect(session_of(trail.dsn, ASKING)) as connection:
        for statement in (b"DELETE FROM audit_events", b"CREATE TABLE t (a int)", b"DROP TABLE audit_events"):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
                connection.execute(statement)
