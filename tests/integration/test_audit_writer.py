"""`sark-pdp audit-writer` as a real process on a real PostgreSQL: streams, questions, an outage, the end."""

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg.conninfo import make_conninfo

from sark_pdp._proto.audit_pb2 import Event, Filter, HourlyCountsResponse, SearchRequest, SearchResponse
from tests.fix_postgres import PostgresServer, StartPostgres
from tests.fix_writer_process import AuditWriter, StartWriter, make_tables
from tests.fix_writer_streams import (
    QUERY,
    SOURCE,
    TIMEOUT,
    Connect,
    Stream,
    event,
    secure_channel,
    wait_for,
    writer_tls,
)

OTHER = "pod-2/fedcba9876543210"


def sequences(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM audit_events ORDER BY sequence")]


def test_what_is_acknowledged_is_in_the_table_and_can_be_asked_for(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    writer = start_writer(store)
    channel = channel_to(writer)
    wait_for(lambda: writer.get("/readyz")[0] == 200)
    tail = channel.unary_stream(
        f"{QUERY}/Tail", request_serializer=Filter.SerializeToString, response_deserializer=Event.FromString
    )(Filter(user_id="bob"))
    tail.initial_metadata()
    stream = Stream(channel)
    stream.send(*(event(number) for number in range(1, 4)))
    stream.send(event(4, user_id="bob"), event(5))
    stream.wait_acknowledged(5)
    assert sequences(store) == [1, 2, 3, 4, 5]
    assert next(tail).sequence == 4
    tail.cancel()
    search: Any = channel.unary_unary(
        f"{QUERY}/Search",
        request_serializer=SearchRequest.SerializeToString,
        response_deserializer=SearchResponse.FromString,
    )
    page = search(SearchRequest(page_size=2), timeout=TIMEOUT)
    assert len(page.events) == 2
    rest = search(SearchRequest(page_size=9, page_token=page.next_page_token), timeout=TIMEOUT)
    assert sorted(it.sequence for it in (*page.events, *rest.events)) == [1, 2, 3, 4, 5]
    with pytest.raises(grpc.RpcError) as refused:
        search(SearchRequest(page_token="nonsense"), timeout=TIMEOUT)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    hourly: Any = channel.unary_unary(
        f"{QUERY}/HourlyCounts",
        request_serializer=Filter.SerializeToString,
        response_deserializer=HourlyCountsResponse.FromString,
    )
    counts = hourly(Filter(), timeout=TIMEOUT).counts
    assert sum(it.count for it in counts if it.user_id == "alice") == 4
    stream.finish()
    assert list(stream.call) == []
    assert 'sark_audit_writer_events_total{result="inserted"} 5.0' in writer.get("/metrics")[1]
    assert writer.stop() == 0, writer.log


def test_an_outage_keeps_the_stream_open_and_loses_nothing(
    start_postgres: StartPostgres, start_writer: StartWriter, channel_to: Connect
) -> None:
    server: PostgresServer = start_postgres()
    make_tables(server.dsn())
    writer = start_writer(server.dsn())
    stream = Stream(channel_to(writer))
    stream.send(event(1))
    stream.wait_acknowledged(1)
    wait_for(lambda: health(writer) == {"SERVING"})
    server.crash()
    stream.send(event(2))
    wait_for(lambda: writer.get("/readyz")[0] == 503)
    wait_for(lambda: health(writer) == {"NOT_SERVING"})
    stream.send(event(3))
    assert stream.call.is_active()
    # Readiness keeps new callers away; who comes all the same is listened to.
    late = Stream(channel_to(writer))
    late.send(event(1, OTHER), source=OTHER)
    server.start()
    stream.wait_acknowledged(3)
    late.wait_acknowledged(1)
    assert sequences(server.dsn()) == [1, 1, 2, 3]
    wait_for(lambda: writer.get("/readyz")[0] == 200)
    wait_for(lambda: health(writer) == {"SERVING"})


def health(writer: AuditWriter) -> set[str]:
    """What it says of itself and of its services."""
    with grpc.insecure_channel(writer.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answers = [
            stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
            for service in ("", "sark.audit.v1.AuditIngest", "sark.audit.v1.AuditQuery")
        ]
    return {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) for answer in answers}


def test_two_writers_that_get_the_same_events_store_each_once(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    """As when a sidecar moves while its former writer is still at it: in other batches, in another order."""
    events = [event(number) for number in range(1, 1001)]
    streams = [Stream(channel_to(start_writer(store, batch__max_events=size))) for size in (70, 110)]
    for offset in range(0, len(events), 100):
        part = events[offset : offset + 100]
        streams[0].send(*part)
        streams[1].send(*reversed(part))
    for stream in streams:
        stream.finish()
        list(stream.call)
        assert stream.call.code() is grpc.StatusCode.OK
    assert sequences(store) == list(range(1, 1001))
    with psycopg.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM audit_rejected").fetchone() == (0,)


def test_a_stream_may_end_at_one_writer_and_go_on_at_another(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    """Nothing is kept between: what the first one stored and did not acknowledge, the second one finds stored."""
    first, second = start_writer(store), start_writer(store)
    events = [event(number) for number in range(1, 31)]
    stream = Stream(channel_to(first))
    stream.send(*events[:10])
    stream.wait_acknowledged(10)
    stream.send(*events[10:20])
    wait_for(lambda: len(sequences(store)) == 20)
    first.kill()
    moved = Stream(channel_to(second))
    moved.send(*events[10:])
    moved.wait_acknowledged(30)
    assert sequences(store) == list(range(1, 31))
    assert 'sark_audit_writer_events_total{result="duplicate"} 10.0' in second.get("/metrics")[1]


HELD_UP = """
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.timestamp < now() - interval '7 days' THEN PERFORM pg_advisory_xact_lock(42); END IF; RETURN new; END $$;
CREATE TRIGGER hold_up BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION hold_up()
"""
HELD = "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted"


def test_late_events_that_take_long_hold_nobody_up_and_those_of_a_source_stay_in_order(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    writer = start_writer(store)
    late, usual = Stream(channel_to(writer)), Stream(channel_to(writer))
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute(HELD_UP)
        connection.execute("SELECT pg_advisory_lock(42)")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 10 * 86_400))
        late.send(event(1, timestamp=stamp))
        wait_for(lambda: connection.execute(HELD).fetchone() == (1,))
        late.send(event(2))
        wait_for(lambda: "sark_audit_writer_pending_events 1.0" in writer.get("/metrics")[1])
        for number in range(11, 14):
            usual.send(event(number, source=OTHER), source=OTHER)
            usual.wait_acknowledged(number)
        assert sequences(store) == [11, 12, 13]
        assert writer.get("/readyz")[0] == 200
        connection.execute("SELECT pg_advisory_unlock(42)")
    late.wait_acknowledged(2)
    assert sequences(store) == [1, 2, 11, 12, 13]
    assert writer.stop() == 0, writer.log


def test_a_writer_that_is_told_to_stop_acknowledges_what_it_read(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    writer = start_writer(store, batch__max_delay="1s")
    stream = Stream(channel_to(writer))
    stream.send(event(1))
    wait_for(lambda: "sark_audit_writer_pending_events 1.0" in writer.get("/metrics")[1] or sequences(store) == [1])
    assert writer.stop() == 0, writer.log
    stream.wait_acknowledged(1)
    assert stream.wait_refused() is grpc.StatusCode.UNAVAILABLE
    assert sequences(store) == [1]


@pytest.mark.parametrize(
    ("sent", "source"),
    [(event(0), SOURCE), (event(1), ""), (event(1), "x" * 513), (event(2**63), SOURCE), (event(1), "a\nb/1")],
)
def test_what_no_sidecar_sends_ends_the_stream(
    store: str, start_writer: StartWriter, channel_to: Connect, sent: Event, source: str
) -> None:
    stream = Stream(channel_to(start_writer(store)))
    stream.send(sent, source=source)
    assert stream.wait_refused() is grpc.StatusCode.INVALID_ARGUMENT


def test_more_events_than_any_sidecar_sends_at_once_end_the_stream(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    stream = Stream(channel_to(start_writer(store)))
    stream.send(*(Event(sequence=number) for number in range(1, 10_002)))
    assert stream.wait_refused() is grpc.StatusCode.INVALID_ARGUMENT
    assert sequences(store) == []


def test_an_event_in_the_name_of_another_source_is_set_aside(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    stream = Stream(channel_to(start_writer(store)))
    stream.send(event(1), event(2, source="pod-2/ff"), Event(sequence=3, payload=b"\xff"), event(4))
    stream.wait_acknowledged(4)
    assert sequences(store) == [1, 4]
    with psycopg.connect(store) as connection:
        rejected = connection.execute(
            "SELECT source, sequence, reason FROM audit_rejected ORDER BY sequence"
        ).fetchall()
    assert [row[:2] for row in rejected] == [(SOURCE, 2), (SOURCE, 3)]
    assert "pod-2/ff" in rejected[0][2]


def test_without_the_tables_it_waits_for_the_migration(
    database: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    writer = start_writer(database)
    stream = Stream(channel_to(writer))
    stream.send(event(1))
    wait_for(lambda: "sark-pdp db migrate" in writer.get("/readyz")[1])
    make_tables(database)
    stream.wait_acknowledged(1)


@pytest.mark.parametrize(
    ("source", "settings", "code"),
    [
        ("client.test/0123", {}, None),
        ("client.test/0123", {"tls__allowed_sans": '["client.test"]'}, None),
        ("other.test/0123", {}, grpc.StatusCode.PERMISSION_DENIED),
        ("client.test.evil/0123", {}, grpc.StatusCode.PERMISSION_DENIED),
        ("client.test/0123", {"tls__allowed_sans": '["other.test"]'}, grpc.StatusCode.PERMISSION_DENIED),
    ],
)
def test_a_certificate_covers_the_source_that_it_sends_for(
    store: str,
    start_writer: StartWriter,
    certificates: Path,
    source: str,
    settings: dict[str, str],
    code: grpc.StatusCode | None,
) -> None:
    writer = start_writer(store, **writer_tls(certificates), **settings)
    with secure_channel(writer, certificates) as channel:
        stream = Stream(channel)
        stream.send(event(1, source=source), source=source)
        if code is None:
            stream.wait_acknowledged(1)
        else:
            assert stream.wait_refused() is code
        stream.finish()


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [({}, False), ({"query__allowed_sans": '["client.test"]'}, True), ({"query__allowed_sans": '["a.test"]'}, False)],
)
def test_to_ask_takes_a_name_of_its_own(
    store: str, start_writer: StartWriter, certificates: Path, settings: dict[str, str], allowed: bool
) -> None:
    writer = start_writer(store, **writer_tls(certificates), **settings)
    with secure_channel(writer, certificates) as channel:
        for method in ("Search", "HourlyCounts"):
            call: Any = channel.unary_unary(f"{QUERY}/{method}")
            if allowed:
                call(b"", timeout=TIMEOUT)
            else:
                with pytest.raises(grpc.RpcError) as refused:
                    call(b"", timeout=TIMEOUT)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        follow: Any = channel.unary_stream(f"{QUERY}/Tail")
        tail = follow(b"")
        tail.initial_metadata()
        assert tail.done() is not allowed
        if not allowed:
            assert tail.code() is grpc.StatusCode.PERMISSION_DENIED
        tail.cancel()


def test_questions_may_be_asked_as_a_role_that_only_reads(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    """The role that writes needs no right to answer, and the one that answers none to write."""
    role = f"auditor_{uuid4().hex}"
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        connection.execute(f"GRANT SELECT ON audit_events, audit_events_hourly TO {role}".encode())
    try:
        writer = start_writer(store, database__query_dsn=make_conninfo(store, user=role))
        channel = channel_to(writer)
        follow: Any = channel.unary_stream(f"{QUERY}/Tail")
        tail = follow(b"")
        tail.initial_metadata()
        stream = Stream(channel)
        stream.send(event(1))
        stream.wait_acknowledged(1)
        assert Event.FromString(next(tail)).sequence == 1
        search: Any = channel.unary_unary(f"{QUERY}/Search")
        assert [each.sequence for each in SearchResponse.FromString(search(b"", timeout=TIMEOUT)).events] == [1]
        with psycopg.connect(store) as connection:
            names = "SELECT DISTINCT application_name, usename FROM pg_stat_activity WHERE application_name LIKE %s"
            users: dict[str, str] = dict(connection.execute(names, ["sark-pdp audit-writer%"]).fetchall())
        assert {users.pop(f"sark-pdp audit-writer {kind}") for kind in ("query", "tail")} == {role}
        assert set(users.values()) == {"postgres"}
        tail.cancel()
        assert writer.stop() == 0
    finally:
        with psycopg.connect(store, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_client_that_does_not_read_holds_nobody_up_and_leaves_nothing(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    writer = start_writer(store)
    channel = channel_to(writer)
    follow: Any = channel.unary_stream(
        f"{QUERY}/Tail", request_serializer=Filter.SerializeToString, response_deserializer=Event.FromString
    )
    lazy, eager = follow(Filter()), follow(Filter())
    for tail in (lazy, eager):
        tail.initial_metadata()
    stream = Stream(channel)
    number = 400
    for sequence in range(1, number + 1):
        # More than all buffers on the way hold.
        stream.send(event(sequence, details={"text": "x" * 30_000}))
    stream.wait_acknowledged(number)
    assert [next(eager).sequence for _ in range(number)] == list(range(1, number + 1))
    assert "sark_audit_writer_tails 2.0" in writer.get("/metrics")[1]
    lazy.cancel()
    eager.cancel()
    wait_for(lambda: "sark_audit_writer_tails 0.0" in writer.get("/metrics")[1])


def test_questions_that_nobody_waits_for_keep_none_of_others_waiting(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    writer = start_writer(store)
    search: Any = channel_to(writer).unary_unary(f"{QUERY}/Search")
    search(b"", timeout=TIMEOUT)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(store) as lock, psycopg.connect(store, autocommit=True) as look:
        lock.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        asked = [search.future(b"", timeout=TIMEOUT) for _ in range(12)]
        # As many as it has threads for.
        wait_for(lambda: look.execute(waiting).fetchone() == (8,))
        for each in asked:
            each.cancel()
        wait_for(lambda: look.execute(waiting).fetchone() == (0,))
        lock.rollback()
    search(b"", timeout=TIMEOUT)


def test_who_follows_hears_at_once_that_the_database_is_away(
    start_postgres: StartPostgres, start_writer: StartWriter, channel_to: Connect
) -> None:
    server: PostgresServer = start_postgres()
    make_tables(server.dsn())
    channel = channel_to(start_writer(server.dsn()))
    follow: Any = channel.unary_stream(f"{QUERY}/Tail")
    tail = follow(b"")
    tail.initial_metadata()
    server.crash()
    for call in (tail, follow(b"")):
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
    server.start()
    wait_for(lambda: _follows(follow))


def _follows(follow: Any) -> bool:
    call = follow(b"")
    call.initial_metadata()
    listening = not call.done()
    call.cancel()
    return listening
