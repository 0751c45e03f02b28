"""Invalidations that an administrator asks for: done, and recorded."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from uuid_utils import uuid7

from sark_pdp.interfaces import AuditSink, Generations
from sark_pdp.model import DecisionId, LifecycleRecord

_EVENT_TYPE: Final = "cache_invalidated"
_SEVERITY: Final = "low"


class Invalidations:
    """Replaces generations and tells the audit trail. Thread-safe."""

    def __init__(self, generations: Generations, audit: AuditSink) -> None:
        self._generations = generations
        self._audit = audit

    def invalidate(self, told: Mapping[str, str], subjects: Sequence[str]) -> bool:
        """`told` is what the administrator said, for the record. True where every process hears of it."""
        shared = self._generations.invalidate(subjects)
        details = {**told, "shared": shared}
        self._audit.put_nowait(
            LifecycleRecord(DecisionId(str(uuid7())), time.time_ns(), _EVENT_TYPE, _SEVERITY, details)
        )
        return shared
