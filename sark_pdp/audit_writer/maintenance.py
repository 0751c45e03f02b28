"""What the store needs now and then: days made ahead and dropped, hours counted, TimescaleDB's policies as configured.

Any number of writers do it; an advisory lock lets one at a time. It runs on a thread and a connection of its own.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from msgspec import Struct

from sark_pdp.audit_writer import hourly, partitions
from sark_pdp.audit_writer.schema import Form, form_of
from sark_pdp.errors import DatabaseError

_INTERVAL: Final = 60.0
"""Seconds."""
_LOCK: Final = 0x5341524B_00000011
"""The key of the advisory lock of a pass."""
_POLICY: Final = """
SELECT job_id, config ->> %s FROM timescaledb_information.jobs WHERE hypertable_name = %s AND proc_name = %s
"""

_log = logging.getLogger(__name__)


class Keeping(Struct, frozen=True):
    """How long events are kept, and how."""

    retention: timedelta
    compress_after: timedelta
    """Only TimescaleDB compresses."""


def maintain(connection: psycopg.Connection[Any], keeping: Keeping) -> bool:
    """One pass, on a connection in autocommit mode; False where another writer is at it. Raises psycopg.Error."""
    if connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() != (True,):
        return False
    try:
        now = _now(connection)
        if form_of(connection) is Form.TIMESCALE:
            _apply_policies(connection, keeping)
            hourly.refresh(connection)
            return True
        oldest = now - keeping.retention
        partitions.create_ahead(connection, now)
        try:
            hourly.add_new(connection, oldest)
        finally:
            # Whatever is wrong with the counts, the disk must not fill.
            partitions.drop_before(connection, oldest)
        return True
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


class Maintenance:
    """The thread that does it again and again. `_stopped` is its only state that others touch."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], keeping: Keeping) -> None:
        self._connect = connect
        self._keeping = keeping
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        """The first pass begins at once."""
        self._thread.start()

    def stop(self, grace: float) -> None:
        """No pass begins any more; one that runs gets `grace` seconds, and none of it is lost."""
        self._stopped.set()
        self._thread.join(grace)

    def _run(self) -> None:
        while True:
            try:
                with self._connect() as connection:
                    maintain(connection, self._keeping)
            except (psycopg.Error, DatabaseError) as error:
                # A lock that somebody held, or no database: the next pass does what is left.
                _log.warning("maintenance was broken off", extra={"error": " ".join(str(error).split())})
            except Exception:  # noqa: BLE001
                # A thread that ended would make no days any more.
                _log.exception("maintenance failed; it is tried again")
            if self._stopped.wait(_INTERVAL):
                return


def _now(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None  # noqa: S101 (a SELECT without FROM has one row)
    now: datetime = row[0]
    return now.astimezone(UTC)


def _apply_policies(connection: psycopg.Connection[Any], keeping: Keeping) -> None:
    """Replaces a policy of TimescaleDB that is not as configured."""
    wanted = (
        ("audit_events", "retention", "drop_after", keeping.retention),
        ("audit_events_hourly", "retention", "drop_after", keeping.retention),
        ("audit_events", "compression", "compress_after", keeping.compress_after),
    )
    for table, kind, key, value in wanted:
        found = connection.execute(_POLICY, [key, table, f"policy_{kind}"]).fetchone()
        if found is not None and _same(connection, found[1], value):
            continue
        with connection.transaction():
            connection.execute(f"SELECT remove_{kind}_policy(%s, if_exists => true)".encode(), [table])
            connection.execute(f"SELECT add_{kind}_policy(%s, {key} => %s)".encode(), [table, value])


def _same(connection: psycopg.Connection[Any], shown: str, value: timedelta) -> bool:
    return connection.execute("SELECT %s::interval = %s", [shown, value]).fetchone() == (True,)
