"""Follows a spool while a sidecar writes it, and keeps what was committed there: the witness against the table."""

import threading
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sark_pdp.audit.reader import SpoolReader
from sark_pdp.errors import AuditError

_INTERVAL: Final = 0.1
"""Seconds; a sidecar lets go of what was shipped every half second."""
_LAST: Final = 2**63 - 1


class _Head(Struct):
    id: str


_head: Final = msgspec.json.Decoder(_Head)


class Committed(Struct, frozen=True):
    """An event that was seen in a spool."""

    id: str
    chain: bytes


class Watch:
    """One spool's. `committed` is for whoever stopped it; `backlog` may be read meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.committed: dict[tuple[str, int], Committed] = {}
        """By source and sequence number."""
        self.differing: list[tuple[str, int]] = []
        """What was there once and something else later."""
        self.backlog = 0
        """Events that no writer was seen to have."""
        self.unread = 0
        """How often the spool could not be read."""
        self._directory = directory
        self._position = 0
        self._names: dict[int, str] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """After one more look."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            last = self._stopped.is_set()
            try:
                with SpoolReader(self._directory) as reader:
                    while self._look(reader) and not self._stopped.wait(_INTERVAL):
                        pass
            except AuditError:
                self.unread += 1
            if last:
                return
            self._stopped.wait(_INTERVAL)

    def _look(self, reader: SpoolReader) -> bool:
        """False where the spool is another one now."""
        segments = list(reader.forward(self._position, _LAST))
        ends = reader.snapshot().sources
        self._names.update((end.number, end.name) for end in ends)
        for segment in segments:
            name = self._names[segment.source]
            for sequence, event in enumerate(segment.events() or (), segment.first):
                found = Committed(_head.decode(event.payload).id, event.chain)
                if self.committed.setdefault((name, sequence), found) != found:
                    self.differing.append((name, sequence))
            self._position = segment.position
        self.backlog = sum(end.sequence - end.shipped for end in ends)
        return not reader.is_replaced()
