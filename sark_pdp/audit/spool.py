"""The spool: where committed events stay on this machine, a SQLite database in WAL mode with one writer.

A row holds a segment, all the events of one commit: a third of the processor time of a row for each event, and most of
it spent in SQLite, where other threads run.

What a commit survives: the end of the process, however sudden. The end of the machine costs what the operating system
had not written yet: only checkpoints of the write-ahead log and an orderly close are synced.
"""

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from sark_pdp.audit.segments import pack
from sark_pdp.audit.source import Segment, Tail
from sark_pdp.errors import AuditError, StartError

DATABASE: Final = "audit.db"
LOCK: Final = "audit.lock"
APPLICATION_ID: Final = 0x5341524B
"""`SARK`, in the header of the database file."""
VERSION: Final = 2
_RECOUNT: Final = 1 << 20
"""Bytes of new events after which SQLite is asked again what they all take up."""
_CLOSE: Final = 4 << 20
"""Bytes below the maximum from which on it is asked each time."""
_FAILURES: Final = (sqlite3.Error, MemoryError)
"""SQLite's own want of memory is a MemoryError; it may pass, and the trail goes on then."""

_SCHEMA = """
CREATE TABLE sources (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    algorithm TEXT NOT NULL,
    sequence INTEGER NOT NULL,  -- of its last event
    chain BLOB NOT NULL         -- of its last event
) STRICT;
CREATE TABLE segments (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: who follows the spool remembers it
    source INTEGER NOT NULL,                     -- the number of its source
    first INTEGER NOT NULL,                      -- sequence of its first event
    events BLOB NOT NULL                         -- see segments.py
) STRICT;
"""
_INSERT = "INSERT INTO segments (source, first, events) VALUES (?, ?, ?)"
_END = (
    "INSERT INTO sources (number, name, algorithm, sequence, chain) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (number) DO UPDATE SET sequence = excluded.sequence, chain = excluded.chain"
)


class Spool:
    """The only writer of a spool directory; others read it meanwhile. For one thread at a time."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Opens or creates it; `max_bytes` bounds the database, beside which the write-ahead log takes some 4 MiB.

        Raises StartError where the directory cannot be used, or has a writer already.
        """
        self.directory = directory
        self.max_bytes = max_bytes
        # As counted last, and what was appended since; at first nothing is counted yet.
        self._counted = 0
        self._appended = _RECOUNT
        self._lock = _lock(directory)
        try:
            self._database = _open(directory)
            self.previous, self._last_number = self._ends()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def next_number(self) -> int:
        """The number of a new source."""
        return self._last_number + 1

    def append(self, segment: Segment, *, durable: bool = False) -> None:
        """Commits a segment, all or none; `durable` waits until the disk has it. Raises AuditError."""
        database = self._database
        first = segment.last - len(segment.events) + 1
        end = (segment.number, segment.source, segment.algorithm, segment.last, segment.events[-1].chain)
        try:
            if durable:
                database.execute("PRAGMA synchronous = FULL")
            blob = pack(segment.events)
            database.execute("BEGIN IMMEDIATE")
            database.execute(_INSERT, (segment.number, first, blob))
            database.execute(_END, end)
            database.execute("COMMIT")
        except _FAILURES as error:
            # What failed may have ended the transaction already; there is nothing to add to the first error.
            with contextlib.suppress(*_FAILURES):
                database.execute("ROLLBACK")
            problem = str(error) or type(error).__name__
            raise AuditError(f"The audit spool in {self.directory} cannot be written: {problem}") from error
        self._appended += len(blob)

    def used_bytes(self) -> int:
        """What the events take up; pages that were freed are not counted, for they are used again.

        Where there is plenty of room it is some 1 MiB behind: to ask SQLite costs as much as a few events.
        """
        if self._appended < _RECOUNT and self._counted + self._appended < self.max_bytes - _CLOSE:
            return self._counted + self._appended
        self._counted = self._count()
        self._appended = 0
        return self._counted

    def _count(self) -> int:
        try:
            pages, free, size = (
                self._database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        except _FAILURES as error:
            problem = str(error) or type(error).__name__
            raise AuditError(f"The audit spool in {self.directory} cannot be read: {problem}") from error
        return int((pages - free) * size)

    def close(self) -> None:
        """Ends the write-ahead log and lets another writer in."""
        # A reader may keep the log from being emptied; what it holds is committed all the same.
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()
        os.close(self._lock)

    def _ends(self) -> tuple[Tail | None, int]:
        try:
            last = self._database.execute(
                "SELECT number, name, sequence, chain FROM sources ORDER BY number DESC LIMIT 1"
            ).fetchone()
        except sqlite3.Error as error:
            raise _corrupt(self.directory, error) from error
        return (None, 0) if last is None else (Tail(*last[1:]), last[0])


def _lock(directory: Path) -> int:
    """Makes this process the writer until it closes the descriptor that is returned, or ends."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"The audit spool directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise StartError(
            f"The audit spool directory {directory} has a writer already (process {holder or 'unknown'});"
            " stop it, or set another audit.spool_dir or state_dir"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def _open(directory: Path) -> sqlite3.Connection:
    path = directory / DATABASE
    try:
        # Created here for its mode, which SQLite gives to the files beside it too.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StartError(f"The audit spool {path} cannot be written: {error.strerror}") from error
    # One thread at a time uses the connection: that which opens it, then the queue's, then the first again.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        _prepare(database, directory)
    except sqlite3.Error as error:
        database.close()
        raise _corrupt(directory, error) from error
    except StartError:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, directory: Path) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and (application, version) != (APPLICATION_ID, VERSION):
        raise StartError(
            f"{directory / DATABASE} is not an audit spool of this version (application {application:#x},"
            f" version {version}); use another directory"
        )
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StartError(f"The audit spool directory {directory} is on a file system without shared memory for WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA journal_size_limit = 4194304")
    # KiB: events are appended, so few pages are looked at twice.
    database.execute("PRAGMA cache_size = -512")
    if not tables:
        database.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        )


def _corrupt(directory: Path, error: sqlite3.Error) -> StartError:
    return StartError(
        f"The audit spool {directory / DATABASE} is not usable ({error});"
        " move it away to start a new one, and keep it as evidence"
    )
