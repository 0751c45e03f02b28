"""What the tables of the audit trail promise, on plain PostgreSQL and, where the server offers it, on TimescaleDB."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from sark_pdp._proto.audit_pb2 import Filter, SearchRequest
from sark_pdp.audit.source import CHECKPOINT
from sark_pdp.audit_writer.columns import row_of
from sark_pdp.audit_writer.questions import Asked
from sark_pdp.audit_writer.schema import Form
from sark_pdp.audit_writer.sessions import WRITING, session_of
from sark_pdp.audit_writer.store import EventStore, Rejection, Written
from sark_pdp.errors import DatabaseError, InvalidRequestError
from sark_pdp.postgres.connections import connect
from tests.fix_postgres import NewDatabase
from tests.fix_store import SOURCE, Trail, event, now


def test_a_batch_is_stored_once_however_often_it_is_written(trail: Trail) -> None:
    rows = [event(number) for number in range(1, 101)]
    assert trail.store.write(rows) == Written(inserted=100)
    assert trail.store.write([*rows, event(101)]) == Written(inserted=1, duplicates=100)
    stored = trail.all("SELECT sequence, payload, chain FROM audit_events ORDER BY sequence")
    assert [row[0] for row in stored] == list(range(1, 102))
    assert [row[1] for row in stored[:100]] == [row.payload for row in rows]
    assert stored[4][2] == (5).to_bytes(32)


def test_each_column_is_what_the_payload_says(trail: Trail) -> None:
    row = event(1, timestamp="2026-01-02T03:04:05.678901Z", ip_address="2001:db8::1", user_email="a@example.com")
    trail.store.write([row])
    names = "source, sequence, event_type, severity, user_id, user_email, server_id, tool_name, decision, policy_id"
    rest = "policy_revision, host(ip_address), user_agent, request_id, details, timestamp"
    (stored,) = trail.all(f"SELECT id, {names}, {rest} FROM audit_events")
    assert stored == (
        UUID(bytes=row.key),
        *(SOURCE, 1, "authorization_denied", "medium", "alice", "a@example.com", "srv-1", "search", "deny"),
        *("sark/mcp/decision", "r1", "2001:db8::1", "test", "request-1", {"reason": "no"}),
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    )


@pytest.mark.parametrize(
    ("given", "column", "stored"),
    [
        ({"user_id": "a\0b"}, "user_id", "a\N{REPLACEMENT CHARACTER}b"),
        ({"user_id": "ü" * 4000}, "user_id", "ü" * 512),
        ({"user_id": 7}, "user_id", None),
        ({"ip_address": "pod-7"}, "host(ip_address)", None),
        ({"ip_address": "fe80::1%eth0"}, "host(ip_address)", "fe80::1"),
        ({"details": {"a\0": ["\0"]}}, "details", {"a\N{REPLACEMENT CHARACTER}": ["\N{REPLACEMENT CHARACTER}"]}),
        ({"details": {"backslash": "\\u0000"}}, "details", {"backslash": "\\u0000"}),
        ({"details": {"é": "\N{GRINNING FACE}"}}, "details", {"é": "\N{GRINNING FACE}"}),
    ],
)
def test_what_no_column_can_hold_is_no_reason_to_lose_the_event(
    trail: Trail, given: dict[str, Any], column: str, stored: Any
) -> None:
    row = event(1, **given)
    assert trail.store.write([row]) == Written(inserted=1)
    assert trail.all(f"SELECT {column}, payload FROM audit_events") == [(stored, row.payload)]


def test_an_event_that_the_database_refuses_is_set_aside_alone(trail: Trail) -> None:
    rows = [event(number) for number in range(1, 21)]
    # A number that numeric does not hold: JSON, but no jsonb.
    payload = rows[6].payload.replace(b'"no"', b"1e200000")
    rows[6] = row_of(SOURCE, 7, bytes(32), payload)
    rejection = Rejection(SOURCE, 50, bytes(32), b"nonsense", "the payload is none")
    assert trail.store.write(rows, [rejection]) == Written(inserted=19, rejected=2)
    assert trail.store.write(rows, [rejection]) == Written(duplicates=19, rejected=2)
    rejected = trail.all("SELECT source, sequence, payload, code FROM audit_rejected ORDER BY sequence")
    assert rejected == [(SOURCE, 7, payload, "22003"), (SOURCE, 50, b"nonsense", "")]


def test_checkpoints_are_copied_to_where_no_retention_is(trail: Trail) -> None:
    mark = event(2, event_type=CHECKPOINT, details={"sequence": 1, "chain": "00"})
    trail.store.write([event(1), mark, event(3)])
    trail.store.write([mark])
    stored = trail.all("SELECT source, sequence, event_type, payload FROM audit_checkpoints")
    assert stored == [(SOURCE, 2, CHECKPOINT, mark.payload)]


def test_without_the_tables_it_says_what_to_do(new_database: NewDatabase) -> None:
    dsn = new_database()
    store = EventStore(lambda: connect(session_of(dsn, WRITING), "test"))
    with pytest.raises(DatabaseError, match="sark-pdp db migrate"):
        store.write([event(1)])


def search(trail: Trail, size: int, token: str = "", **wanted: str) -> tuple[list[int], str]:
    page = trail.questions.search(Asked(), SearchRequest(filter=Filter(**wanted), page_size=size, page_token=token))
    return [found.sequence for found in page.events], page.next_page_token


def test_pages_hold_each_event_once_whatever_is_inserted_meanwhile(trail: Trail) -> None:
    start = now() - timedelta(minutes=5)
    # Three of them at one point in time.
    rows = [event(n, timestamp=(start + timedelta(seconds=n // 3)).isoformat()) for n in range(1, 31)]
    trail.store.write(rows)
    seen, token = search(trail, 7)
    number = 100
    while token:
        trail.store.write([event(number)])
        number += 1
        page, token = search(trail, 7, token)
        seen += page
    expected = sorted(rows, key=lambda row: (row.time_us, row.key), reverse=True)
    assert seen == [row.sequence for row in expected]


def test_a_filter_selects(trail: Trail) -> None:
    old = (now() - timedelta(hours=2)).isoformat()
    trail.store.write(
        [
            event(1, user_id="bob"),
            event(2, server_id="srv-2", tool_name="delete"),
            event(3, decision="allow", event_type="authorization_allowed"),
            event(4, timestamp=old),
        ]
    )
    recent = (now() - timedelta(hours=1)).isoformat()
    assert search(trail, 10, user_id="bob")[0] == [1]
    assert search(trail, 10, server_id="srv-2", tool_name="delete")[0] == [2]
    assert search(trail, 10, decision="allow")[0] == [3]
    assert search(trail, 10, event_type="authorization_allowed")[0] == [3]
    assert search(trail, 10, until=recent)[0] == [4]
    assert set(search(trail, 10, since=recent, source=SOURCE)[0]) == {1, 2, 3}
    assert search(trail, 10, source="pod-2/0")[0] == []


@pytest.mark.parametrize("wanted", [{"since": "yesterday"}, {"until": "2026-01-01T00:00:00"}])
def test_a_time_that_is_none_is_refused(trail: Trail, wanted: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="RFC 3339"):
        search(trail, 1, **wanted)


def test_a_token_belongs_to_its_filter(trail: Trail) -> None:
    trail.store.write([event(1), event(2)])
    _, token = search(trail, 1)
    for other, wanted in ((token, {"user_id": "bob"}), ("nonsense", {}), (token[:-2], {})):
        with pytest.raises(InvalidRequestError, match="page_token"):
            search(trail, 1, other, **wanted)


def counts(trail: Trail) -> dict[tuple[str, str, str], int]:
    found = trail.questions.hourly_counts(Asked(), Filter()).counts
    assert len({(it.hour, it.user_id, it.event_type) for it in found}) == len(found)
    return {(it.hour, it.user_id, it.event_type): it.count for it in found}


def counted(trail: Trail) -> dict[tuple[str, str, str], int]:
    """The same of the raw events."""
    query = """
    SELECT to_char(date_trunc('hour', timestamp, 'UTC') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
           coalesce(user_id, ''), event_type, count(*) FROM audit_events GROUP BY 1, 2, 3
    """
    return {row[:3]: row[3] for row in trail.all(query)}


def test_counts_are_those_of_the_events_before_and_after_each_pass_late_ones_included(trail: Trail) -> None:
    number = 0
    for round_ in range(3):
        rows = []
        for hours in (0, 1, 5, 30):
            for user in ("alice", "bob", None):
                number += 1
                stamp = (now() - timedelta(hours=hours, seconds=150 * (round_ % 2))).isoformat()
                rows.append(event(number, user_id=user, timestamp=stamp))
        trail.store.write(rows)
        assert trail.maintain()
        assert counts(trail) == counted(trail)
    if trail.form is Form.PLAIN:
        assert sum(row[0] for row in trail.all("SELECT sum(count) FROM audit_hourly_counts")) > number // 2
    assert trail.all("SELECT hour FROM audit_late_hours WHERE hour < now() - interval '70 minutes'") == []


def test_one_writer_at_a_time_does_the_maintenance(trail: Trail) -> None:
    with connect(trail.dsn, "test") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x5341524B_00000011])
        assert not trail.maintain()
    assert trail.maintain()


def test_an_event_whose_place_another_one_has_is_rejected_and_not_taken_for_stored(trail: Trail) -> None:
    first = event(1)
    assert trail.store.write([first], []) == Written(inserted=1)
    columns = msgspec.json.decode(first.payload)
    other = event(
        7, id=columns["id"], timestamp=columns["timestamp"], source="pod-2/0123456789abcdef", user_id="mallory"
    )
    assert trail.store.write([first, other], []) == Written(inserted=0, duplicates=1, rejected=1)
    assert trail.all("SELECT user_id FROM audit_events") == [("alice",)]
    rejected = trail.all("SELECT source, sequence, code, payload FROM audit_rejected")
    assert [(*columns, bytes(payload)) for *columns, payload in rejected] == [(other.source, 7, "23505", other.payload)]
