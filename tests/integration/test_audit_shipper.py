"""The shipper with a real queue and spool, and a writer in memory that is slow, refuses, lies or goes away."""

import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from sark_pdp.audit import session, shipper
from sark_pdp.audit.event import event_of
from sark_pdp.audit.queue import AuditQueue
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.shipper import Shipper
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.spool_file import DATABASE
from sark_pdp.audit.uplink import Uplink, WriterTls
from sark_pdp.audit.verify import Report, verify
from sark_pdp.errors import StartError
from sark_pdp.model import Seconds
from tests import fix_writer
from tests.fix_audit import ManualClock, a_record, write_source
from tests.fix_serve import free_port
from tests.fix_writer import Behave, MemoryWriter

MIB = 2**20
GRACE = Seconds(30)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.005)


class Trail:
    """A queue and its shipper, as a sidecar has them."""

    def __init__(self, directory: Path, *targets: str, tls: WriterTls | None = None, max_bytes: int = 64 * MIB) -> None:
        self.directory = directory
        self.queue = AuditQueue(Spool(directory, max_bytes), "pod", clock=ManualClock())
        self.queue.start()
        self.source = self.queue.statistics().source
        self.shipper = Shipper(directory, self.queue.outbox, Uplink(targets, tls))
        self.shipper.start()
        self.open = True

    def put(self, number: int = 1, size: int = 0) -> None:
        """Records whose documents are of about so many bytes that cannot be packed."""
        for _ in range(number):
            noise = random.randbytes(size // 2).hex()
            record = a_record({"user": {"id": "alice"}, "parameters": {"x": noise}})
            wait_until(partial(self.queue.put_nowait, record))

    def wait_shipped(self) -> None:
        """Until everything that was put is committed, acknowledged and let go of."""
        wait_until(lambda: self.queue.statistics().queued == 0)
        wait_until(lambda: self.shipper.statistics().shipped >= self.queue.statistics().sequence)
        wait_until(lambda: self.kept() == 0)

    def kept(self) -> int:
        """Events in the spool."""
        return sum(end.sequence - end.shipped for end in self.sources())

    def sources(self) -> Any:
        with SpoolReader(self.directory) as reader:
            return reader.snapshot().sources

    def verified(self) -> Report:
        with SpoolReader(self.directory) as reader:
            return verify(reader)

    def close(self, grace: Seconds = GRACE) -> None:
        self.open = False
        self.queue.close(grace, self.shipper.finish)


Start = Callable[..., Trail]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    trails: list[Trail] = []

    def make(*targets: str, **options: Any) -> Trail:
        trails.append(Trail(tmp_path / "audit", *targets, **options))
        return trails[-1]

    yield make
    for trail in trails:
        if trail.open:
            trail.close(Seconds(1))


@pytest.fixture
def writer() -> Iterator[MemoryWriter]:
    made = MemoryWriter()
    yield made
    made.stop()


def test_what_is_committed_is_shipped_in_order_and_let_go_of(start: Start, writer: MemoryWriter) -> None:
    trail = start(writer.target)
    trail.put(1000)
    trail.wait_shipped()
    trail.put(3)
    trail.close()
    last = trail.queue.statistics().sequence
    assert last == 1005
    assert writer.sequences(trail.source) == list(range(1, last + 1))
    assert writer.received == last
    assert event_of(writer.events[trail.source, last][1]).event_type == "source_stopped"
    now = trail.shipper.statistics()
    assert (now.shipped, now.lag, now.problem) == (last, 0.0, "")
    (source,) = trail.verified().sources
    assert (source.shipped, source.events, source.end, source.differences) == (last, 0, "shipped", 0)


def test_what_earlier_processes_left_is_shipped_first(start: Start, writer: MemoryWriter, tmp_path: Path) -> None:
    left = [write_source(tmp_path / "audit", [3, 2], stopped=stopped) for stopped in (True, False)]
    trail = start(writer.target)
    trail.put(2)
    trail.wait_shipped()
    assert writer.sequences(left[0].name) == list(range(1, 8))
    assert writer.sequences(left[1].name) == list(range(1, 7))
    assert next(iter(writer.events))[0] == left[0].name
    assert [source.name for source in trail.sources()] == [left[1].name, trail.source]
    assert trail.verified().differences == 0


def test_a_writer_that_is_not_there_costs_disk_and_nothing_else(start: Start) -> None:
    port = free_port()
    trail = start(f"127.0.0.1:{port}")
    trail.put(500)
    wait_until(lambda: trail.shipper.statistics().problem)
    assert f"127.0.0.1:{port} does not take events: UNAVAILABLE" in trail.shipper.statistics().problem
    wait_until(lambda: trail.kept() == 501)
    writer = MemoryWriter(port)
    trail.wait_shipped()
    assert writer.sequences(trail.source) == list(range(1, 502))
    assert trail.shipper.statistics().problem == ""
    writer.stop()


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (fix_writer.refuse, "PERMISSION_DENIED: the certificate does not cover this source"),
        (fix_writer.reset_between_acknowledgements, "UNAVAILABLE: gone"),
        (fix_writer.acknowledge_too_much, "of which it was sent"),
        (fix_writer.acknowledge_a_stranger, "of which it was sent 0"),
    ],
)
def test_whatever_a_writer_does_nothing_is_let_go_of_that_it_does_not_have(
    start: Start, writer: MemoryWriter, behave: Behave, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer.behave = behave
    trail = start(writer.target)
    for _ in range(5):
        trail.put(5)
        wait_until(lambda: trail.queue.statistics().queued == 0)
    wait_until(lambda: said in caplog.text or any(said in str(vars(record)) for record in caplog.records))
    wait_until(lambda: writer.streams >= 3)
    writer.behave = fix_writer.acknowledge
    trail.wait_shipped()
    assert writer.sequences(trail.source) == list(range(1, 27))
    assert trail.verified().differences == 0
    assert trail.shipper.statistics().shipped == 26


def test_acknowledgements_may_come_in_parts_and_again(start: Start, writer: MemoryWriter) -> None:
    writer.behave = fix_writer.acknowledge_oddly
    trail = start(writer.target)
    for _ in range(5):
        trail.put(10)
        wait_until(lambda: trail.queue.statistics().queued == 0)
    trail.wait_shipped()
    assert (writer.streams, writer.received, trail.shipper.statistics().shipped) == (1, 51, 51)


def test_a_writer_that_does_not_acknowledge_gets_no_more_than_a_window(start: Start, writer: MemoryWriter) -> None:
    writer.behave = fix_writer.hold
    trail = start(writer.target)
    # In segments of 256 KiB.
    trail.put(200, 64 * 1024)
    wait_until(lambda: trail.queue.statistics().queued == 0)
    wait_until(lambda: writer.bytes >= 8 * MIB)
    assert writer.bytes <= 8 * MIB + MIB
    assert trail.kept() == 201
    wait_until(lambda: trail.shipper.statistics().lag > 0)
    writer.released.set()
    trail.wait_shipped()
    assert (writer.streams, writer.received) == (1, 201)


def test_a_full_spool_takes_events_again_when_some_were_shipped(start: Start, writer: MemoryWriter) -> None:
    writer.behave = fix_writer.hold
    trail = start(writer.target, max_bytes=2 * MIB)
    while trail.queue.put_nowait(a_record({"x": random.randbytes(32 * 1024).hex()})):
        wait_until(lambda: not trail.queue.statistics().queued or trail.queue.statistics().problem)
    assert "is full" in trail.queue.statistics().problem
    writer.released.set()
    wait_until(lambda: not trail.queue.statistics().problem)
    trail.put(1)
    trail.close()
    types = Counter(event_of(payload).event_type for _, payload in writer.events.values())
    assert types["audit_gap"] == 1
    assert writer.sequences(trail.source) == list(range(1, trail.queue.statistics().sequence + 1))


@pytest.mark.parametrize("behave", [fix_writer.hold, fix_writer.acknowledge_nothing_again_and_again])
def test_a_connection_on_which_nothing_goes_on_is_given_up(
    start: Start, writer: MemoryWriter, monkeypatch: pytest.MonkeyPatch, behave: Behave
) -> None:
    monkeypatch.setattr(session, "_SILENCE", 0.05)
    monkeypatch.setattr(session, "_LOOK", 0.02)
    writer.behave = behave
    trail = start(writer.target)
    trail.put(5)
    wait_until(lambda: "acknowledged nothing" in trail.shipper.statistics().problem)
    monkeypatch.setattr(session, "_SILENCE", 60.0)
    writer.behave = fix_writer.acknowledge
    trail.wait_shipped()
    assert writer.sequences(trail.source) == list(range(1, 7))


def test_a_shipper_that_lacks_what_it_needs_begins_anew(
    start: Start, writer: MemoryWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened, failures = Uplink.open, [RuntimeError("can't start new thread"), MemoryError()]

    def scarce(uplink: Uplink, on_news: Callable[[], None]) -> Any:
        if failures:
            raise failures.pop()
        return opened(uplink, on_news)

    monkeypatch.setattr(Uplink, "open", scarce)
    trail = start(writer.target)
    trail.put(5)
    trail.wait_shipped()
    assert writer.sequences(trail.source) == list(range(1, 7))
    assert "it begins anew" in caplog.text


def test_of_several_writers_one_that_is_there_is_found(start: Start, writer: MemoryWriter) -> None:
    trail = start(*(f"127.0.0.1:{free_port()}" for _ in range(3)), writer.target)
    trail.put(5)
    trail.wait_shipped()
    assert writer.sequences(trail.source) == list(range(1, 7))


def test_at_the_end_what_cannot_go_stays_and_is_counted(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    trail = start(f"127.0.0.1:{free_port()}")
    trail.put(10)
    trail.close(Seconds(0.5))
    (record,) = [record for record in caplog.records if "stay in the spool" in record.getMessage()]
    # With the first event of the source and its last.
    assert vars(record)["events"] == trail.kept() == 12
    report = trail.verified()
    assert (report.differences, report.sources[0].end) == (0, "stopped")


def test_what_a_damaged_spool_held_does_not_hold_up_the_rest(start: Start, writer: MemoryWriter) -> None:
    trail = start(writer.target)
    trail.put(5)
    trail.wait_shipped()
    with closing(sqlite3.connect(trail.directory / DATABASE, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute("UPDATE sqlite_master SET rootpage = 9999 WHERE name = 'segments'")
        other.execute("PRAGMA schema_version = 99")
    trail.put(5)
    wait_until(lambda: trail.queue.statistics().sequence == 12)
    trail.put(1)
    trail.close()
    assert writer.sequences(trail.source) == list(range(1, 15))
    # All that the damaged one held was with the writer already.
    assert trail.verified().differences == 0


def test_a_segment_that_cannot_be_read_is_left_where_it_is(
    start: Start, writer: MemoryWriter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = write_source(tmp_path / "audit", [3, 2, 1])
    with closing(sqlite3.connect(tmp_path / "audit" / DATABASE, isolation_level=None)) as other:
        other.execute("UPDATE segments SET events = x'00' WHERE position = 3")
    trail = start(writer.target)
    wait_until(lambda: writer.sequences(left.name) == [1, 2, 3, 4, 7, 8])
    wait_until(lambda: writer.sequences(trail.source) == [1])
    wait_until(lambda: [end.shipped for end in trail.sources()] == [8, 1])
    trail.close()
    assert "a damaged segment" in caplog.text
    report = trail.verified()
    assert report.sources[0].findings == ["segment 3, from event 5 on, cannot be decoded"]


def credentials(folder: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())],
        (folder / "ca.pem").read_bytes(),
        require_client_auth=True,
    )


def test_new_certificates_are_used_without_a_restart(
    start: Start, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper, "_FILES_INTERVAL", 0.05)
    seen: list[Any] = []

    def behave(writer: MemoryWriter, batches: Any, context: grpc.ServicerContext) -> Any:
        seen.append(context.auth_context()["x509_common_name"][0])
        return fix_writer.acknowledge(writer, batches, context)

    writer = MemoryWriter(credentials=credentials(certificates))
    writer.behave = behave
    for name in ("client.pem", "client.key"):
        shutil.copy(certificates / name, tmp_path)
    tls = WriterTls(certificates / "ca.pem", tmp_path / "client.pem", tmp_path / "client.key", "server.test")
    trail = start(writer.target, tls=tls)
    trail.put(5)
    trail.wait_shipped()
    for end in ("pem", "key"):
        shutil.copy(certificates / f"server.{end}", tmp_path / f"client.{end}")
    trail.put(5)
    wait_until(lambda: seen[-1] == b"server")
    trail.put(5)
    trail.wait_shipped()
    assert seen[0] == b"client"
    assert writer.sequences(trail.source) == list(range(1, 17))
    trail.close()
    writer.stop()


def test_a_writer_that_somebody_else_vouches_for_gets_nothing(start: Start, certificates: Path) -> None:
    writer = MemoryWriter(credentials=credentials(certificates))
    tls = WriterTls(
        certificates / "other-ca.pem", certificates / "client.pem", certificates / "client.key", "server.test"
    )
    trail = start(writer.target, tls=tls)
    trail.put(5)
    wait_until(lambda: "UNAVAILABLE" in trail.shipper.statistics().problem)
    trail.close(Seconds(0.5))
    assert writer.events == {}
    assert trail.kept() == 7
    writer.stop()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["server.key", "client.pem", "client.key"], "audit.tls.ca_file"),
        (["ca.pem", "client.pem", "server.key"], "audit.tls.cert_file"),
    ],
)
def test_files_of_no_use_are_named_at_the_start(certificates: Path, files: list[str], named: str) -> None:
    authority, certificate, key = (certificates / file for file in files)
    tls = WriterTls(authority, certificate, key)
    with pytest.raises(StartError, match=named):
        Uplink(["127.0.0.1:1"], tls)
