"""What the `sark-pdp audit` commands read: one protocol for the spool of this machine and for an audit writer."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias

import click
from msgspec import Struct

from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.search import Counts, Found, Selection, committed_after, count, earliest, newest
from sark_pdp.errors import AuditError

_POLL_SECONDS = 0.2


class HourCounts(Struct):
    """What an audit writer counts: whole hours, by user and type."""

    events: int
    since: str
    """The start of the first hour that was asked for."""
    until: str
    """The end of the last one."""
    types: Counter[str]
    users: Counter[str]
    """Without the events of no user."""
    hours: Counter[str]
    """By the start of the hour, the earliest first."""


AnyCounts: TypeAlias = Counts | HourCounts


class Trail(Protocol):
    """Events that can be asked for. Each method raises AuditError, with what to do about it."""

    @property
    def title(self) -> str:
        """What people call it, in the middle of a sentence."""

    @property
    def many_sources(self) -> bool:
        """Whether it holds the events of more than this machine."""

    def newest(self, selection: Selection, limit: int = 0) -> Iterator[Found]:
        """Events that are selected, the newest first, at most `limit` where that is not 0."""

    def follow(self, selection: Selection, before: int) -> Iterator[list[Found]]:
        """The last `before` events, oldest first, and then, without an end, what is committed: some at a time."""

    def counts(self, selection: Selection) -> AnyCounts:
        """The numbers of what is selected."""

    def earliest(self) -> str:
        """The time of the first event; empty where that is not known at once."""


class SpoolTrail:
    """The spool of this machine."""

    many_sources = False

    def __init__(self, directory: Path) -> None:
        """Raises AuditError where there is none."""
        self._reader = SpoolReader(directory)
        self.title = str(directory)

    def close(self) -> None:
        """Lets go of the file."""
        self._reader.close()

    def newest(self, selection: Selection, limit: int = 0) -> Iterator[Found]:
        """The last committed first."""
        return islice(newest(self._reader, self._reader.snapshot().position, selection), limit or None)

    def follow(self, selection: Selection, before: int) -> Iterator[list[Found]]:
        """Looks again and again; goes on with the spool that took the place of a damaged one."""
        position = self._reader.snapshot().position
        yield list(islice(newest(self._reader, position, selection), before))[::-1]
        while True:
            time.sleep(_POLL_SECONDS)
            position, events = committed_after(self._reader, position, selection)
            yield events
            if self._reader.is_replaced() and (reader := self._opened_anew()) is not None:
                click.echo(
                    f"sark-pdp: {self.title} holds another spool now, which is followed from its start", err=True
                )
                self._reader.close()
                self._reader, position = reader, 0

    def counts(self, selection: Selection) -> Counts:
        """Of all events that are still here."""
        return count(self._reader, selection)

    def earliest(self) -> str:
        """The time of the first event that is still here."""
        return earliest(self._reader)

    def _opened_anew(self) -> SpoolReader | None:
        try:
            return SpoolReader(self._reader.directory)
        except AuditError:
            # Set aside, and its successor is not there yet.
            return None
