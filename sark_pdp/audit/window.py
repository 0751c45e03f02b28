"""What was sent to an audit writer and is not acknowledged: at most so many bytes. No I/O."""

from collections import deque

from msgspec import Struct

from sark_pdp.audit.spool import Shipped
from sark_pdp.errors import ShippingError


class Mark(Struct, frozen=True):
    """One segment that was sent."""

    position: int
    """In the spool."""
    number: int
    """Of its source, in the spool."""
    source: str
    first: int
    """Sequence number of its first event."""
    last: int
    chain: bytes
    """Of its last event."""
    size: int
    """Bytes that were sent."""
    made: float
    """When its first event was made, in seconds since the epoch."""


class Window:
    """The state of one stream. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        self.progress = 0
        """How often an acknowledgement said more than those before it."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._marks: deque[Mark] = deque()
        # By source; as many as the spool has.
        self._sent: dict[str, int] = {}
        self._acknowledged: dict[str, int] = {}

    def __len__(self) -> int:
        """Segments that are not acknowledged."""
        return len(self._marks)

    @property
    def has_room(self) -> bool:
        """Whether one more segment may be sent."""
        return self._bytes < self._max_bytes

    @property
    def oldest(self) -> float | None:
        """When the first event was made that is not acknowledged."""
        return self._marks[0].made if self._marks else None

    def add(self, mark: Mark) -> None:
        """It was sent; in the order of the spool."""
        self._marks.append(mark)
        self._bytes += mark.size
        self._sent[mark.source] = mark.last

    def acknowledge(self, source: str, sequence: int) -> list[Mark]:
        """The segments that nothing is missing of any more, in the order of the spool.

        Segments that were sent before them are all acknowledged. Raises ShippingError for what was never sent: whoever
        says so must not make the spool forget an event.
        """
        sent = self._sent.get(source, 0)
        if sequence > sent:
            raise ShippingError(f"it acknowledged event {sequence} of {source[:100]!r}, of which it was sent {sent}")
        if sequence > self._acknowledged.get(source, 0):
            self._acknowledged[source] = sequence
            self.progress += 1
        done = []
        while self._marks and self._marks[0].last <= self._acknowledged.get(self._marks[0].source, 0):
            mark = self._marks.popleft()
            self._bytes -= mark.size
            done.append(mark)
        return done


def merged(marks: list[Mark]) -> list[Shipped]:
    """What the spool is told of acknowledged segments: those that follow on one another together."""
    shipped: list[Shipped] = []
    for mark in marks:
        first = mark.position
        if shipped and (shipped[-1].last + 1, shipped[-1].source) == (first, mark.number):
            first = shipped.pop().first
        shipped.append(Shipped(first, mark.position, mark.number, mark.last, mark.chain))
    return shipped
