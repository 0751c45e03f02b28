"""The queue with its thread and a real spool: what is committed, dropped, refused, and left by a killed process."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.audit import spool
from sark_pdp.audit.event import Event
from sark_pdp.audit.queue import AuditQueue
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.search import Selection, newest
from sark_pdp.audit.segments import pack
from sark_pdp.audit.source import Sealed
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.spool_file import DATABASE, LOCK
from sark_pdp.audit.verify import Report, verify
from sark_pdp.errors import AuditError, StartError
from sark_pdp.model import AuditRecord, Seconds
from tests.fix_audit import NOON, ManualClock, a_record

MIB = 2**20
GRACE = Seconds(60)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit"


def a_queue(directory: Path, max_bytes: int = 64 * MIB, clock: ManualClock | None = None, **options: Any) -> AuditQueue:
    return AuditQueue(Spool(directory, max_bytes), "pod", clock=clock or ManualClock(), **options)


def a_large_record(kib: int = 64) -> AuditRecord:
    # Of no pattern that a spool could pack.
    return a_record({"user": {"id": "alice"}, "parameters": random.randbytes(kib * 512).hex()})


def events_of(directory: Path) -> list[Event]:
    """All events, oldest first."""
    with SpoolReader(directory) as reader:
        return [found.event for found in reversed(list(newest(reader, reader.snapshot().position, Selection())))]


def verified(directory: Path, *keys: bytes) -> Report:
    with SpoolReader(directory) as reader:
        return verify(reader, keys)


def wait_until(condition: Callable[[], object]) -> None:
    """Polls for at most 60 s."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within 60 s"
        time.sleep(0.005)


@contextmanager
def another_writer(directory: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else, who is patient."""
    with closing(sqlite3.connect(directory / DATABASE, timeout=60, isolation_level=None)) as other:
        yield other


@contextmanager
def held_up(queue: AuditQueue, directory: Path) -> Iterator[None]:
    """The thread has sealed one record and cannot commit it, so that nothing leaves the queue meanwhile."""
    with another_writer(directory) as other:
        other.execute("BEGIN IMMEDIATE")
        assert queue.put_nowait(a_record())
        wait_until(lambda: queue._committer.sealed and not queue._queue)
        yield
        other.execute("ROLLBACK")


def wait_for_sequence(queue: AuditQueue, sequence: int) -> None:
    wait_until(lambda: queue.statistics().sequence >= sequence)


def wait_until_committed_or_full(queue: AuditQueue) -> None:
    wait_until(lambda: not queue.statistics().queued or queue.statistics().problem)


def test_what_was_put_is_committed_without_closing(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    records = [a_record() for _ in range(3)]
    for record in records:
        assert queue.put_nowait(record)
    wait_for_sequence(queue, 4)
    assert [event.id for event in events_of(directory)[1:]] == [record.id for record in records]
    assert verified(directory).sources[0].end == "unproven"
    queue.close(GRACE)


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_after_an_orderly_close_everything_is_there_and_the_end_is_proven(directory: Path, key: bytes | None) -> None:
    queue = a_queue(directory, key=key)
    queue.start()
    ids = [[a_record() for _ in range(500)] for _ in range(4)]

    def put(records: list[AuditRecord]) -> None:
        for record in records:
            assert queue.put_nowait(record)

    threads = [threading.Thread(target=put, args=(records,)) for records in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close(GRACE)
    report = verified(directory, *([key] if key else []))
    assert (report.events, report.differences, report.sources[0].end) == (2002, 0, "stopped")
    events = events_of(directory)
    assert {event.id for event in events[1:-1]} == {record.id for records in ids for record in records}
    assert [event.sequence for event in events] == list(range(1, 2003))
    statistics = queue.statistics()
    assert (statistics.sequence, statistics.queued, statistics.dropped, statistics.problem) == (2002, 0, 0, "")


def test_a_parked_thread_is_woken(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    wait_until(lambda: queue._parked)
    queue.put_nowait(a_record())
    wait_for_sequence(queue, 2)
    wait_until(lambda: queue._parked)
    queue.close(GRACE)
    assert verified(directory).sources[0].end == "stopped"


def test_a_closed_queue_takes_nothing(directory: Path) -> None:
    queue = a_queue(directory, on_full="deny")
    queue.start()
    queue.close(GRACE)
    assert queue.put_nowait(a_record()) is False
    assert not queue.accepts()
    assert queue.statistics().dropped == 1


def test_each_source_names_the_one_before_it(directory: Path) -> None:
    for _ in range(3):
        queue = a_queue(directory)
        queue.start()
        queue.close(GRACE)
    first, end, second, *_ = events_of(directory)
    assert (first.event_type, first.details["previous"]) == ("source_started", None)
    assert (end.event_type, second.event_type) == ("source_stopped", "source_started")
    assert second.details["previous"]["source"] == end.source
    assert second.details["previous"]["sequence"] == end.sequence
    assert [source.end for source in verified(directory).sources] == ["stopped"] * 3


def has_decisions(directory: Path, number: int) -> bool:
    return sum(bool(event.decision) for event in events_of(directory)) == number


def test_each_active_minute_ends_in_a_checkpoint(directory: Path) -> None:
    clock = ManualClock(NOON)
    queue = a_queue(directory, clock=clock)
    queue.start()
    for minute in range(3):
        clock.time_ns = NOON + minute * 60_000_000_000
        queue.put_nowait(a_record())
        # The checkpoint may be committed before it.
        wait_until(partial(has_decisions, directory, minute + 1))
    queue.close(GRACE)
    events = events_of(directory)
    assert [event.event_type for event in events] == [
        *("source_started", "authorization_allowed"),
        *("audit_checkpoint", "authorization_allowed") * 2,
        "source_stopped",
    ]
    assert [event.details["sequence"] for event in events if event.event_type == "audit_checkpoint"] == [2, 4]
    assert verified(directory).differences == 0


def test_an_idle_minute_gets_its_checkpoint_when_it_ends(directory: Path) -> None:
    clock = ManualClock(59_900_000_000)
    queue = a_queue(directory, clock=clock)
    queue.start()
    queue.put_nowait(a_record())
    wait_for_sequence(queue, 2)
    clock.time_ns = 60_000_000_001
    wait_for_sequence(queue, 3)
    assert events_of(directory)[-1].event_type == "audit_checkpoint"
    queue.close(GRACE)


def test_a_full_queue_drops_and_accounts_for_it_in_one_event(directory: Path) -> None:
    queue = a_queue(directory, capacity=10)
    queue.start()
    with held_up(queue, directory):
        taken = 1
        dropped = 0
        while dropped < 100:
            if queue.put_nowait(a_record(time_ns=NOON + dropped)):
                taken += 1
            else:
                dropped += 1
        assert taken == 11
        assert queue.statistics().dropped == 100
    wait_until(lambda: queue.statistics().queued == 0)
    queue.close(GRACE)
    events = events_of(directory)
    counted = Counter(event.event_type for event in events)
    assert counted == {"source_started": 1, "authorization_allowed": taken, "audit_gap": 1, "source_stopped": 1}
    (gap,) = (event.details for event in events if event.event_type == "audit_gap")
    assert gap == {"dropped": 100, "first_ns": NOON, "last_ns": NOON + 99}
    report = verified(directory)
    assert (report.differences, report.sources[0].dropped) == (0, 100)


@pytest.mark.parametrize("on_full", ["drop", "deny"])
def test_a_few_large_records_fill_the_queue_as_many_small_ones_do(directory: Path, on_full: str) -> None:
    queue = a_queue(directory, on_full=on_full)
    queue.start()
    with held_up(queue, directory):
        taken = 1
        while queue.put_nowait(a_record(size=MIB)):
            taken += 1
        assert taken == 1 + 4
        assert queue.accepts() == (on_full == "drop")
    wait_until(lambda: queue.statistics().queued == 0)
    assert queue.accepts()
    # One that is larger than all of the room is taken where nothing waits.
    assert queue.put_nowait(a_record(size=64 * MIB))
    queue.close(GRACE)
    counted = Counter(event.event_type for event in events_of(directory))
    assert (counted["authorization_allowed"], counted["audit_gap"]) == (taken + 1, 1)
    assert queue.statistics().dropped == 1


@pytest.mark.parametrize("on_full", ["drop", "deny"])
def test_a_full_spool_takes_nothing_until_there_is_room(directory: Path, on_full: str) -> None:
    queue = a_queue(directory, 2 * MIB, on_full=on_full)
    queue.start()
    taken = []
    while queue.put_nowait(record := a_large_record()):
        taken.append(record.id)
        wait_until_committed_or_full(queue)
    assert "is full" in queue.statistics().problem
    assert queue.accepts() == (on_full == "drop")
    assert queue.statistics().spool_bytes <= 2 * MIB
    # As a shipper would, once the events are elsewhere.
    with another_writer(directory) as other:
        other.execute("DELETE FROM segments WHERE first > 1 AND first < 12")
    # Room is made a moment after the problem is gone.
    wait_until(lambda: queue._limit)
    assert queue.statistics().problem == ""
    assert queue.accepts()
    last = a_record()
    assert queue.put_nowait(last)
    queue.close(GRACE)
    events = events_of(directory)
    assert Counter(event.event_type for event in events)["audit_gap"] == 1
    assert sum(event.details.get("dropped", 0) for event in events) == queue.statistics().dropped > 0
    assert last.id in {event.id for event in events}
    assert taken[-1] in {event.id for event in events}


def test_a_spool_that_is_full_at_the_start_says_so_and_ends_in_order(directory: Path) -> None:
    for expected in ("", "is full"):
        queue = a_queue(directory, MIB)
        queue.start()
        assert expected in queue.statistics().problem
        while queue.put_nowait(a_large_record()):
            wait_until_committed_or_full(queue)
        queue.close(GRACE)
    report = verified(directory)
    assert [source.end for source in report.sources] == ["stopped", "stopped"]
    assert report.differences == 0


def test_a_commit_that_fails_is_tried_again_and_nothing_is_lost(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    with another_writer(directory) as other:
        other.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON segments BEGIN SELECT raise(ABORT, 'the disk is on fire'); END"
        )
        records = [a_record() for _ in range(1000)]
        for record in records:
            assert queue.put_nowait(record)
        wait_until(lambda: queue.statistics().problem)
        assert "the disk is on fire" in queue.statistics().problem
        assert str(directory) in queue.statistics().problem
        assert queue.statistics().queued == 1000
        other.execute("DROP TRIGGER broken")
    wait_for_sequence(queue, 1001)
    queue.close(GRACE)
    assert queue.statistics().problem == ""
    report = verified(directory)
    assert (report.events, report.differences) == (1002, 0)


def test_where_records_are_required_a_commit_that_fails_is_the_last_that_is_answered_for(directory: Path) -> None:
    """A disk that is full or broken is as a full spool: what is answered meanwhile would be lost with the process."""
    queue = a_queue(directory, on_full="deny")
    queue.start()
    with another_writer(directory) as other:
        other.execute("CREATE TRIGGER broken BEFORE INSERT ON segments BEGIN SELECT raise(ABORT, 'no'); END")
        assert queue.put_nowait(a_record())
        wait_until(lambda: not queue.accepts())
        assert not queue.put_nowait(a_record())
        assert queue.statistics().queued == 1
        other.execute("DROP TRIGGER broken")
    wait_until(queue.accepts)
    assert queue.statistics().problem == ""
    assert queue.put_nowait(a_record())
    queue.close(GRACE)
    counted = Counter(event.event_type for event in events_of(directory))
    assert (counted["authorization_allowed"], counted["audit_gap"]) == (2, 1)


def test_a_spool_that_could_not_be_measured_is_measured_again_though_nothing_may_come(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [AuditError("not now")] * 2
    measured = Spool.used_bytes

    def used_bytes(self: Spool) -> int:
        if failures:
            raise failures.pop()
        return measured(self)

    monkeypatch.setattr(Spool, "used_bytes", used_bytes)
    queue = a_queue(directory, on_full="deny")
    queue.start()
    assert not queue.accepts()
    wait_until(queue.accepts)
    assert queue.put_nowait(a_record())
    queue.close(GRACE)


def test_a_commit_for_which_there_is_no_memory_is_tried_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = a_queue(directory)
    queue.start()
    failures = [MemoryError()]

    def scarce(events: list[Sealed]) -> bytes:
        if failures:
            raise failures.pop()
        return pack(events)

    monkeypatch.setattr(spool, "pack", scarce)
    assert queue.put_nowait(a_record())
    wait_until(lambda: queue.statistics().problem)
    assert "cannot be written: MemoryError" in queue.statistics().problem
    wait_for_sequence(queue, 2)
    queue.close(GRACE)
    assert verified(directory).differences == 0


def test_closing_says_how_many_records_are_lost(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    with another_writer(directory) as other:
        other.execute("CREATE TRIGGER broken BEFORE INSERT ON segments BEGIN SELECT raise(ABORT, 'no'); END")
    queue.put_nowait(a_record())
    with pytest.raises(AuditError, match="audit records are lost"):
        queue.close(GRACE)
    Spool(directory, MIB).close()


def test_a_record_that_cannot_be_written_becomes_part_of_a_gap(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = a_queue(directory)
    queue.start()
    record = a_record()

    class Odd:
        time_ns = NOON
        size = 0

    queue.put_nowait(Odd())  # type: ignore[arg-type]
    queue.put_nowait(record)
    queue.close(GRACE)
    assert "could not be made an event" in caplog.text
    first, *between, last = [event.event_type for event in events_of(directory)]
    assert (first, last) == ("source_started", "source_stopped")
    # In this order, unless the thread looks when only the first one is there.
    assert sorted(between) == ["audit_gap", "authorization_allowed"]


def test_a_spool_has_one_writer(directory: Path) -> None:
    spool = Spool(directory, MIB)
    with pytest.raises(StartError, match=f"has a writer already .process {os.getpid()}.") as caught:
        Spool(directory, MIB)
    assert str(directory) in str(caught.value)
    spool.close()
    Spool(directory, MIB).close()


def test_what_is_written_is_for_its_owner_alone(directory: Path) -> None:
    queue = a_queue(directory)
    queue.start()
    queue.put_nowait(a_record())
    wait_for_sequence(queue, 2)
    modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert set(modes) >= {DATABASE, LOCK, f"{DATABASE}-wal"}
    assert set(modes.values()) == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    queue.close(GRACE)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def foreign_directory() -> Iterator[Path]:
    """A folder that everyone may enter and only its owner, who is root or forbade it to himself, may write to."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        directory.chmod(0o555)
        yield directory
        directory.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_named(foreign_directory: Path) -> None:
    with as_nobody(), pytest.raises(StartError, match="Permission denied") as caught:
        Spool(foreign_directory, MIB)
    assert str(foreign_directory) in str(caught.value)
    assert list(foreign_directory.iterdir()) == []


def test_a_closed_spool_in_a_folder_that_cannot_be_written_is_read(foreign_directory: Path) -> None:
    foreign_directory.chmod(0o755)
    queue = a_queue(foreign_directory)
    queue.start()
    queue.close(GRACE)
    (foreign_directory / DATABASE).chmod(0o644)
    foreign_directory.chmod(0o555)
    with as_nobody():
        assert verified(foreign_directory).events == 2


def test_a_path_through_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "audit"):
        with pytest.raises(StartError, match="cannot be used") as caught:
            Spool(directory, MIB)
        assert str(directory) in str(caught.value)


def test_the_database_of_something_else_is_refused(directory: Path) -> None:
    directory.mkdir(parents=True)
    with another_writer(directory) as other:
        other.execute("CREATE TABLE t (a)")
    with pytest.raises(StartError, match="not an audit spool of this version"):
        Spool(directory, MIB)


CHILD = """
import sys
from pathlib import Path
from sark_pdp.audit.queue import AuditQueue
from sark_pdp.audit.segments import pack
from sark_pdp.audit.source import Sealed
from sark_pdp.audit.spool import Spool
from tests.fix_audit import ManualClock, a_record

queue = AuditQueue(Spool(Path(sys.argv[1]), 2**30), "pod", clock=ManualClock())
queue.start()
while True:
    record = a_record()
    queue.put_nowait(record)
    # What was committed when this one was put: a later kill cannot take it back.
    print(record.id, queue.statistics().sequence, flush=True)
"""


def test_a_killed_process_leaves_no_gap_and_an_end_that_is_unproven(directory: Path) -> None:
    root = Path(__file__).parents[2]
    put: list[str] = []
    committed = 0
    command = [sys.executable, "-c", CHILD, str(directory)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            id_, sequence = line.split()
            put.append(id_)
            committed = int(sequence)
            if committed > 2000:
                break
        child.kill()
        # What it had written into the pipe until then.
        put.extend(line.split()[0] for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n"))
    assert child.returncode == -signal.SIGKILL

    report = verified(directory)
    assert (report.differences, report.sources[0].end) == (0, "unproven")
    ids = [event.id for event in events_of(directory)[1:]]
    assert len(ids) >= committed - 1
    assert ids == put[: len(ids)]

    queue = a_queue(directory)
    queue.start()
    queue.close(GRACE)
    assert [source.end for source in verified(directory).sources] == ["succeeded", "stopped"]
    assert events_of(directory)[len(ids) + 1].details["previous"]["sequence"] == len(ids) + 1
