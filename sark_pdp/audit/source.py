"""One run of one process as a source of audit events: their sequence and their chain. No I/O."""

import secrets
from collections.abc import Mapping

import uuid_utils
from msgspec import Struct

from sark_pdp.audit.chain import FIRST, algorithm_of, link
from sark_pdp.audit.event import Payloads
from sark_pdp.audit.mask import Mask
from sark_pdp.interfaces import Clock
from sark_pdp.model import AuditRecord, DecisionId, Json, LifecycleRecord

STARTED = "source_started"
STOPPED = "source_stopped"
CHECKPOINT = "audit_checkpoint"
GAP = "audit_gap"
DAMAGED = "audit_spool_damaged"


class Sealed(Struct, frozen=True, array_like=True, gc=False):
    """An event at its place in its source; its sequence number is in the payload."""

    chain: bytes
    payload: bytes


class Segment(Struct, frozen=True):
    """Consecutive events of one source: what one commit adds to the spool."""

    source: str
    number: int
    """By which the spool knows the source."""
    algorithm: str
    """Of its chain."""
    last: int
    """The sequence number of the last event."""
    events: list[Sealed]
    """At least one."""


class Tail(Struct, frozen=True):
    """Where a source ends: what its successor names."""

    source: str
    sequence: int
    chain: bytes


class Source:
    """Gives each record its sequence number and its chain value. For one thread."""

    def __init__(self, name: str, number: int, key: bytes | None, clock: Clock, mask: Mask | None = None) -> None:
        """`name` is the host's or pod's; a boot id that is new in each start is added."""
        self.name = f"{name}/{secrets.token_hex(8)}"
        self.number = number
        self.sequence = 0
        self.chain = FIRST
        self.algorithm = algorithm_of(key)
        self._link = link(key)
        self._clock = clock
        self._payload = Payloads(self.name, mask).payload

    def seal(self, record: AuditRecord) -> Sealed:
        """The next event of this source."""
        sequence = self.sequence + 1
        payload = self._payload(record, sequence)
        self.chain = chain = self._link(self.chain, payload)
        self.sequence = sequence
        return Sealed(chain, payload)

    def segment(self, events: list[Sealed]) -> Segment:
        """The events that were sealed last, ready for the spool."""
        return Segment(self.name, self.number, self.algorithm, self.sequence, events)

    def started(self, previous: Tail | None) -> Sealed:
        """The first event; it proves the end of the source before."""
        before = (
            None
            if previous is None
            else {"source": previous.source, "sequence": previous.sequence, "chain": previous.chain.hex()}
        )
        return self._own(STARTED, "low", {"chain_algorithm": self.algorithm, "previous": before})

    def checkpoint(self) -> Sealed:
        """Carries the chain value before it to where it is kept apart from the events."""
        return self._own(CHECKPOINT, "low", {"sequence": self.sequence, "chain": self.chain.hex()})

    def gap(self, dropped: int, first_ns: int, last_ns: int) -> Sealed:
        """Stands for records that were dropped between two points in time, nanoseconds since the epoch."""
        return self._own(GAP, "high", {"dropped": dropped, "first_ns": first_ns, "last_ns": last_ns})

    def damaged(self, set_aside: str) -> Sealed:
        """A damaged spool was set aside under this name; what it held and no audit writer has is missing here."""
        return self._own(DAMAGED, "high", {"set_aside": set_aside})

    def stopped(self) -> Sealed:
        """The last event; it proves the end of this source."""
        return self._own(STOPPED, "low", {"sequence": self.sequence, "chain": self.chain.hex()})

    def _own(self, event_type: str, severity: str, details: Mapping[str, Json]) -> Sealed:
        id_ = DecisionId(str(uuid_utils.uuid7()))
        return self.seal(LifecycleRecord(id_, self._clock.now_ns(), event_type, severity, details))
