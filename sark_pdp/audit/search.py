"""Finds and counts events of a spool."""

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from sark_pdp.audit.event import Event, event_of
from sark_pdp.audit.reader import SpoolReader, StoredSegment
from sark_pdp.audit.source import GAP
from sark_pdp.errors import AuditError


class Selection(Struct, frozen=True):
    """Which events are wanted; None selects all."""

    user: str | None = None
    """An id or an email address."""
    tool: str | None = None
    server: str | None = None
    decision: str | None = None
    event_type: str | None = None
    since: str | None = None
    """Inclusive; written as in events: RFC 3339, UTC, microseconds."""
    until: str | None = None
    """Exclusive."""

    def __contains__(self, event: Event) -> bool:
        return (
            (self.user is None or self.user in {event.user_id, event.user_email})
            and (self.tool is None or self.tool == event.tool_name)
            and (self.server is None or self.server == event.server_id)
            and (self.decision is None or self.decision == event.decision)
            and (self.event_type is None or self.event_type == event.event_type)
            and (self.since is None or self.since <= event.timestamp)
            and (self.until is None or event.timestamp < self.until)
        )


class Counts(Struct):
    """What a spool holds, in numbers."""

    events: int = 0
    since: str = ""
    """The earliest timestamp; empty where there is no event."""
    until: str = ""
    """The latest timestamp."""
    dropped: int = 0
    """Records that were dropped and accounted for."""
    decisions: Counter[str] = Counter()
    types: Counter[str] = Counter()
    tools: Counter[str] = Counter()


def newest(reader: SpoolReader, position: int, selection: Selection) -> Iterator[Event]:
    """Events up to a position, the last committed first. Raises AuditError, as all here, where one cannot be read."""
    for segment in reader.backward(position):
        yield from (event for event in reversed(_events(segment)) if event in selection)


def committed_after(reader: SpoolReader, position: int, selection: Selection) -> tuple[int, list[Event]]:
    """Events committed after a position, in order, and the position to ask after the next time."""
    upto = reader.snapshot().position
    found: list[Event] = []
    for segment in reader.forward(position, upto):
        found.extend(event for event in _events(segment) if event in selection)
    return upto, found


def count(reader: SpoolReader, selection: Selection) -> Counts:
    """The numbers of all events that are selected."""
    counts = Counts(decisions=Counter(), types=Counter(), tools=Counter())
    for segment in reader.forward(0, reader.snapshot().position):
        for event in _events(segment):
            if event in selection:
                _add(counts, event)
    return counts


def _add(counts: Counts, event: Event) -> None:
    counts.events += 1
    counts.since = min(counts.since or event.timestamp, event.timestamp)
    counts.until = max(counts.until, event.timestamp)
    counts.types[event.event_type] += 1
    if event.decision is not None:
        counts.decisions[event.decision] += 1
    if event.tool_name is not None:
        counts.tools[event.tool_name] += 1
    if event.event_type == GAP and type(event.details.get("dropped")) is int:
        counts.dropped += event.details["dropped"]


def _events(segment: StoredSegment) -> list[Event]:
    events = segment.events()
    if events is None:
        raise AuditError(f"Segment {segment.position} of the spool is damaged; `sark-pdp audit verify` tells more")
    return [event_of(event.payload) for event in events]
