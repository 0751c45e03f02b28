"""`sark-pdp audit-writer` as a real process on a real PostgreSQL: streams, questions, an outage, the end."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import psycopg
import pytest
import uuid_utils
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sark_pdp._proto.audit_pb2 import Ack, Batch, Event, Filter, HourlyCountsResponse, SearchRequest, SearchResponse
from tests.fix_postgres import PostgresServer, StartPostgres
from tests.fix_writer_process import AuditWriter, StartWriter, make_tables

PUSH = "/sark.audit.v1.AuditIngest/Push"
QUERY = "/sark.audit.v1.AuditQuery"
SOURCE = "pod-1/0123456789abcdef"
OTHER = "pod-2/fedcba9876543210"
TIMEOUT = 30.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Stream:
    """One open call of Push."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._batches: queue.Queue[Batch | None] = queue.Queue()
        self.call: Any = channel.stream_stream(
            PUSH, request_serializer=Batch.SerializeToString, response_deserializer=Ack.FromString
        )(iter(self._batches.get, None))

    def send(self, *events: Event, source: str = SOURCE) -> None:
        self._batches.put(Batch(source=source, events=events))

    def finish(self) -> None:
        self._batches.put(None)

    def wait_acknowledged(self, sequence: int) -> None:
        for ack in self.call:
            if ack.sequence == sequence:
                return
        raise AssertionError("the stream ended")

    def wait_refused(self) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError):
            list(self.call)
        code: grpc.StatusCode = self.call.code()
        return code


def event(sequence: int, source: str = SOURCE, **columns: Any) -> Event:
    payload = {
        "id": str(uuid_utils.uuid7()),
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "source": source,
        "sequence": sequence,
        "event_type": "authorization_allowed",
        "severity": "low",
        "user_id": "alice",
        "details": {},
        **columns,
    }
    return Event(sequence=sequence, chain=bytes(32), payload=msgspec.json.encode(payload))


@pytest.fixture
def channel_to() -> Iterator[Callable[[AuditWriter], grpc.Channel]]:
    opened: list[grpc.Channel] = []

    def connect(writer: AuditWriter) -> grpc.Channel:
        opened.append(grpc.insecure_channel(writer.address))
        return opened[-1]

    yield connect
    for channel in opened:
        channel.close()


def sequences(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM audit_events ORDER BY sequence")]


Connect = Callable[[AuditWriter], grpc.Channel]


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
    writer = start_writer(store, **_tls(certificates), **settings)
    with _secure(writer, certificates) as channel:
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
    writer = start_writer(store, **_tls(certificates), **settings)
    with _secure(writer, certificates) as channel:
        for method in ("Search", "HourlyCounts"):
            call: Any = channel.unary_unary(f"{QUERY}/{method}")
            if allowed:
                call(b"", timeout=TIMEOUT)
            else:
                with pytest.raises(grpc.RpcError) as refused:
                    call(b"", timeout=TIMEOUT)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def _tls(certificates: Path) -> dict[str, str]:
    files = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
    return {f"tls__{key}": str(certificates / name) for key, name in files.items()}


def _secure(writer: AuditWriter, certificates: Path) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        *((certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    )
    options = (("grpc.ssl_target_name_override", "server.test"),)
    return grpc.secure_channel(writer.address, credentials, options)
