"""The file of a spool: its place, its lock, its tables, and what becomes of one that is damaged."""

import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from sark_pdp.audit.wal import MOST_PAGES
from sark_pdp.errors import StartError

DATABASE: Final = "audit.db"
LOCK: Final = "audit.lock"
APPLICATION_ID: Final = 0x5341524B
"""`SARK`, in the header of the database file."""
VERSION: Final = 3
FAILURES: Final = (sqlite3.Error, MemoryError)
"""SQLite's own want of memory is a MemoryError; it may pass, and the trail goes on then."""

_DAMAGED: Final = "damaged"
_BESIDE: Final = ("", "-wal", "-shm")
_MOST_DAMAGED: Final = 3
"""Files that are kept as evidence; an older one goes when there is one more."""

_SCHEMA = """
CREATE TABLE sources (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    algorithm TEXT NOT NULL,
    sequence INTEGER NOT NULL,  -- of its last event
    chain BLOB NOT NULL,        -- of its last event
    shipped INTEGER NOT NULL,   -- of the last event that an audit writer has, and that may be gone from here
    shipped_chain BLOB NOT NULL -- of that event
) STRICT;
CREATE TABLE segments (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: who follows the spool remembers it
    source INTEGER NOT NULL,                     -- the number of its source
    first INTEGER NOT NULL,                      -- sequence of its first event
    events BLOB NOT NULL                         -- see segments.py
) STRICT;
"""


def lock(directory: Path) -> int:
    """Makes this process the writer until it closes the descriptor that is returned, or ends. Raises StartError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"The audit spool directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StartError(
            f"The audit spool directory {directory} has a writer already (process {holder or 'unknown'});"
            " stop it, or set another audit.spool_dir or state_dir"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def open_database(directory: Path) -> sqlite3.Connection:
    """A connection for writing, the tables made where there are none.

    Raises StartError for what is no spool or cannot be written, sqlite3.Error for what is damaged.
    """
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
    except BaseException:
        database.close()
        raise
    return database


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is bad, which no waiting heals."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def set_aside(directory: Path) -> Path:
    """Renames a damaged database and what belongs to it, so that a new one can be begun; returns its new path.

    Nobody has it open. Raises OSError.
    """
    target = directory / f"{DATABASE}.{_DAMAGED}-{time.time_ns()}"
    for end in _BESIDE:
        path = directory / f"{DATABASE}{end}"
        if path.exists():
            path.rename(f"{target}{end}")
    kept = sorted(path for path in directory.glob(f"{DATABASE}.{_DAMAGED}-*") if path.suffix[-1].isdigit())
    for old in kept[:-_MOST_DAMAGED]:
        for end in _BESIDE:
            Path(f"{old}{end}").unlink(missing_ok=True)
    return target


def not_usable(directory: Path, error: sqlite3.Error) -> StartError:
    """What to say of a spool that cannot be opened and is not damaged."""
    return StartError(
        f"The audit spool {directory / DATABASE} is not usable ({error});"
        " move it away to start a new one, and keep it as evidence"
    )


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
    database.execute(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
    # KiB: events are appended, so few pages are looked at twice.
    database.execute("PRAGMA cache_size = -512")
    if not tables:
        database.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        )
