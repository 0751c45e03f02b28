"""Checks a spool: that no event was changed, taken out, added or moved, and how far that is proven.

With the chain key, nobody without it could have changed an event unseen. Without a key, accidents are found. That
nothing is missing at the end of a source is proven by its `source_stopped`, or by the `source_started` of the source
after it, which names its last sequence number and chain value. Of events that were shipped, only where they ended is
still here: whether they are complete and unchanged is for the audit writer's database to tell.
"""

import hmac
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec
from msgspec import Struct

from sark_pdp.audit.chain import FIRST, KEYED, KEYLESS, Link, link
from sark_pdp.audit.ids import Ids
from sark_pdp.audit.reader import SourceEnd, SpoolReader, StoredSegment
from sark_pdp.audit.source import CHECKPOINT, GAP, STARTED, STOPPED, Sealed

_MOST_FINDINGS = 20
"""That are told of one source; the rest is counted."""


class SourceReport(Struct):
    """What was found of one source."""

    source: str
    events: int = 0
    last: int = 0
    """Sequence number of the last event."""
    shipped: int = 0
    """Sequence number of the last event that the spool let go of, for an audit writer has it; 0: none."""
    since: str = ""
    """RFC 3339; of the first event."""
    until: str = ""
    """Of the last event."""
    chain: str = "unchecked"
    """`keyed`, `keyless`, or `unchecked` where it was made with a key that was not given."""
    end: str = "unproven"
    """`stopped`, `succeeded` (named by the next source), `shipped` or `expired` (nothing of it is left), `unproven`."""
    dropped: int = 0
    """Records that were dropped and accounted for in `audit_gap` events."""
    rejected: int = 0
    """Of the events, those that a database refused and keeps apart; 0 in a spool."""
    expired: int = 0
    """Events that went with a day of a database that is no longer there; 0 in a spool."""
    differences: int = 0
    findings: list[str] = []
    """The first differences, a sentence each."""

    def add(self, finding: str) -> None:
        """Counts a difference."""
        self.differences += 1
        if self.differences <= _MOST_FINDINGS:
            self.findings.append(finding)


class Report(Struct, frozen=True):
    """What was found of a spool."""

    sources: list[SourceReport]
    """Oldest first."""
    events: int
    differences: int
    unchecked: bool
    """A chain could not be checked for want of its key."""


class _Head(Struct):
    """Those columns of a payload that are checked."""

    id: str
    timestamp: str
    source: str
    sequence: int
    event_type: str


class _Details(Struct):
    details: dict[str, Any]


_head = msgspec.json.Decoder(_Head)
_details = msgspec.json.Decoder(_Details)


def verify(reader: SpoolReader, keys: Sequence[bytes] = ()) -> Report:
    """Recomputes the chain of each source as of now; `keys` are the chain keys in use, new and old.

    Raises AuditError where the spool cannot be read.
    """
    snapshot = reader.snapshot()
    checks = {end.number: SourceCheck(end, keys) for end in snapshot.sources}
    strays: dict[int, SourceReport] = {}
    # On disk where they are many: a spool may hold more ids than fit into a sidecar's memory.
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        ids = Ids(database)
        for segment in reader.forward(0, snapshot.position):
            check = checks.get(segment.source)
            if check is None:
                stray = strays.setdefault(segment.source, SourceReport(f"(unknown source {segment.source})"))
                stray.add(f"segment {segment.position} belongs to no source of this spool")
            else:
                check.segment(segment, ids)
    for check in checks.values():
        check.finish()
    _compare_ends(list(checks.values()), keyed=bool(keys))
    return report_of([check.report for check in checks.values()] + list(strays.values()))


def report_of(reports: list[SourceReport]) -> Report:
    """What was found of all these sources together."""
    return Report(
        reports,
        sum(report.events for report in reports),
        sum(report.differences for report in reports),
        any(report.events and report.chain == "unchecked" and not report.differences for report in reports),
    )


class SourceCheck:
    """Goes through the events of one source."""

    def __init__(self, end: SourceEnd, keys: Sequence[bytes]) -> None:
        self.end = end
        self.report = SourceReport(end.name, shipped=end.shipped)
        self.previous: Any = None
        """What `source_started` says of the source before."""
        self._links = _links(end.algorithm, keys)
        self._next = end.shipped + 1
        # None where the event before is missing, so that nothing can be compared.
        self._chain: bytes | None = end.shipped_chain if end.shipped else FIRST
        self._stopped = False
        if end.algorithm not in {KEYED, KEYLESS}:
            self.report.add(f"its chain is of an unknown kind, {end.algorithm!r}")
        elif self._links:
            self.report.chain = "keyed" if end.algorithm == KEYED else "keyless"

    @property
    def tells(self) -> bool:
        """Whether what it says of the source before is here: it may have been shipped."""
        return bool(self.report.events) and not self.end.shipped

    def segment(self, segment: StoredSegment, ids: Ids) -> None:
        """Takes the next segment of this source by position."""
        events = segment.events()
        if events is None:
            self.report.add(f"segment {segment.position}, from event {segment.first} on, cannot be decoded")
            self._chain = None
            return
        for sequence, event in enumerate(events, segment.first):
            self.event(sequence, event, ids)

    def finish(self) -> None:
        """Compares the last event with what the spool says of the source."""
        report, end = self.report, self.end
        report.last = self._next - 1
        if report.last < end.sequence:
            report.add(f"events {self._next} to {end.sequence} are missing at the end")
        elif report.last > end.sequence or self._chain not in {None, end.chain}:
            report.add(f"the spool's own mark of the end, event {end.sequence}, is not that of the last event")
        elif self._stopped:
            report.end = "stopped"
        elif not report.events:
            report.end = "shipped"

    def event(self, sequence: int, event: Sealed, ids: Ids) -> None:
        """Takes the next event of this source."""
        report = self.report
        report.events += 1
        if sequence < self._next:
            report.add(f"event {sequence} is there twice, or out of order")
            return
        if sequence > self._next:
            self.missing(sequence - 1)
        if self._stopped:
            report.add(f"event {sequence} follows on the end of the source")
            self._stopped = False
        self._check_chain(sequence, event)
        try:
            head = _head.decode(event.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            report.add(f"event {sequence} is not readable")
        else:
            self._check_columns(sequence, head, ids)
            if head.event_type in {STARTED, STOPPED, CHECKPOINT, GAP}:
                self._check_own(sequence, head.event_type, event.payload)
        self._chain = event.chain
        self._next = sequence + 1

    def missing(self, last: int) -> None:
        """Tells that the events up to this one are not there."""
        self.report.add(f"events {self._next} to {last} are missing")
        self._chain = None

    def _check_chain(self, sequence: int, event: Sealed) -> None:
        if self._chain is None or not self._links:
            return
        for each in self._links:
            if hmac.compare_digest(each(self._chain, event.payload), event.chain):
                # One source has one key.
                self._links = [each]
                return
        self.report.add(f"event {sequence} was changed, or its chain value was: they do not belong together")

    def _check_columns(self, sequence: int, head: _Head, ids: Ids) -> None:
        report = self.report
        report.since = report.since or head.timestamp
        report.until = head.timestamp
        if head.sequence != sequence:
            report.add(f"event {sequence} says that it is event {head.sequence}")
        if head.source != report.source:
            report.add(f"event {sequence} says that it is of source {head.source!r}")
        if (head.event_type == STARTED) != (sequence == 1):
            report.add(f"event {sequence} is of type {head.event_type}, which does not belong there")
        if not ids.add(head.id):
            report.add(f"event {sequence} has the id of another one, {head.id}")

    def _check_own(self, sequence: int, event_type: str, payload: bytes) -> None:
        """The events that say something of the source itself."""
        try:
            details = _details.decode(payload).details
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.report.add(f"event {sequence} is not readable")
            return
        if event_type == STARTED:
            self.previous = details.get("previous")
        elif event_type == GAP:
            dropped = details.get("dropped")
            self.report.dropped += dropped if type(dropped) is int else 0
        else:
            self._stopped = event_type == STOPPED
            before = None if self._chain is None else self._chain.hex()
            if before is not None and (details.get("sequence"), details.get("chain")) != (sequence - 1, before):
                self.report.add(f"event {sequence} names another chain value than that of the event before it")


def _links(algorithm: str, keys: Sequence[bytes]) -> list[Link]:
    """Those functions that may have made a chain of this kind."""
    return [link(None)] if algorithm == KEYLESS else [link(key) for key in keys]


def _compare_ends(checks: Sequence[SourceCheck], *, keyed: bool) -> None:
    """Compares the end of each source with what its successor says of it, newest first.

    A keyless source is vouched for by a successor with a key, or by one that is vouched for itself: it is older than
    the key. Any other, where there is a key, may be a forgery that needed none.
    """
    successor: SourceCheck | None = None
    trusted = False
    for check in reversed(checks):
        report = check.report
        named = successor is not None and names(successor, check)
        trusted = judge_key(report, keyed=keyed, vouched=named and trusted)
        successor = check
    if successor is not None and successor.previous is not None:
        tell_absent(successor)


def tell_absent(successor: SourceCheck) -> None:
    """Tells that the source before it is not here."""
    successor.report.add(f"it names a source before it, {name_of(successor.previous)}, which is not here")


def judge_key(report: SourceReport, *, keyed: bool, vouched: bool) -> bool:
    """Whether this source can vouch for the one before; a difference is told of one that needed a key and has none."""
    if keyed and report.events and report.chain == "keyless" and not vouched:
        report.add("it was chained without a key, and no later source that has one names it")
    return not report.differences and report.chain != "unchecked"


def names(successor: SourceCheck, check: SourceCheck) -> bool:
    """Whether a source names this one and its end as those before it; a difference is told of it otherwise."""
    if not successor.tells:
        return False
    report, named = check.report, successor.previous
    if name_of(named) != report.source:
        successor.report.add(f"it names {name_of(named) or 'none'} as the source before it, which was {report.source}")
        return False
    if (named.get("sequence"), named.get("chain")) != (report.last, check.end.chain.hex()):
        report.add(f"its successor found its end at event {named.get('sequence')}, or with another chain value")
        return False
    if report.end == "unproven":
        report.end = "succeeded"
    return True


def name_of(previous: Any) -> str | None:
    """Of a source, as the one after it names it."""
    name = previous.get("source") if type(previous) is dict else None
    return name if type(name) is str else None
