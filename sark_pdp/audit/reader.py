"""Reads a spool while its writer writes, or after it is gone; changes nothing.

Each call reads in short transactions: a long one would keep the writer's log from being emptied.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from msgspec import Struct

from sark_pdp.audit.segments import unpack
from sark_pdp.audit.source import Sealed
from sark_pdp.audit.spool_file import APPLICATION_ID, DATABASE, VERSION
from sark_pdp.errors import AuditError

_BATCH = 16
"""Segments, each of a quarter of a MiB or so, that are in memory at once."""
_ENDS = "SELECT number, name, algorithm, sequence, chain, shipped, shipped_chain FROM sources ORDER BY number"
_COLUMNS = "SELECT position, source, first, events FROM segments"

Row = TypeVar("Row", bound=Struct)


class SourceEnd(Struct, frozen=True):
    """What the spool says of a source beside its events."""

    number: int
    name: str
    algorithm: str
    """Of its chain."""
    sequence: int
    """Of its last event."""
    chain: bytes
    """Of its last event."""
    shipped: int
    """Sequence number of the last event that an audit writer has; those up to it may be gone from here. 0: none."""
    shipped_chain: bytes
    """Of that event."""


class StoredSegment(Struct, frozen=True):
    """Consecutive events of one source, as they are stored."""

    position: int
    """Grows with each commit."""
    source: int
    """Number of the source."""
    first: int
    """Sequence number of the first event."""
    blob: bytes

    def events(self) -> list[Sealed] | None:
        """The events; None where the bytes are not what a writer stores."""
        return unpack(self.blob)


class Snapshot(Struct, frozen=True):
    """A consistent view: segments up to `position` and how the sources end there."""

    position: int
    """Of the last segment; zero in an empty spool."""
    sources: tuple[SourceEnd, ...]
    """Oldest first."""


class SpoolReader:
    """A view of one spool. For one thread; close it, or use it as a context manager."""

    def __init__(self, directory: Path) -> None:
        """Raises AuditError where the directory holds no spool that can be read."""
        self.directory = directory
        self._database = _open(directory)
        self._inode = _inode(directory)
        try:
            self._empty = self._is_empty()
        except AuditError:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    def is_replaced(self) -> bool:
        """Whether the directory has another spool now than the one that is read."""
        return _inode(self.directory) != self._inode

    def snapshot(self) -> Snapshot:
        """As of now. Raises AuditError, as all below."""
        if self._empty and self._is_empty():
            return Snapshot(0, ())
        self._empty = False
        self._rows("BEGIN")
        try:
            ends = self._rows(_ENDS)
            ((position,),) = self._rows("SELECT coalesce(max(position), 0) FROM segments")
        finally:
            self._rows("ROLLBACK")
        return Snapshot(position, tuple(self._typed(SourceEnd, end) for end in ends))

    def forward(self, after: int, upto: int, at_once: int = _BATCH) -> Iterator[StoredSegment]:
        """Segments by growing position, both ends counted from a snapshot; `after` is not among them."""
        query = f"{_COLUMNS} WHERE position > ? AND position <= ? ORDER BY position LIMIT {at_once}"
        while rows := self._rows(query, after, upto):
            yield from (self._typed(StoredSegment, row) for row in rows)
            after = rows[-1][0]

    def backward(self, upto: int) -> Iterator[StoredSegment]:
        """Segments by falling position, from `upto` on."""
        query = f"{_COLUMNS} WHERE position <= ? ORDER BY position DESC LIMIT {_BATCH}"
        while rows := self._rows(query, upto):
            yield from (self._typed(StoredSegment, row) for row in rows)
            upto = rows[-1][0] - 1

    def _is_empty(self) -> bool:
        """True where a writer has created the file and not yet its tables; checks whose file it is."""
        ((tables,),) = self._rows("SELECT count(*) FROM sqlite_master")
        ((application,),) = self._rows("PRAGMA application_id")
        ((version,),) = self._rows("PRAGMA user_version")
        if tables and (application, version) != (APPLICATION_ID, VERSION):
            raise AuditError(f"{self.directory / DATABASE} is not an audit spool of this version")
        return not tables

    def _typed(self, kind: type[Row], row: tuple[Any, ...]) -> Row:
        """A row as its columns say, which in a file that was tampered with may hold anything."""
        try:
            return msgspec.convert(dict(zip(kind.__struct_fields__, row, strict=True)), kind, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise AuditError(
                f"The audit spool {self.directory / DATABASE} holds a row that no writer stores: {error}"
            ) from error

    def _rows(self, query: str, *parameters: int) -> list[Any]:
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise AuditError(f"The audit spool {self.directory / DATABASE} cannot be read: {error}") from error


def _inode(directory: Path) -> int:
    try:
        return (directory / DATABASE).stat().st_ino
    except OSError:
        return 0


def _open(directory: Path) -> sqlite3.Connection:
    path = directory / DATABASE
    try:
        there = path.exists()
        # A log that was emptied by an orderly close leaves nothing to share, and who cannot write to the directory
        # could not create it.
        alone = not path.with_name(f"{DATABASE}-wal").exists()
    except OSError as error:
        raise AuditError(f"The audit spool {path} cannot be read: {error.strerror}") from error
    if not there:
        raise AuditError(f"{directory} holds no audit spool; has a process with this audit.spool_dir been started?")
    errors = []
    for mode in ("mode=ro", "mode=ro&immutable=1") if alone else ("mode=ro",):
        place = f"{path.absolute().as_uri()}?{mode}"
        try:
            database = sqlite3.connect(place, uri=True, isolation_level=None, timeout=5)
        except sqlite3.Error as error:
            errors.append(error)
            continue
        try:
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            database.close()
            errors.append(error)
        else:
            return database
    raise AuditError(f"The audit spool {path} cannot be read: {errors[0]}") from errors[0]
