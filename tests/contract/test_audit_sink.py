"""What every AuditSink promises to the decision service."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from sark_pdp.audit.queue import AuditQueue
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.spool_file import DATABASE
from sark_pdp.interfaces import AuditSink
from sark_pdp.model import Seconds
from tests.fix_audit import ManualClock, MemorySink, a_record
from tests.fix_native import wait_until

OnFull = Literal["drop", "deny"]
MakeSink = Callable[[OnFull, int], AuditSink]
"""A sink with this policy and room for so many records, of which none is taken out meanwhile."""


@pytest.fixture(params=["queue", "memory"])
def make_sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSink]:
    queues: list[tuple[AuditQueue, sqlite3.Connection]] = []

    def make(on_full: OnFull, capacity: int) -> AuditSink:
        if request.param == "memory":
            return MemorySink(capacity, deny=on_full == "deny")
        queue = AuditQueue(
            Spool(tmp_path, 2**30), "pod", clock=ManualClock(), key=None, on_full=on_full, capacity=capacity
        )
        queue.start()
        # With one record sealed that it cannot commit, the thread takes no other.
        other = sqlite3.connect(tmp_path / DATABASE, timeout=60, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        queues.append((queue, other))
        assert queue.put_nowait(a_record())
        wait_until(lambda: queue._committer.sealed and not queue._queue)
        return queue

    yield make
    for queue, other in queues:
        other.close()
        queue.close(Seconds(60))


def put_until_full(sink: AuditSink) -> None:
    """The sink has room for a few only."""
    while sink.put_nowait(a_record()):
        pass


def test_a_record_is_taken(make_sink: MakeSink) -> None:
    sink = make_sink("drop", 10)
    assert sink.put_nowait(a_record()) is True
    assert sink.accepts()


def test_a_full_sink_drops_and_goes_on_accepting(make_sink: MakeSink) -> None:
    sink = make_sink("drop", 1)
    put_until_full(sink)
    assert sink.accepts()
    assert not sink.required


def test_a_full_sink_that_shall_deny_accepts_nothing(make_sink: MakeSink) -> None:
    sink = make_sink("deny", 1)
    assert sink.required
    assert sink.accepts()
    put_until_full(sink)
    assert not sink.accepts()
