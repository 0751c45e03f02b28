"""The audit trail that is turned off (`audit.spool_max_bytes: 0`): takes every record, and keeps none."""

from sark_pdp.audit.statistics import Statistics
from sark_pdp.model import AuditRecord


class NoTrail:
    """An AuditSink that costs nothing. Without state, and so thread-safe."""

    required = False
    keeps = False

    def put_nowait(self, record: AuditRecord) -> bool:
        """True, for nothing was lost that somebody wanted."""
        return True

    def accepts(self) -> bool:
        """True."""
        return True

    def statistics(self) -> Statistics:
        """Of nothing; its source has no name."""
        return Statistics(
            source="",
            queued=0,
            capacity=0,
            dropped=0,
            sequence=0,
            commits=0,
            spool_bytes=0,
            spool_max_bytes=0,
            problem="",
        )
