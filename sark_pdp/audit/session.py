"""One stream to one audit writer, from its first segment to its end."""

import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec
from msgspec import Struct

from sark_pdp.audit.outbox import Outbox
from sark_pdp.audit.reader import SpoolReader, StoredSegment
from sark_pdp.audit.uplink import Stream, batch_of
from sark_pdp.audit.window import Mark, Window, merged
from sark_pdp.errors import AuditError, ShippingError

_WINDOW_BYTES: Final = 8 << 20
_READ_AHEAD: Final = 4
"""Segments, each of a quarter of a MiB or so, that are in memory at once."""
_LAST_POSITION: Final = 2**63 - 1
_SLICE: Final = 64
"""Events that are encoded without letting another thread run: about 0.1 ms."""
_PAUSE: Final = 5e-5
"""Seconds, as in the queue."""
_LET_GO_INTERVAL: Final = 0.5
"""Seconds between two times that the spool is told what it may let go of: each costs it a transaction."""
_SILENCE: Final = 60.0
"""Seconds without an acknowledgement while some are due, after which another connection is tried."""
_LOOK: Final = 1.0
"""Seconds between two looks at that."""

_log = logging.getLogger(__name__)


class _Head(Struct):
    timestamp: str


_head: Final = msgspec.json.Decoder(_Head)


class Ledger:
    """What was acknowledged, over all streams of a process. For the shipper's thread; others may read the numbers."""

    def __init__(self, outbox: Outbox) -> None:
        self.shipped = 0
        """Events that were acknowledged."""
        self.position = 0
        """Of the last segment that was acknowledged."""
        self.oldest: float | None = None
        """When the first event was made that is not acknowledged, in seconds since the epoch."""
        self.problem = ""
        """Why nothing is acknowledged at present."""
        self.failures = 0
        """Since the last acknowledgement."""
        self._outbox = outbox
        # Of these the spool was not told yet.
        self._done: list[Mark] = []
        self._told = 0.0

    def add(self, marks: list[Mark]) -> None:
        """They were acknowledged."""
        self._done += marks
        self.position = marks[-1].position
        self.shipped += sum(mark.last - mark.first + 1 for mark in marks)
        self.failures = 0
        if self.problem:
            self.problem = ""
            _log.info("audit events are shipped again")

    def note_failure(self, problem: str) -> None:
        """A stream failed, or could not be opened."""
        self.failures += 1
        if problem != self.problem:
            _log.warning("audit events are not shipped", extra={"reason": problem})
        self.problem = problem

    def tell_spool(self) -> None:
        """It may let go of what was acknowledged."""
        if self._done:
            self._outbox.acknowledge(merged(self._done))
        self._done = []
        self._told = time.monotonic()

    def due(self) -> float | None:
        """Seconds until the spool should be told; None where there is nothing to tell."""
        return max(self._told + _LET_GO_INTERVAL - time.monotonic(), 0.0) if self._done else None


class Orders(Struct, frozen=True):
    """What a session is told meanwhile; each is asked often."""

    finishing: Callable[[], bool]
    """Nothing more is committed: end when all is shipped."""
    stopping: Callable[[], bool]
    """End now."""
    renewing: Callable[[], bool]
    """End when what was sent is acknowledged: another session follows."""


class Session:
    """Sends what the spool has and takes acknowledgements. For one thread."""

    def __init__(self, reader: SpoolReader, stream: Stream, ledger: Ledger, outbox: Outbox) -> None:
        self._reader = reader
        self._stream = stream
        self._ledger = ledger
        self._outbox = outbox
        self._window = Window(_WINDOW_BYTES)
        self._position = ledger.position
        self._pending: deque[StoredSegment] = deque()
        self._names: dict[int, str] = {}
        self._heard = time.monotonic()

    def run(self, orders: Orders, patience: float | None) -> bool:
        """True once all is acknowledged and nothing more will come, False where another session should follow.

        `patience` is in seconds: so often the orders are asked though there is no news. Raises ShippingError or
        AuditError where it cannot go on.
        """
        while not orders.stopping():
            # Asked first: what is read afterwards is all that there will be.
            finishing, renewing, ended = orders.finishing(), orders.renewing(), self._stream.ended
            self._take_acknowledgements()
            if not renewing:
                self._send()
            self._ledger.oldest = self._window.oldest
            if not self._window:
                if renewing or self._reader.is_replaced():
                    return False
                if finishing and not self._pending:
                    return True
            if ended:
                raise ShippingError(self._stream.problem or "it ended the stream")
            self._require_life()
            self._wait(patience)
        return False

    def _take_acknowledgements(self) -> None:
        acknowledged = self._stream.acknowledged
        progress = self._window.progress
        while acknowledged:
            if done := self._window.acknowledge(*acknowledged.popleft()):
                self._ledger.add(done)
        if self._window.progress != progress:
            # What was said before is no sign that anything goes on.
            self._heard = time.monotonic()
        if self._ledger.due() == 0:
            self._ledger.tell_spool()

    def _send(self) -> None:
        if not self._window:
            self._heard = time.monotonic()
        while self._window.has_room:
            if not self._pending:
                ahead = self._reader.forward(self._position, _LAST_POSITION, at_once=_READ_AHEAD)
                self._pending.extend(islice(ahead, _READ_AHEAD))
            if not self._pending:
                return
            self._send_segment(self._pending.popleft())

    def _send_segment(self, segment: StoredSegment) -> None:
        self._position = segment.position
        events = segment.events()
        if not events:
            # It stays in the spool, where `audit verify` finds it too.
            _log.error("a damaged segment of the audit spool cannot be shipped", extra={"position": segment.position})
            return
        source = self._name_of(segment.source)
        batch = batch_of(source, segment.first, events, _SLICE, _give_others_a_turn)
        self._stream.send(batch)
        last = segment.first + len(events) - 1
        made = _made(events[0].payload)
        self._window.add(
            Mark(segment.position, segment.source, source, segment.first, last, events[-1].chain, len(batch), made)
        )

    def _name_of(self, number: int) -> str:
        if number not in self._names:
            self._names = {end.number: end.name for end in self._reader.snapshot().sources}
        name = self._names.get(number)
        if name is None:
            raise AuditError(f"The audit spool in {self._reader.directory} has segments of an unknown source {number}")
        return name

    def _require_life(self) -> None:
        if self._window and time.monotonic() - self._heard > _SILENCE:
            raise ShippingError(f"it has acknowledged nothing for {_SILENCE:.0f} s")

    def _wait(self, patience: float | None) -> None:
        limits = [
            limit for limit in (patience, self._ledger.due(), _LOOK if self._window else None) if limit is not None
        ]
        self._outbox.wait_for_news(min(limits, default=None))


def _give_others_a_turn() -> None:
    time.sleep(_PAUSE)


def _made(payload: bytes) -> float:
    """When an event was made, in seconds since the epoch; now, where it does not tell."""
    try:
        return datetime.fromisoformat(_head.decode(payload).timestamp).timestamp()
    except (msgspec.MsgspecError, ValueError):
        return time.time()
