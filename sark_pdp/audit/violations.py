"""Records clients that were refused, a bounded number of them: whoever knocks all day must not fill the trail."""

import threading
import time
from collections.abc import Sequence
from typing import Final

from uuid_utils import uuid7

from sark_pdp.interfaces import AuditSink
from sark_pdp.model import DecisionId, LifecycleRecord

EVENT_TYPE: Final = "security_violation"

_SEVERITY: Final = "high"
_PER_INTERVAL: Final = 30
_INTERVAL: Final = 60.0
"""Seconds."""
_MOST_NAMES: Final = 10
_LONGEST_NAME: Final = 256


class Violations:
    """Thread-safe. The lock guards what was counted in the present interval."""

    def __init__(self, audit: AuditSink) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._began = float("-inf")
        self._recorded = 0
        self._left_out = 0

    def client_refused(self, address: str, names: Sequence[str], reason: str) -> None:
        """A client may not call; `names` are those in its certificate, where it has one that counts. Never waits."""
        with self._lock:
            now = time.monotonic()
            if now - self._began >= _INTERVAL:
                self._began, self._recorded = now, 0
            if self._recorded >= _PER_INTERVAL:
                self._left_out += 1
                return
            self._recorded += 1
            left_out, self._left_out = self._left_out, 0
        details = {
            "reason": reason,
            "ip_address": address,
            "names": [name[:_LONGEST_NAME] for name in names[:_MOST_NAMES]],
            "left_out": left_out,
        }
        self._audit.put_nowait(
            LifecycleRecord(DecisionId(str(uuid7())), time.time_ns(), EVENT_TYPE, _SEVERITY, details)
        )
