"""The spool: where committed events stay on this machine, a SQLite database in WAL mode with one writer.

A row holds a segment, all the events of one commit: a third of the processor time of a row for each event, and most of
it spent in SQLite, where other threads run.

What a commit survives: the end of the process, however sudden. The end of the machine costs what the operating system
had not written yet: only checkpoints of the write-ahead log and an orderly close are synced.
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from sark_pdp.audit.segments import pack
from sark_pdp.audit.source import Segment, Tail
from sark_pdp.audit.spool_file import DATABASE, FAILURES, is_damage, lock, not_usable, open_database, set_aside
from sark_pdp.audit.wal import PAGE, WalKeeper
from sark_pdp.errors import AuditError, SpoolDamagedError, StartError

_RECOUNT: Final = 1 << 20
"""Bytes of new events after which SQLite is asked again what they all take up."""
_CLOSE: Final = 4 << 20
"""Bytes below the maximum from which on it is asked each time."""

_PAGES: Final = 4
"""Of the log that a commit takes at least: the tables' own, and the sequence."""

_INSERT = "INSERT INTO segments (position, source, first, events) VALUES (?, ?, ?, ?)"
_END = (
    "INSERT INTO sources (number, name, algorithm, sequence, chain, shipped, shipped_chain)"
    " VALUES (?, ?, ?, ?, ?, 0, zeroblob(32))"
    " ON CONFLICT (number) DO UPDATE SET sequence = excluded.sequence, chain = excluded.chain"
)
_REMOVE = "DELETE FROM segments WHERE position BETWEEN ? AND ? AND source = ?"
_SHIPPED = "UPDATE sources SET shipped = ?, shipped_chain = ? WHERE number = ?"
# Of the sources of which nothing is left, the last stays: the first that has events names it.
_FORGET = (
    "DELETE FROM sources WHERE shipped = sequence AND number + 1 < (SELECT min(number) FROM sources"
    " WHERE shipped < sequence OR number = (SELECT max(number) FROM sources))"
)

_log = logging.getLogger(__name__)


class Shipped(Struct, frozen=True):
    """Consecutive segments of one source that an audit writer has acknowledged."""

    first: int
    """Position of the first."""
    last: int
    """Position of the last."""
    source: int
    """Number of the source."""
    sequence: int
    """Of the last event in them."""
    chain: bytes
    """Of that event."""


class Spool:
    """The only writer of a spool directory; others read it meanwhile. For one thread at a time."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Opens or creates it; `max_bytes` bounds the database, beside which the write-ahead log takes up to 32 MiB.

        One that is damaged is set aside, and a new one begun. Raises StartError where the directory cannot be used, or
        has a writer already.
        """
        self.directory = directory
        self.max_bytes = max_bytes
        self.set_aside: Path | None = None
        """Where the damaged one is that this one replaced last."""
        # As counted last, and what was appended since; at first nothing is counted yet.
        self._counted = 0
        self._appended = _RECOUNT
        # From when a damaged database is closed until there is another; the second once it is out of the way.
        self._replacing = False
        self._moved = False
        self._keeper = WalKeeper(directory / DATABASE)
        self._lock = lock(directory)
        try:
            self._database = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def next_number(self) -> int:
        """The number of a new source."""
        return self._last_number + 1

    def append(self, segment: Segment, *, durable: bool = False) -> None:
        """Commits a segment, all or none; `durable` waits until the disk has it.

        Raises AuditError; SpoolDamagedError where no waiting helps.
        """
        first = segment.last - len(segment.events) + 1
        end = (segment.number, segment.source, segment.algorithm, segment.last, segment.events[-1].chain)
        try:
            if durable:
                self._database.execute("PRAGMA synchronous = FULL")
            blob = pack(segment.events)
        except FAILURES as error:
            raise self._failed("written", error) from error
        row = (self._position + 1, segment.number, first, blob)
        self._commit([(_INSERT, row), (_END, end)])
        self._position += 1
        self._appended += len(blob)
        self._keeper.note(_PAGES + len(blob) // PAGE)

    def remove(self, shipped: Sequence[Shipped]) -> None:
        """Lets go of what an audit writer has; that it was there is remembered. Raises as `append` does."""
        statements: list[tuple[str, tuple[Any, ...]]] = []
        for each in shipped:
            statements.append((_REMOVE, (each.first, each.last, each.source)))
            statements.append((_SHIPPED, (each.sequence, each.chain, each.source)))
        self._commit([*statements, (_FORGET, ())])
        self._appended = _RECOUNT
        self._keeper.note(_PAGES * len(shipped))

    def replace(self) -> None:
        """Sets a damaged database aside and begins a new one. Raises AuditError where that fails too: call it again."""
        self._keeper.stop()
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        self._replacing = True
        try:
            # What a failed attempt left in its place is no evidence.
            if not self._moved:
                self.set_aside = set_aside(self.directory)
            self._moved = True
            self._database = open_database(self.directory)
        except (OSError, sqlite3.Error, StartError) as error:
            self._moved = self._moved and not is_damage(error)
            raise AuditError(f"The damaged audit spool in {self.directory} cannot be replaced: {error}") from error
        self._replacing = self._moved = False
        # The damaged one may have taken what it said it did not: no acknowledgement of that is to be one of this.
        self._position += 1
        self._appended = _RECOUNT
        _log.error("the audit spool was damaged; a new one is begun", extra={"set_aside": str(self.set_aside)})

    def used_bytes(self) -> int:
        """What the events take up; pages that were freed are not counted, for they are used again.

        Where there is plenty of room it is some 1 MiB behind: to ask SQLite costs as much as a few events.
        """
        if self._appended < _RECOUNT and self._counted + self._appended < self.max_bytes - _CLOSE:
            return self._counted + self._appended
        self._counted = self._count()
        self._appended = 0
        return self._counted

    def close(self) -> None:
        """Ends the write-ahead log and lets another writer in."""
        self._keeper.stop()
        # A reader may keep the log from being emptied; what it holds is committed all the same.
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        os.close(self._lock)

    def _commit(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        execute = self._database.execute
        try:
            execute("BEGIN IMMEDIATE")
            for statement, parameters in statements:
                execute(statement, parameters)
            execute("COMMIT")
        except FAILURES as error:
            # What failed may have ended the transaction already; there is nothing to add to the first error.
            with contextlib.suppress(*FAILURES):
                execute("ROLLBACK")
            raise self._failed("written", error) from error

    def _count(self) -> int:
        try:
            pages, free, size = (
                self._database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        except FAILURES as error:
            raise self._failed("read", error) from error
        return int((pages - free) * size)

    def _failed(self, what: str, error: BaseException) -> AuditError:
        kind = SpoolDamagedError if self._replacing or is_damage(error) else AuditError
        problem = str(error) or type(error).__name__
        return kind(f"The audit spool in {self.directory} cannot be {what}: {problem}")

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise not_usable(self.directory, error) from error
            problem = error
        try:
            self.set_aside = set_aside(self.directory)
        except OSError as error:
            raise not_usable(self.directory, problem) from error
        _log.error(
            "the audit spool is damaged; a new one is begun",
            extra={"reason": str(problem), "set_aside": str(self.set_aside)},
        )
        try:
            return self._opened()
        except sqlite3.Error as error:
            raise not_usable(self.directory, error) from error

    def _opened(self) -> sqlite3.Connection:
        """The database, after what it says of its end was read."""
        database = open_database(self.directory)
        try:
            last = database.execute(
                "SELECT number, name, sequence, chain FROM sources ORDER BY number DESC LIMIT 1"
            ).fetchone()
            ((self._position,),) = database.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence")
        except BaseException:
            database.close()
            raise
        self.previous = None if last is None else Tail(*last[1:])
        """Where the source before ended."""
        self._last_number = 0 if last is None else last[0]
        return database
