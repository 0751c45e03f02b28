"""The two forms of the store: native partitions by day, or a hypertable where TimescaleDB is offered."""

from enum import Enum
from importlib.resources import files
from typing import Any

import psycopg

from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.migrations import Migration, read_migrations

_TABLES = "SELECT to_regclass('audit_events') IS NOT NULL AND to_regclass('audit_rejected') IS NOT NULL"
# Its loader has this setting; the list of loaded libraries itself is for superusers.
_OFFERED = """
SELECT current_setting('timescaledb.disable_load', true) IS NOT NULL
    AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
"""
_IS_HYPERTABLE = """
SELECT EXISTS (
    SELECT FROM timescaledb_information.hypertables
    WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('audit_events')
)
"""


class Form(Enum):
    """How `audit_events` is kept."""

    PLAIN = "plain"
    TIMESCALE = "timescale"


def migrations(form: Form) -> list[Migration]:
    """All of the store, in order."""
    folder = files("sark_pdp.audit_writer") / "migrations"
    return [
        *read_migrations("audit", folder / "common"),
        *read_migrations(f"audit_{form.value}", folder / form.value),
    ]


def form_to_migrate(connection: psycopg.Connection[Any]) -> Form:
    """The form that the store has, or is to get: with TimescaleDB where the server offers and has loaded it.

    Raises DatabaseError for a database that cannot hold every text.
    """
    row = connection.execute("SELECT current_setting('server_encoding')").fetchone()
    if row != ("UTF8",):
        raise DatabaseError("the database is not kept in UTF8; make one with CREATE DATABASE … ENCODING 'UTF8'")
    if connection.execute(_TABLES).fetchone() == (True,):
        return form_of(connection)
    return Form.TIMESCALE if offers_timescale(connection) else Form.PLAIN


def offers_timescale(connection: psycopg.Connection[Any]) -> bool:
    """Whether the extension is installed and in shared_preload_libraries, without which it cannot be created."""
    return connection.execute(_OFFERED).fetchone() == (True,)


def form_of(connection: psycopg.Connection[Any]) -> Form:
    """The form of the store that is there. Raises DatabaseError where there is none."""
    if connection.execute(_TABLES).fetchone() != (True,):
        raise DatabaseError("the database has no audit_events; run `sark-pdp db migrate --dsn DSN` once")
    if connection.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'").fetchone() is None:
        return Form.PLAIN
    return Form.TIMESCALE if connection.execute(_IS_HYPERTABLE).fetchone() == (True,) else Form.PLAIN
