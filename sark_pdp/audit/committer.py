"""Makes segments of records and commits them to the spool: sealing, checkpoints, gaps, and what becomes of failures."""

import logging
import time
from collections import deque
from typing import Final

from sark_pdp.audit.losses import Losses
from sark_pdp.audit.outbox import Outbox
from sark_pdp.audit.source import Sealed, Source
from sark_pdp.audit.spool import Spool
from sark_pdp.errors import AuditError, SpoolDamagedError
from sark_pdp.interfaces import Clock
from sark_pdp.model import AuditRecord

SEGMENT_EVENTS: Final = 256
MINUTE_NS: Final = 60_000_000_000

_SEGMENT_BYTES: Final = 256 * 1024
_FULL_BELOW: Final = _SEGMENT_BYTES + 64 * 1024
"""Bytes: with less room than a segment takes, the spool is full; with twice as much it no longer is."""
_SLICE: Final = 32
"""Events that are sealed without letting another thread run: about 0.2 ms."""
_PAUSE: Final = 5e-5
"""Seconds between two slices: long enough for a waiting thread to get the interpreter, which a release alone is not."""

_log = logging.getLogger(__name__)


class Committer:
    """The state of a trail between the queue and the spool.

    For one thread at a time: that which starts it, the audit thread, and that which closes it; others may read what is
    public.
    """

    def __init__(self, spool: Spool, source: Source, clock: Clock, losses: Losses, outbox: Outbox) -> None:
        self.sealed: list[Sealed] = []
        """Not committed: sealing cannot be undone, so these are kept until a commit succeeds."""
        self.sequence = 0
        """Of the last event that is committed."""
        self.commits = 0
        self.used = 0
        """Bytes of the spool, as counted lately."""
        self.problem = ""
        """Why nothing is committed, or let go of, at present."""
        self.failing = False
        """The last event could not be written, or the spool not be measured."""
        self.full = False
        """Nothing more is to be taken before there is room."""
        self._spool = spool
        self._source = source
        self._clock = clock
        self._losses = losses
        self._outbox = outbox
        self._checkpoint_minute = 0
        self._checkpointed = 0
        self._ended = False
        """The last event of the source is sealed: nothing may follow on it."""

    @property
    def checkpoint_due(self) -> bool:
        """Whether the minute ends in a checkpoint."""
        return self.sequence > self._checkpointed

    @property
    def needs_look(self) -> bool:
        """Whether `measure` alone can tell that the spool takes events again: there is nothing to commit."""
        return self.full or (self.failing and not self.sealed)

    def start(self) -> None:
        """Commits the first event; raises AuditError, the spool closed, where it fails."""
        self.sealed.append(self._source.started(self._spool.previous))
        if self._spool.set_aside is not None:
            self.sealed.append(self._source.damaged(self._spool.set_aside.name))
        try:
            self._spool.append(self._source.segment(self.sealed))
        except AuditError:
            self._spool.close()
            raise
        self._note_commit()
        self._checkpoint_minute = self._minute()
        self._checkpointed = self.sequence
        self.measure()

    def seal(self, queue: deque[AuditRecord], calm: int) -> int:
        """Makes a segment of what is queued, unless the last one has not been committed; returns the bytes it took out.

        With more than `calm` records left there would soon be the next gap, so none is told of yet.
        """
        sealed = self.sealed
        if sealed:
            return 0
        if self.checkpoint_due and self._minute() != self._checkpoint_minute:
            sealed.append(self._source.checkpoint())
            self._checkpoint_minute = self._minute()
            self._checkpointed = self._source.sequence
        size = taken = 0
        while queue and len(sealed) < SEGMENT_EVENTS and size < _SEGMENT_BYTES:
            record = queue.popleft()
            taken += record.size
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
        if len(queue) <= calm:
            self._seal_gap()
        return taken

    def commit(self, *, durable: bool = False) -> bool:
        """Commits what is sealed; False where that failed, and `problem` says why."""
        try:
            self._append(durable=durable)
        except AuditError as error:
            self.failing = True
            self._note_failure(error)
            return False
        self._note_commit()
        self.measure()
        return True

    def finish(self) -> None:
        """Commits the end of the source."""
        self._seal_gap()
        self._ended = True
        self.sealed.append(self._source.stopped())
        self.commit(durable=True)

    def let_go(self) -> None:
        """Frees the room of what was shipped."""
        shipped = self._outbox.take_shipped()
        if not shipped:
            return
        try:
            self._spool.remove(shipped)
        except AuditError as error:
            self._outbox.put_back(shipped)
            self._note_failure(error)
        else:
            self.measure()

    def measure(self) -> bool:
        """Asks the spool how full it is; True where it has room."""
        try:
            self.used = self._spool.used_bytes()
        except AuditError as error:
            self.failing = True
            self._note_failure(error)
            return False
        self.failing = False
        room = self._spool.max_bytes - self.used
        self.full = room < (2 * _FULL_BELOW if self.full else _FULL_BELOW)
        self._note_problem(f"The audit spool in {self._spool.directory} is full" if self.full else "")
        return not self.full

    def _append(self, *, durable: bool) -> None:
        try:
            self._spool.append(self._source.segment(self.sealed), durable=durable)
        except SpoolDamagedError as error:
            self._note_failure(error)
            # There may be a new one, and at the end there is no later.
            self._spool.append(self._source.segment(self.sealed), durable=durable)

    def _seal_gap(self) -> None:
        gap = self._losses.take()
        if gap is not None:
            self.sealed.append(self._source.gap(*gap))

    def _note_failure(self, error: AuditError) -> None:
        if isinstance(error, SpoolDamagedError):
            try:
                self._spool.replace()
            except AuditError as another:
                error = another
            else:
                # The new one begins with what the old one did not take; behind the end of a source nothing may be.
                if not self._ended:
                    name = self._spool.set_aside.name if self._spool.set_aside else ""
                    self.sealed.append(self._source.damaged(name))
        self._note_problem(str(error))

    def _note_commit(self) -> None:
        self.sequence = self._source.sequence
        self.commits += 1
        self.sealed = []
        self._outbox.nudge()

    def _note_problem(self, problem: str) -> None:
        if problem == self.problem:
            return
        if problem:
            _log.error("audit events are held back", extra={"reason": problem})
        else:
            _log.info("audit events are committed again")
        self.problem = problem

    def _minute(self) -> int:
        return self._clock.now_ns() // MINUTE_NS
