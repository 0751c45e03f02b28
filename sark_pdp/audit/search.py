"""What events are asked for, and finding and counting them in a spool."""

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
    source: str | None = None

    def __contains__(self, event: Event) -> bool:
        return (
            (self.user is None or self.user in {event.user_id, event.user_email})
            and (self.tool is None or self.tool == event.tool_name)
            and (self.server is None or self.server == event.server_id)
            and (self.decision is None or self.decision == event.decision)
            and (self.event_type is None or self.event_type == event.event_type)
            and (self.since is None or self.since <= event.timestamp)
            and (self.until is None or event.timestamp < self.until)
            and (self.source is None or self.source == event.source)
        )


class Found(Struct, frozen=True):
    """An event as it is read, and the bytes that it is stored as."""

    event: Event
    payload: bytes


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


def newest(reader: SpoolReader, position: int, selection: Selection) -> Iterator[Found]:
    """Events up to a position, the last committed first. Raises AuditError, as all here, where one cannot be read."""
    for segment in reader.backward(position):
        yield from reversed(_selected(segment, selection))


def committed_after(reader: SpoolReader, position: int, selection: Selection) -> tuple[int, list[Found]]:
    """Events committed after a position, in order, and the position to ask after the next time."""
    upto = reader.snapshot().position
    found: list[Found] = []
    for segment in reader.forward(position, upto):
        found.extend(_selected(segment, selection))
    return upto, found


def count(reader: SpoolReader, selection: Selection) -> Counts:
    """The numbers of all events that are selected."""
    counts = Counts(decisions=Counter(), types=Counter(), tools=Counter())
    for segment in reader.forward(0, reader.snapshot().position):
        for found in _selected(segment, selection):
            _add(counts, found.event)
    return counts


def earliest(reader: SpoolReader) -> str:
    """The time of the first event that is there; empty where there is none."""
    for segment in reader.forward(0, reader.snapshot().position, at_once=1):
        for found in _selected(segment, Selection()):
            return found.event.timestamp
    return ""


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


def _selected(segment: StoredSegment, selection: Selection) -> list[Found]:
    events = segment.events()
    if events is None:
        raise AuditError(f"Segment {segment.position} of the spool is damaged; `sark-pdp audit verify` tells more")
    read = ((event_of(stored.payload), stored.payload) for stored in events)
    return [Found(event, payload) for event, payload in read if event in selection]
