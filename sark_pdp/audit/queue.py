"""The bounded queue between the answers and the spool, and the one thread that empties it.

A record is appended to a deque and no more: no lock is taken, and no thread is woken while there was work in the last
second. The thread commits what is there every 20 ms, in segments. The queue is bounded by records and by the bytes of
their messages, whichever is reached first.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from sark_pdp.audit.committer import MINUTE_NS, SEGMENT_EVENTS, Committer
from sark_pdp.audit.losses import Losses
from sark_pdp.audit.mask import Mask
from sark_pdp.audit.outbox import Outbox
from sark_pdp.audit.source import Source
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.statistics import Statistics
from sark_pdp.errors import AuditError
from sark_pdp.interfaces import Clock
from sark_pdp.model import AuditRecord, Seconds

_INTERVAL: Final = 0.02
"""Seconds between two commits: what a killed process can lose."""
_IDLE_ROUNDS: Final = 50
"""So many empty intervals later the thread is parked, and the next record has to wake it."""
_RETRY: Final = 0.5
"""Seconds until a failed commit is tried again, or a full spool looked at."""
_QUEUE_BYTES: Final = 4 << 20
"""Of the messages that the queued records came in. Parsed they take 10 times as much memory, as much as 10,000 short
ones do; of the worst form 25 times."""


class AuditQueue:
    """The AuditSink of a process. Thread-safe; `start` and `close` are called once each, by its owner."""

    def __init__(
        self,
        spool: Spool,
        name: str,
        *,
        clock: Clock,
        key: bytes | None = None,
        mask: Mask | None = None,
        on_full: Literal["drop", "deny"] = "drop",
        capacity: int = 10_000,
    ) -> None:
        """`name` is the host's or pod's; `key` that of the chain; `capacity` is in records, of 4 MiB at most."""
        self._spool = spool
        self._clock = clock
        self._source = Source(name, spool.next_number, key, clock, mask)
        self.keeps = True
        self.required = on_full == "deny"
        """An answer whose record was dropped must not be given."""
        self._capacity = capacity
        # What put_nowait compares with: zero while the spool is full, or fails and records are required, and once the
        # queue is closed.
        self._limit = 0
        self._queue: deque[AuditRecord] = deque()
        # Bytes that ever went in, counted by the answering threads, and up to which more may, moved on by the audit
        # thread with what came out. A statement that adds and calls nothing is not interrupted (see
        # observability.instruments); in a build where it is, less would be counted than is there, and never more.
        self._put_bytes = 0
        self._upto_bytes = _QUEUE_BYTES
        self._losses = Losses()
        self._closing = False
        self._gate = threading.Lock()
        self._parked = False
        self._wake = threading.Event()
        self.outbox = Outbox(self._wake)
        """For who ships what is committed."""
        self._committer = Committer(spool, self._source, clock, self._losses, self.outbox)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Commits the first event and starts the thread; raises AuditError, the spool closed, where it fails."""
        self._committer.start()
        self._open_or_shut()
        self._thread.start()

    def put_nowait(self, record: AuditRecord) -> bool:
        """Queues a record; False where there is no room or the queue is closed: it is counted as dropped then."""
        if len(self._queue) >= self._limit or self._put_bytes >= self._upto_bytes:
            self._losses.add(record.time_ns)
            return False
        self._put_bytes += record.size
        self._queue.append(record)
        if self._parked:
            self._wake.set()
        return True

    def accepts(self) -> bool:
        """False where records are required and one would be dropped now."""
        return not self.required or (len(self._queue) < self._limit and self._put_bytes < self._upto_bytes)

    def statistics(self) -> Statistics:
        """As of now; the numbers are read one after the other."""
        committer = self._committer
        return Statistics(
            source=self._source.name,
            queued=len(self._queue) + len(committer.sealed),
            capacity=self._capacity,
            dropped=self._losses.total,
            sequence=committer.sequence,
            commits=committer.commits,
            spool_bytes=committer.used,
            spool_max_bytes=self._spool.max_bytes,
            problem=committer.problem,
        )

    def close(self, grace: Seconds, ship: Callable[[Seconds], None] | None = None) -> None:
        """Commits all that is queued and the end of the source, syncs, and frees the spool.

        `ship` is called in between with the seconds that are left, so that the end can be shipped too. Raises
        AuditError where something could not be committed, or not within `grace` seconds.
        """
        ends = time.monotonic() + grace
        with self._gate:
            self._closing = True
            self._limit = 0
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(grace)
        if self._thread.is_alive():
            raise AuditError(
                f"{len(self._queue)} audit records were not committed within {grace} s: {self._committer.problem}"
            )
        if ship is not None:
            ship(Seconds(max(ends - time.monotonic(), 0.0)))
            self._committer.let_go()
        self._spool.close()
        left = len(self._queue) + len(self._committer.sealed)
        if left:
            raise AuditError(f"{left} audit records are lost: {self._committer.problem}")

    # What follows runs on the thread.

    def _run(self) -> None:
        try:
            self._commit_until_closed()
        except BaseException:
            # Nobody commits any more: what comes from now on is dropped and counted, or denied.
            with self._gate:
                self._limit = 0
            self._committer.problem = "The audit thread failed, and nothing is recorded; its log has the reason"
            raise

    def _commit_until_closed(self) -> None:
        idle = 0
        while not self._closing:
            if self._committer.problem:
                self._wait(_RETRY)
            elif idle < _IDLE_ROUNDS:
                # Not to be woken costs a third of what it costs to wait for somebody who might.
                time.sleep(_INTERVAL)
            else:
                self._park()
            idle = 0 if self._commit_queued() else idle + 1
        self._finish()

    def _wait(self, seconds: float | None) -> None:
        # `close` says that it closes before it wakes the thread, so clearing first loses no call.
        self._wake.clear()
        if not self._closing:
            self._wake.wait(seconds)

    def _park(self) -> None:
        """Waits for a record, or for the minute to end that a checkpoint is due for."""
        due = self._committer.checkpoint_due
        seconds = (MINUTE_NS - self._clock.now_ns() % MINUTE_NS) / 1e9 if due else None
        self._wake.clear()
        self._parked = True
        # A record that came before that line woke nobody.
        if not (self._queue or self._closing or self.outbox.has_shipped()):
            self._wake.wait(seconds)
        self._parked = False
        # What follows on the first record shares its segment, and the answer that woke this thread goes out first.
        time.sleep(_INTERVAL)

    def _commit_queued(self) -> bool:
        """Commits what is queued; True where there was something and nothing failed."""
        committer = self._committer
        committed = False
        committer.let_go()
        self._open_or_shut()
        while True:
            if committer.needs_look and not committer.measure():
                return committed
            self._seal()
            done = bool(committer.sealed) and committer.commit()
            self._open_or_shut()
            if not done:
                return committed
            committed = True
            if len(self._queue) < SEGMENT_EVENTS:
                return committed

    def _seal(self) -> None:
        self._upto_bytes += self._committer.seal(self._queue, self._capacity // 2)

    def _open_or_shut(self) -> None:
        with self._gate:
            if not self._closing:
                committer = self._committer
                # What may be dropped may as well wait for a disk that fails; what must be recorded has no place there.
                shut = committer.full or (self.required and committer.failing)
                self._limit = 0 if shut else self._capacity

    def _finish(self) -> None:
        """Commits what is left, in a full spool too: the queue is bounded, and these answers were given."""
        while self._queue:
            self._seal()
            if not self._committer.commit():
                return
        self._committer.finish()
