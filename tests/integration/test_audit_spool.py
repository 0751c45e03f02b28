"""The spool lets go of what was shipped and says so, and goes on where its file was damaged."""

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sark_pdp.audit import spool
from sark_pdp.audit.event import Event
from sark_pdp.audit.queue import AuditQueue
from sark_pdp.audit.reader import SourceEnd, SpoolReader
from sark_pdp.audit.search import Selection, newest
from sark_pdp.audit.source import Sealed, Segment
from sark_pdp.audit.spool import Shipped, Spool
from sark_pdp.audit.spool_file import DATABASE, open_database
from sark_pdp.audit.verify import Report, verify
from sark_pdp.model import Seconds
from tests.fix_audit import ManualClock, a_record, write_source

MIB = 2**20
GRACE = Seconds(30)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def a_queue(directory: Path) -> AuditQueue:
    return AuditQueue(Spool(directory, 64 * MIB), "pod", clock=ManualClock())


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.005)


def events_of(directory: Path) -> list[Event]:
    with SpoolReader(directory) as reader:
        return [found.event for found in reversed(list(newest(reader, reader.snapshot().position, Selection())))]


def verified(directory: Path) -> Report:
    with SpoolReader(directory) as reader:
        return verify(reader)


def sources_of(directory: Path) -> tuple[SourceEnd, ...]:
    with SpoolReader(directory) as reader:
        return reader.snapshot().sources


def shipped_until(directory: Path, position: int) -> list[Shipped]:
    """What a shipper says once everything up to a position is acknowledged."""
    with SpoolReader(directory) as reader:
        found = []
        for segment in reader.forward(0, position):
            events = segment.events()
            assert events is not None
            last = segment.first + len(events) - 1
            found.append(Shipped(segment.position, segment.position, segment.source, last, events[-1].chain))
        return found


def let_go(directory: Path, position: int) -> None:
    spool = Spool(directory, MIB)
    spool.remove(shipped_until(directory, position))
    spool.close()


@pytest.mark.parametrize("upto", range(1, 6))
def test_what_was_shipped_is_gone_and_the_rest_still_proves_itself(directory: Path, upto: int) -> None:
    write_source(directory, [3, 2, 1])
    let_go(directory, upto)
    report = verified(directory)
    (source,) = report.sources
    before = [0, 1, 4, 6, 7, 8][upto]
    assert (report.differences, source.shipped, source.events, source.last) == (0, before, 8 - before, 8)
    assert source.end == ("shipped" if upto == 5 else "stopped")
    assert [event.sequence for event in events_of(directory)] == list(range(before + 1, 9))


def test_a_change_behind_what_was_shipped_is_still_found(directory: Path) -> None:
    write_source(directory, [3, 2, 1])
    let_go(directory, 2)
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as other:
        other.execute("DELETE FROM segments WHERE position = 3")
    assert verified(directory).sources[0].findings == ["events 5 to 6 are missing"]


def test_a_source_after_one_that_was_shipped_still_vouches_for_its_end(directory: Path) -> None:
    write_source(directory, [3], stopped=False)
    write_source(directory, [3])
    let_go(directory, 2)
    first, second = verified(directory).sources
    assert (first.end, first.shipped, first.differences) == ("shipped", 4, 0)
    assert (second.end, second.shipped, second.differences) == ("stopped", 0, 0)


def test_sources_of_which_nothing_is_left_are_forgotten_but_the_last(directory: Path) -> None:
    names = [write_source(directory, [1], name=f"pod-{number}").name for number in range(5)]
    # Each is three segments; of the fourth one is left.
    let_go(directory, 11)
    assert [source.name for source in sources_of(directory)] == names[2:]
    report = verified(directory)
    assert report.differences == 0
    assert [source.end for source in report.sources] == ["shipped", "stopped", "stopped"]
    let_go(directory, 15)
    assert [source.name for source in sources_of(directory)] == names[3:]
    # The next one still names the one before it, and is given a number and a position that nobody had.
    write_source(directory, [1])
    with SpoolReader(directory) as reader:
        assert (reader.snapshot().position, [source.number for source in reader.snapshot().sources]) == (18, [4, 5, 6])
    assert verified(directory).differences == 0


def test_the_log_is_moved_into_the_database_while_commits_go_on(directory: Path) -> None:
    """By a thread that ends with the spool, and is none where little is written."""

    def movers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "audit-log"]

    spool = Spool(directory, 256 * MIB)
    events = [Sealed(bytes(32), random.randbytes(1024)) for _ in range(256)]
    for number in range(1, 65):
        if number == 4:
            assert not movers()
        spool.append(Segment("pod/1", 1, "blake2b-256", number * 256, events))
    (mover,) = movers()
    wait_until(lambda: (directory / DATABASE).stat().st_size > 8 * MIB)
    spool.close()
    assert not mover.is_alive()
    assert (directory / DATABASE).stat().st_size > 16 * MIB
    assert not (directory / f"{DATABASE}-wal").exists()


def test_a_queue_lets_go_of_what_was_shipped_though_nothing_new_comes(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    queue.put_nowait(a_record())
    wait_until(lambda: queue.statistics().sequence == 2)
    wait_until(lambda: queue._parked)
    queue.outbox.acknowledge(shipped_until(directory, 2))
    wait_until(lambda: not events_of(directory))
    queue.close(GRACE)
    (source,) = verified(directory).sources
    assert (source.shipped, source.events, source.end, source.differences) == (2, 1, "stopped", 0)


def test_what_cannot_be_let_go_of_is_tried_again(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER broken BEFORE DELETE ON segments BEGIN SELECT raise(ABORT, 'not now'); END")
        queue.outbox.acknowledge(shipped_until(directory, 1))
        wait_until(lambda: "not now" in queue.statistics().problem)
        other.execute("DROP TRIGGER broken")
    wait_until(lambda: not events_of(directory))
    wait_until(lambda: not queue.statistics().problem)
    queue.close(GRACE)


@pytest.mark.parametrize("content", [b"this is no database\n" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_spool_is_set_aside_and_a_new_one_begun(
    directory: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    directory.mkdir(parents=True)
    (directory / DATABASE).write_bytes(content)
    queue = a_queue(directory)
    queue.start()
    record = a_record()
    queue.put_nowait(record)
    queue.close(GRACE)
    assert "the audit spool is damaged" in caplog.text
    started, damaged, decided, stopped = events_of(directory)
    assert (started.event_type, decided.id, stopped.event_type) == ("source_started", record.id, "source_stopped")
    assert (damaged.event_type, damaged.severity) == ("audit_spool_damaged", "high")
    assert (directory / damaged.details["set_aside"]).read_bytes() == content
    assert verified(directory).differences == 0


def test_damaged_spools_are_kept_but_not_without_end(directory: Path) -> None:
    directory.mkdir(parents=True)
    for number in range(6):
        (directory / DATABASE).write_bytes(b"damaged %d" % number + b" " * 600)
        Spool(directory, MIB).close()
    kept = sorted(directory.glob(f"{DATABASE}.damaged-*"))
    assert [path.read_bytes().split()[1] for path in kept] == [b"3", b"4", b"5"]


def damage(directory: Path) -> None:
    """Under the hands of whoever writes it."""
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute("UPDATE sqlite_master SET rootpage = 9999 WHERE name = 'segments'")
        other.execute("PRAGMA schema_version = 99")


def test_a_spool_that_is_found_damaged_at_the_end_takes_nothing_with_it(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind the end of a source nothing may follow: the log and the file that was set aside tell of it."""
    queue = a_queue(directory)
    queue.start()
    wait_until(lambda: queue._parked)
    damage(directory)
    queue.close(GRACE)
    assert [event.event_type for event in events_of(directory)] == ["source_stopped"]
    assert "the audit spool was damaged" in caplog.text
    assert list(directory.glob(f"{DATABASE}.damaged-*"))
    assert verified(directory).sources[0].findings == ["events 1 to 1 are missing"]


def test_a_spool_that_is_damaged_while_it_is_written_is_replaced_and_nothing_that_waits_is_lost(
    directory: Path,
) -> None:
    queue = a_queue(directory)
    queue.start()
    queue.put_nowait(a_record())
    wait_until(lambda: queue.statistics().sequence == 2)
    damage(directory)
    record = a_record()
    queue.put_nowait(record)
    wait_until(lambda: queue.statistics().sequence == 4)
    wait_until(lambda: not queue.statistics().problem)
    queue.close(GRACE)
    decided, damaged, _ = events_of(directory)
    assert (decided.id, damaged.event_type) == (record.id, "audit_spool_damaged")
    assert (directory / damaged.details["set_aside"]).is_file()
    # What the old file held is missing here, and no word is said otherwise.
    assert verified(directory).sources[0].findings == ["events 1 to 2 are missing"]


def test_a_damaged_spool_that_cannot_be_replaced_at_once_is_replaced_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = a_queue(directory)
    queue.start()
    wait_until(lambda: queue._parked)
    damage(directory)
    opened, failures = open_database, [sqlite3.OperationalError("database or disk is full")] * 8

    def full(where: Path) -> sqlite3.Connection:
        if failures:
            raise failures.pop()
        return opened(where)

    monkeypatch.setattr(spool, "open_database", full)
    record = a_record()
    queue.put_nowait(record)
    wait_until(lambda: "cannot be replaced: database or disk is full" in queue.statistics().problem)
    wait_until(lambda: queue.statistics().sequence == 3)
    wait_until(lambda: not queue.statistics().problem)
    queue.close(GRACE)
    decided, damaged, _ = events_of(directory)
    assert (decided.id, damaged.event_type) == (record.id, "audit_spool_damaged")
    # No attempt took the evidence for a spool that is damaged again.
    assert [path.name for path in directory.glob(f"{DATABASE}.damaged-*[0-9]")] == [damaged.details["set_aside"]]
