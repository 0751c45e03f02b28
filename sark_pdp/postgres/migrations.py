"""Brings a schema up to date: numbered files of SQL once and in order, those that describe a state when it is another.

What was applied is recorded in `sark_pdp.migrations`, with a digest. Processes that migrate together take turns.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources.abc import Traversable

import psycopg
from msgspec import Struct
from psycopg import sql

from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.connections import database_error

STATE = 0
"""The version of a migration that describes a state: it is applied, after the numbered ones, whenever it changed, and
when what it made is gone."""

_LOCK = 0x5341524B_00000001
"""The key of the advisory lock: nobody else's, and the same in every version."""
_LOCK_TIMEOUT = "30s"
_HISTORY = """
CREATE SCHEMA IF NOT EXISTS sark_pdp;
CREATE TABLE IF NOT EXISTS sark_pdp.migrations (
    part text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (part, version, name)
);
"""
_IMPOSSIBLE_HERE = ("0A000", "42501", "58P01")
"""SQLSTATEs of what this server, or this user, cannot have: not supported, no privilege, no such file."""


class Migration(Struct, frozen=True):
    """One step: its statements are applied in one transaction."""

    part: str
    """Of the schema; each has versions of its own."""
    version: int
    """From 1, or `STATE`."""
    name: str
    statements: str
    dispensable: str = ""
    """What is missing where the server cannot do it; empty where it must be applied."""
    is_there: str = ""
    """Of a state: a query for whether all that it made is still there; empty where nobody takes that away."""

    @property
    def digest(self) -> str:
        """Of the statements."""
        return hashlib.sha256(self.statements.encode()).hexdigest()

    @property
    def title(self) -> str:
        """As in `registry 0001 tables`."""
        return f"{self.part} {f'{self.version:04d} ' if self.version else ''}{self.name}"


class Applied(Struct, frozen=True):
    """What became of one migration."""

    migration: Migration
    skipped: str = ""
    """Why it was left out, and what is missing now; empty where it was applied."""


def read_migrations(part: str, folder: Traversable) -> list[Migration]:
    """Those in a package's files `0001_name.sql`, by version, and then those in `name.sql`, which describe a state."""
    found = []
    for file in folder.iterdir():
        stem, _, suffix = file.name.rpartition(".")
        if suffix != "sql":
            continue
        number, _, name = stem.partition("_")
        numbered = number.isdecimal()
        found.append(
            Migration(part, int(number) if numbered else STATE, name if numbered else stem, file.read_text("utf-8"))
        )
    return sorted(found, key=lambda it: (it.version == STATE, it.version, it.name))


def pending(connection: psycopg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Those that `migrate` would apply now, in this order; it changes nothing. Raises DatabaseError as that does."""
    recorded = _recorded(connection)
    known = {(it.part, it.version) for it in migrations}
    parts = {it.part for it in migrations}
    for part, version, name in recorded:
        if part in parts and version != STATE and (part, version) not in known:
            raise DatabaseError(
                f"the database was migrated by a newer program, for it has {part} {version:04d} {name}; use that one"
            )
    return [it for it in migrations if _is_pending(connection, it, recorded.get((it.part, it.version, it.name)))]


def script(migrations: Sequence[Migration]) -> str:
    """What `migrate` does for these, as statements for another program, which may go on after one that fails."""
    steps = [f"-- {it.title}\nBEGIN;\n{it.statements}\n{_record_of(it)};\nCOMMIT;\n" for it in migrations]
    return "\n".join([_HISTORY.lstrip(), *steps]) if steps else ""


def _recorded(connection: psycopg.Connection) -> dict[tuple[str, int, str], str]:
    """The digest of what was applied, by part, version and name."""
    try:
        if connection.execute("SELECT to_regclass('sark_pdp.migrations') IS NULL").fetchone() == (True,):
            return {}
        rows = connection.execute("SELECT part, version, name, digest FROM sark_pdp.migrations").fetchall()
    except psycopg.Error as error:
        raise database_error("the record of migrations cannot be read", error) from error
    return {(part, version, name): digest for part, version, name, digest in rows}


def _is_pending(connection: psycopg.Connection, migration: Migration, recorded: str | None) -> bool:
    if recorded is None or migration.version == STATE:
        return recorded != migration.digest or not _is_there(connection, migration)
    if recorded != migration.digest:
        raise DatabaseError(
            f"{migration.title} was applied with other statements than this program has; "
            "migrate with the version that the database belongs to"
        )
    return False


def _is_there(connection: psycopg.Connection, migration: Migration) -> bool:
    if not migration.is_there:
        return True
    try:
        return connection.execute(migration.is_there.encode()).fetchone() == (True,)
    except psycopg.Error as error:
        raise database_error("the catalogue cannot be read", error) from error


def migrate(connection: psycopg.Connection, migrations: Sequence[Migration]) -> Iterator[Applied]:
    """Applies what is pending, and yields each as it is done; the connection is in autocommit mode.

    Raises DatabaseError: what was applied before stays, and what failed left nothing.
    """
    with _lock(connection):
        todo = pending(connection, migrations)
        if todo:
            try:
                connection.execute(_HISTORY.encode())
            except psycopg.Error as error:
                raise database_error("the record of migrations cannot be kept", error) from error
        for migration in todo:
            yield _apply(connection, migration)


@contextmanager
def _lock(connection: psycopg.Connection) -> Iterator[None]:
    try:
        connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'".encode())
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    except psycopg.Error as error:
        raise database_error("another migration runs, or the server gives no lock; try again", error) from error
    try:
        yield
    finally:
        if not connection.closed and not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _apply(connection: psycopg.Connection, migration: Migration) -> Applied:
    try:
        with connection.transaction():
            connection.execute(migration.statements.encode())
            connection.execute(_record_of(migration).encode())
    except psycopg.Error as error:
        failed = database_error(f"{migration.title} cannot be applied", error)
        if migration.dispensable and error.sqlstate in _IMPOSSIBLE_HERE:
            return Applied(migration, f"{failed}; without it {migration.dispensable}")
        raise failed from error
    return Applied(migration)


def _record_of(migration: Migration) -> str:
    values = (migration.part, migration.version, migration.name, migration.digest)
    return (
        sql.SQL(
            "INSERT INTO sark_pdp.migrations (part, version, name, digest) VALUES ({}) "
            "ON CONFLICT (part, version, name) DO UPDATE SET digest = excluded.digest, applied_at = now()"
        )
        .format(sql.SQL(", ").join(map(sql.Literal, values)))
        .as_string(None)
    )
