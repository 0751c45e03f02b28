"""Ships what is committed to the spool to an audit writer, and tells the spool what it may let go of.

A thread of its own: a writer that is slow, refuses or is gone costs disk, never an answer. Events stay in the spool
until the writer says that its database has them; what was sent twice, it stores once.
"""

import logging
import random
import threading
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from sark_pdp.audit.outbox import Outbox
from sark_pdp.audit.priority import give_way
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.session import Ledger, Orders, Session
from sark_pdp.audit.uplink import Uplink
from sark_pdp.errors import AuditError, ShippingError
from sark_pdp.model import Seconds

_FILES_INTERVAL: Final = 10.0
"""Seconds between two looks at the certificates' files."""
_FIRST_DELAY: Final = 0.1
"""Seconds, as below: the longest wait after a first failure; it doubles with each one after it."""
_LONGEST_DELAY: Final = 10.0
_LOOK_AT_END: Final = 0.25
_MOST_DOUBLINGS: Final = 10
_END_WAIT: Final = 1.0

_log = logging.getLogger(__name__)


class Shipping(Struct, frozen=True):
    """What the shipper looks like at one moment."""

    shipped: int
    """Events that were acknowledged since the start."""
    lag: Seconds
    """The age of the oldest event that was sent and is not acknowledged; zero where there is none."""
    problem: str
    """Why nothing is acknowledged at present; empty where all is well."""


class Shipper:
    """Thread-safe; `start` and `finish` are called once each, by its owner."""

    def __init__(self, directory: Path, outbox: Outbox, uplink: Uplink) -> None:
        """`outbox` is that of the queue that writes the spool in this directory."""
        self._directory = directory
        self._outbox = outbox
        self._ledger = Ledger(outbox)
        self._finishing = threading.Event()
        self._stopping = threading.Event()
        # The thread's own.
        self._uplink = uplink
        self._files_looked = 0.0
        self._renews = False
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def start(self) -> None:
        """Ships from now on, beginning with what earlier processes left in the spool."""
        self._thread.start()

    def statistics(self) -> Shipping:
        """As of now."""
        oldest = self._ledger.oldest
        lag = 0.0 if oldest is None else max(time.time() - oldest, 0.0)
        return Shipping(self._ledger.shipped, Seconds(lag), self._ledger.problem)

    def finish(self, grace: Seconds) -> None:
        """Ships all that the spool holds within `grace` seconds; the log says what stays behind.

        Called when nothing is committed any more.
        """
        self._finishing.set()
        self._outbox.nudge()
        self._thread.join(grace)
        self._stopping.set()
        self._outbox.nudge()
        self._thread.join(_END_WAIT)
        if left := self._left():
            reason = self._ledger.problem or "no time was left"
            _log.warning("audit events stay in the spool, not shipped", extra={"events": left, "reason": reason})

    def _left(self) -> int:
        """Events that the spool would not let go of."""
        told = {shipped.source: shipped.sequence for shipped in self._outbox.waiting()}
        try:
            with SpoolReader(self._directory) as reader:
                ends = reader.snapshot().sources
        except AuditError:
            return 0
        return sum(end.sequence - max(end.shipped, told.get(end.number, 0)) for end in ends)

    # What follows runs on the thread.

    def _run(self) -> None:
        give_way()
        try:
            while not (self._stopping.is_set() or self._has_shipped_all()):
                pass
        except BaseException:
            self._ledger.problem = "The audit shipper failed, and nothing is shipped; its log has the reason"
            raise

    def _has_shipped_all(self) -> bool:
        """One stream, and the wait after one that failed; True when nothing is left and nothing more will come."""
        try:
            return self._ship()
        except (AuditError, ShippingError) as error:
            self._ledger.note_failure(f"The audit writer {self._uplink.target} does not take events: {error}")
            self._uplink.try_next()
        except Exception as error:  # noqa: BLE001
            # No memory or no thread, most likely: a shipper that ended would ship nothing until the next start.
            self._ledger.note_failure(f"The audit shipper failed ({type(error).__name__}); its log has the reason")
            _log.exception("the audit shipper failed; it begins anew")
        finally:
            self._ledger.tell_spool()
        self._wait()
        return False

    def _ship(self) -> bool:
        orders = Orders(self._finishing.is_set, self._stopping.is_set, self._renewing)
        self._renews = False
        with SpoolReader(self._directory) as reader:
            stream = self._uplink.open(self._outbox.nudge)
            try:
                session = Session(reader, stream, self._ledger, self._outbox)
                return session.run(orders, _FILES_INTERVAL if self._uplink.reloads else None)
            finally:
                stream.close()

    def _renewing(self) -> bool:
        now = time.monotonic()
        if not self._renews and now - self._files_looked >= _FILES_INTERVAL:
            self._files_looked = now
            self._renews = self._uplink.changed()
        return self._renews

    def _wait(self) -> None:
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._ledger.failures, _MOST_DOUBLINGS))
        ends = time.monotonic() + random.uniform(0.0, longest)  # noqa: S311 (no secret)
        while (left := ends - time.monotonic()) > 0 and not self._stopping.wait(min(left, _LOOK_AT_END)):
            if self._finishing.is_set():
                # There may not be the time for the whole wait.
                return
