"""Streams of server-sent events, taken apart and put together again. No I/O.

As the HTML standard reads them: lines end with CR LF, LF or CR, an event with an empty line; what comes after the last
empty line is no event.
"""

import re
from typing import Final

from msgspec import Struct

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# A CR at the very end may be the first half of CR LF.
_EVENT_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n|\Z))")
_LONGEST_END: Final = 4


class Event(Struct, frozen=True):
    """One event, or comments between events."""

    raw: bytes
    """With the empty line at its end."""
    kind: str
    data: str | None
    """None where it has none, so that no client is told of it."""

    def with_data(self, data: bytes) -> bytes:
        """The same event with other data, which has no line ends."""
        others = [line for line in _LINE_END.split(self.raw) if line and _field(line)[0] != b"data"]
        return b"".join(line + b"\r\n" for line in (*others, b"data: " + data)) + b"\r\n"


class EventReader:
    """Takes a stream in pieces and gives its events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._begun = False
        # Up to here there is no end of an event.
        self._searched = 0

    @property
    def held(self) -> int:
        """Bytes of an event that has not ended."""
        return len(self._rest)

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece."""
        self._rest += piece
        if not self._begun and len(self._rest) >= len(_BOM):
            self._begun = True
            if self._rest.startswith(_BOM):
                del self._rest[: len(_BOM)]
        events = []
        start = 0
        for end in _EVENT_END.finditer(self._rest, self._searched):
            events.append(_event(bytes(self._rest[start : end.end()])))
            start = end.end()
        del self._rest[:start]
        self._searched = max(0, len(self._rest) - _LONGEST_END)
        return events


def message(data: bytes) -> bytes:
    """An event as MCP's servers send them."""
    return b"event: message\r\ndata: " + data + b"\r\n\r\n"


def _event(raw: bytes) -> Event:
    kind, data = "message", []
    for line in _LINE_END.split(raw):
        name, value = _field(line)
        if name == b"data":
            data.append(value.decode(errors="replace"))
        elif name == b"event":
            kind = value.decode(errors="replace")
    return Event(raw, kind, "\n".join(data) if data else None)


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")
