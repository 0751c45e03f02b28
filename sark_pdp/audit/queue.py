"""The bounded queue between the answers and the spool, and the one thread that empties it.

A record is appended to a deque and no more: no lock is taken, and no thread is woken while there was work in the last
second. The thread commits what is there every 20 ms, in segments. The queue is bounded by records and by the bytes of
their messages, whichever is reached first.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from sark_pdp.audit.losses import Losses
from sark_pdp.audit.mask import Mask
from sark_pdp.audit.outbox import Outbox
from sark_pdp.audit.priority import give_way
from sark_pdp.audit.source import Sealed, Source
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.statistics import Statistics
from sark_pdp.errors import AuditError, SpoolDamagedError
from sark_pdp.interfaces import Clock
from sark_pdp.model import AuditRecord, Seconds

_INTERVAL: Final = 0.02
"""Seconds between two commits: what a killed process can lose."""
_IDLE_ROUNDS: Final = 50
"""So many empty intervals later the thread is parked, and the next record has to wake it."""
_RETRY: Final = 0.5
"""Seconds until a failed commit is tried again, or a full spool looked at."""
_SEGMENT_EVENTS: Final = 256
_SEGMENT_BYTES: Final = 256 * 1024
_FULL_BELOW: Final = _SEGMENT_BYTES + 64 * 1024
"""Bytes: with less room than a segment takes, the spool is full; with twice as much it no longer is."""
_QUEUE_BYTES: Final = 4 << 20
"""Of the messages that the queued records came in. Parsed they take 10 times as much memory, as much as 10,000 short
ones do; of the worst form 25 times."""
_SLICE: Final = 32
"""Events that are sealed without letting another thread run: about 0.2 ms."""
_PAUSE: Final = 5e-5
"""Seconds between two slices: long enough for a waiting thread to get the interpreter, which a release alone is not."""
_MINUTE_NS: Final = 60_000_000_000

_log = logging.getLogger(__name__)


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
        # What put_nowait compares with: zero while the spool is full, and once the queue is closed.
        self._limit = 0
        self._queue: deque[AuditRecord] = deque()
        # Bytes that ever went in, counted by the answering threads, and up to which more may, moved on by the audit
        # thread with what came out. A statement that adds and calls nothing is not interrupted (see
        # observability.instruments); in a build where it is, less would be counted than is there, and never more.
        self._put_bytes = 0
        self._upto_bytes = _QUEUE_BYTES
        self._losses = Losses()
        # Sealed but not committed: sealing cannot be undone, so these are kept until a commit succeeds.
        self._sealed: list[Sealed] = []
        self._sequence = 0
        self._commits = 0
        self._used = 0
        self._checkpoint_minute = 0
        self._checkpointed = 0
        self._problem = ""
        self._full = False
        self._closing = False
        self._gate = threading.Lock()
        self._parked = False
        self._wake = threading.Event()
        self.outbox = Outbox(self._wake)
        """For who ships what is committed."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Commits the first event and starts the thread; raises AuditError, the spool closed, where it fails."""
        self._sealed.append(self._source.started(self._spool.previous))
        if self._spool.set_aside is not None:
            self._sealed.append(self._source.damaged(self._spool.set_aside.name))
        try:
            self._spool.append(self._source.segment(self._sealed))
        except AuditError:
            self._spool.close()
            raise
        self._note_commit()
        self._checkpoint_minute = self._minute()
        self._checkpointed = self._sequence
        self._measure()
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
        return Statistics(
            source=self._source.name,
            queued=len(self._queue) + len(self._sealed),
            capacity=self._capacity,
            dropped=self._losses.total,
            sequence=self._sequence,
            commits=self._commits,
            spool_bytes=self._used,
            spool_max_bytes=self._spool.max_bytes,
            problem=self._problem,
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
            raise AuditError(f"{len(self._queue)} audit records were not committed within {grace} s: {self._problem}")
        if ship is not None:
            ship(Seconds(max(ends - time.monotonic(), 0.0)))
            self._let_go()
        self._spool.close()
        left = len(self._queue) + len(self._sealed)
        if left:
            raise AuditError(f"{left} audit records are lost: {self._problem}")

    # What follows runs on the thread.

    def _run(self) -> None:
        give_way()
        try:
            self._commit_until_closed()
        except BaseException:
            # Nobody commits any more: what comes from now on is dropped and counted, or denied.
            with self._gate:
                self._limit = 0
            self._problem = "The audit thread failed, and nothing is recorded; its log has the reason"
            raise

    def _commit_until_closed(self) -> None:
        idle = 0
        while not self._closing:
            if self._problem:
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
        due = self._sequence > self._checkpointed
        seconds = (_MINUTE_NS - self._clock.now_ns() % _MINUTE_NS) / 1e9 if due else None
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
        committed = False
        self._let_go()
        while True:
            if self._full and not self._measure():
                return committed
            self._seal()
            if not self._sealed or not self._commit():
                return committed
            committed = True
            if len(self._queue) < _SEGMENT_EVENTS:
                return committed

    def _seal(self) -> None:
        """Makes a segment of what is queued, unless the last one has not been committed."""
        queue, sealed = self._queue, self._sealed
        if sealed:
            return
        if self._sequence > self._checkpointed and self._minute() != self._checkpoint_minute:
            sealed.append(self._source.checkpoint())
            self._checkpoint_minute = self._minute()
            self._checkpointed = self._source.sequence
        size = 0
        while queue and len(sealed) < _SEGMENT_EVENTS and size < _SEGMENT_BYTES:
            record = queue.popleft()
            self._upto_bytes += record.size
            try:
                event = self._source.seal(record)
            except Exception:  # noqa: BLE001
                # A thread that ends would end the trail in silence; the record becomes part of a gap instead.
                _log.exception("an audit record could not be made an event")
                self._losses.add(record.time_ns)
                continue
            sealed.append(event)
            size += len(event.payload)
            if len(sealed) % _SLICE == 0:
                time.sleep(_PAUSE)
        # With a queue that is as good as full there would soon be the next gap.
        if len(queue) <= self._capacity // 2:
            self._seal_gap()

    def _seal_gap(self) -> None:
        gap = self._losses.take()
        if gap is not None:
            self._sealed.append(self._source.gap(*gap))

    def _commit(self, *, durable: bool = False) -> bool:
        try:
            self._append(durable=durable)
        except AuditError as error:
            self._note_failure(error)
            return False
        self._note_commit()
        self._measure()
        return True

    def _append(self, *, durable: bool) -> None:
        try:
            self._spool.append(self._source.segment(self._sealed), durable=durable)
        except SpoolDamagedError as error:
            self._note_failure(error)
            # There may be a new one, and at the end there is no later.
            self._spool.append(self._source.segment(self._sealed), durable=durable)

    def _let_go(self) -> None:
        """Frees the room of what was shipped."""
        shipped = self.outbox.take_shipped()
        if not shipped:
            return
        try:
            self._spool.remove(shipped)
        except AuditError as error:
            self.outbox.put_back(shipped)
            self._note_failure(error)
        else:
            self._measure()

    def _note_failure(self, error: AuditError) -> None:
        self._note_problem(str(error))
        if isinstance(error, SpoolDamagedError):
            try:
                self._spool.replace()
            except AuditError as another:
                self._note_problem(str(another))
            else:
                # The new one begins with what the old one did not take.
                self._sealed.append(self._source.damaged(self._spool.set_aside.name if self._spool.set_aside else ""))

    def _note_commit(self) -> None:
        self._sequence = self._source.sequence
        self._commits += 1
        self._sealed = []
        self.outbox.nudge()

    def _measure(self) -> bool:
        """Opens the queue where the spool has room, else shuts it; True where it has."""
        try:
            self._used = self._spool.used_bytes()
        except AuditError as error:
            self._note_failure(error)
            return False
        room = self._spool.max_bytes - self._used
        self._full = room < (2 * _FULL_BELOW if self._full else _FULL_BELOW)
        self._note_problem(f"The audit spool in {self._spool.directory} is full" if self._full else "")
        with self._gate:
            if not self._closing:
                self._limit = 0 if self._full else self._capacity
        return not self._full

    def _note_problem(self, problem: str) -> None:
        if problem == self._problem:
            return
        if problem:
            _log.error("audit events are held back", extra={"reason": problem})
        else:
            _log.info("audit events are committed again")
        self._problem = problem

    def _finish(self) -> None:
        """Commits what is left, in a full spool too: the queue is bounded, and these answers were given."""
        while self._queue:
            self._seal()
            if not self._commit():
                return
        self._seal_gap()
        self._sealed.append(self._source.stopped())
        self._commit(durable=True)

    def _minute(self) -> int:
        return self._clock.now_ns() // _MINUTE_NS
