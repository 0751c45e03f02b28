"""Writes batches of events: one transaction each, every event once, and what can never be stored set aside."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from msgspec import Struct

from sark_pdp.audit_writer import partitions
from sark_pdp.audit_writer.columns import COPY_END, COPY_HEAD, NAMES, Row, microseconds_of, text_of
from sark_pdp.audit_writer.schema import Form, form_of
from sark_pdp.errors import DatabaseError

CHANNEL: Final = "sark_audit_events"
"""On which each commit is told: `XID FIRST LAST`, the transaction and its times in microseconds since 2000-01-01."""

LATE: Final = timedelta(seconds=60)
"""An event that is older than this when its batch is about to be committed has its hour counted anew."""

_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS audit_staging (LIKE audit_events) ON COMMIT DELETE ROWS;"
    " ALTER TABLE audit_staging ALTER payload SET STORAGE EXTERNAL, ALTER details SET STORAGE EXTERNAL"
)
_COPY: Final = f"COPY audit_staging ({', '.join(NAMES)}) FROM STDIN (FORMAT BINARY)"
# In key order, so that two writers with the same events never wait for one another in a circle.
# Told the columns, TimescaleDB asks the Bloom filters of compressed rows before it decompresses any: 20 times faster.
_INSERT: Final = (
    "INSERT INTO audit_events SELECT * FROM audit_staging ORDER BY id, timestamp ON CONFLICT (id, timestamp) DO NOTHING"
)
_CLASH: Final = "another event has its id and time"
_AT: Final = """
e.id = s.id AND e.timestamp = s.timestamp
    AND e.timestamp >= timestamptz '2000-01-01 00:00:00+00' + %(first)s * interval '1 microsecond'
    AND e.timestamp <= timestamptz '2000-01-01 00:00:00+00' + %(last)s * interval '1 microsecond'
"""
# Looked up one by one, for which LIMIT is: a join may decompress whole days. First by the columns by which compressed
# rows are found; only what is not there is looked up by its place alone.
_CLASHING: Final = f"""
INSERT INTO audit_rejected (source, sequence, chain, payload, code, reason)
SELECT s.source, s.sequence, s.chain, s.payload, '23505', %(reason)s FROM audit_staging s
WHERE CASE WHEN (
    SELECT true FROM audit_events e WHERE {_AT} AND e.user_id = s.user_id AND e.event_type = s.event_type
        AND e.source = s.source AND e.sequence = s.sequence AND e.payload = s.payload LIMIT 1
) IS NULL THEN (
    SELECT (e.source, e.sequence, e.payload) IS DISTINCT FROM (s.source, s.sequence, s.payload)
    FROM audit_events e WHERE {_AT} LIMIT 1
) END
ORDER BY s.source, s.sequence ON CONFLICT DO NOTHING
"""  # noqa: S608 (constants)
_ANCHORS: Final = """
INSERT INTO audit_checkpoints SELECT source, sequence, id, timestamp, event_type, chain, payload FROM audit_staging
WHERE id = ANY(%s::uuid[]) ORDER BY source, sequence ON CONFLICT DO NOTHING
"""
_LATE_HOURS: Final = """
INSERT INTO audit_late_hours (hour)
SELECT DISTINCT date_trunc('hour', timestamp, 'UTC') FROM audit_staging
WHERE timestamp < clock_timestamp() - %s::interval
"""
_TELL: Final = "SELECT pg_notify(%s, concat_ws(' ', pg_current_xact_id()::xid, %s::bigint, %s::bigint))"
_REJECT: Final = """
INSERT INTO audit_rejected (source, sequence, chain, payload, code, reason) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_LOOKS_LATE: Final = timedelta(seconds=15)
"""By this machine's clock, which may differ from the server's by the rest of LATE."""
_DATA_CLASSES: Final = ("22", "23")
"""Of SQLSTATE: data exceptions and violated constraints, which no repetition cures."""
_MOST_DAYS: Final = 10_000
_DAYS_AT_ONCE: Final = 32
"""Of one transaction: the server has room for the locks of some 1,000 partitions, all sessions together."""

_log = logging.getLogger(__name__)


class Rejection(Struct, frozen=True):
    """An event that cannot be stored as a row."""

    source: str
    sequence: int
    chain: bytes
    payload: bytes
    reason: str
    code: str = ""
    """SQLSTATE, where PostgreSQL refused it."""


class Written(Struct, frozen=True):
    """What became of a batch."""

    inserted: int = 0
    duplicates: int = 0
    """That were there already."""
    rejected: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(
            self.inserted + other.inserted, self.duplicates + other.duplicates, self.rejected + other.rejected
        )


class EventStore:
    """The tables of the audit trail, on a connection of its own, which is opened anew after a failure.

    For one thread: that one owns the connection and what is remembered of the database.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`connect` gives a connection in autocommit mode, of `sessions.WRITING`; it may raise DatabaseError."""
        self._connect = connect
        self._now = now
        self._connection: psycopg.Connection[Any] | None = None
        self._form = Form.PLAIN
        self._days: set[int] = set()
        """Days that had a partition when last looked at; retention may have dropped one since."""

    def write(self, rows: Sequence[Row], rejections: Sequence[Rejection] = ()) -> Written:
        """Commits all of them; a row that the database refuses for what it holds goes to `audit_rejected`.

        Raises psycopg.Error or DatabaseError where it has to be tried again; parts of the batch may have been committed
        then, which a repetition finds as duplicates.
        """
        with self._connected() as connection:
            if self._form is Form.PLAIN:
                self._have_days(connection, rows)
            if rejections:
                _reject(connection, rejections)
            in_order = sorted(rows, key=lambda row: (row.key, row.time_us))
            written = Written(rejected=len(rejections))
            for part in _by_days(in_order):
                written += self._write(connection, part)
            return written

    def ping(self) -> None:
        """Raises as `write` does where the database cannot be written to."""
        with self._connected() as connection:
            form_of(connection)
            if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
                raise DatabaseError("the database is a standby, which takes no events; name the primary")

    def close(self) -> None:
        """May be called twice; a later `write` connects again."""
        connection, self._connection = self._connection, None
        self._days.clear()
        if connection is not None:
            connection.close()

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._form = _prepare(self._connection)
            yield self._connection
        except BaseException:
            self.close()
            raise

    def _have_days(self, connection: psycopg.Connection[Any], rows: Sequence[Row]) -> None:
        missing = {row.day for row in rows} - self._days
        if missing:
            days = sorted(missing)
            for start in range(0, len(days), _DAYS_AT_ONCE):
                partitions.create(connection, map(partitions.day_at, days[start : start + _DAYS_AT_ONCE]))
            if len(self._days) + len(missing) > _MOST_DAYS:
                self._days.clear()
            self._days |= missing

    def _write(self, connection: psycopg.Connection[Any], rows: Sequence[Row]) -> Written:
        """Commits a batch; one that is refused, or takes too long, is halved until the events stand out for which."""
        if not rows:
            return Written()
        try:
            return self._commit(connection, rows)
        except psycopg.errors.QueryCanceled:
            # What took too long: half of it may not, as of late events among many compressed ones.
            if len(rows) == 1:
                raise
        except psycopg.Error as error:
            if not _is_about_data(error):
                raise
            if len(rows) == 1:
                return self._refused(connection, rows[0], error)
        middle = len(rows) // 2
        return self._write(connection, rows[:middle]) + self._write(connection, rows[middle:])

    def _refused(self, connection: psycopg.Connection[Any], row: Row, error: psycopg.Error) -> Written:
        reason = error.diag.message_primary or type(error).__name__
        _log.error("an event cannot be stored", extra={"source": row.source, "code": error.sqlstate})
        _reject(connection, [Rejection(row.source, row.sequence, row.chain, row.payload, reason, error.sqlstate or "")])
        return Written(rejected=1)

    def _commit(self, connection: psycopg.Connection[Any], rows: Sequence[Row]) -> Written:
        first = min(row.time_us for row in rows)
        last = max(row.time_us for row in rows)
        anchors = [row.key for row in rows if row.anchor]
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(_COPY) as copy:
                copy.write(b"".join((COPY_HEAD, *(row.copied for row in rows), COPY_END)))
            inserted = cursor.execute(_INSERT, prepare=True).rowcount
            clashing = 0
            if inserted < len(rows):
                clashing = cursor.execute(_CLASHING, {"reason": _CLASH, "first": first, "last": last}).rowcount
            if anchors:
                cursor.execute(_ANCHORS, [[key.hex() for key in anchors]])
            if inserted:
                cursor.execute(_TELL, [CHANNEL, first, last])
            # The last, for a batch may have taken long, and its events have grown old meanwhile.
            if first < microseconds_of(self._now() - _LOOKS_LATE):
                cursor.execute(_LATE_HOURS, [LATE])
        return Written(inserted, len(rows) - inserted - clashing, clashing)


def _prepare(connection: psycopg.Connection[Any]) -> Form:
    """What the connection needs, a staging table above all. Raises DatabaseError before the first migration."""
    form = form_of(connection)
    connection.execute(_STAGE)
    if connection.execute("SELECT current_setting('synchronous_commit')").fetchone() == ("off",):
        # A spool deletes what is acknowledged: that must outlive a crash of the server, however that is configured.
        connection.execute("SET synchronous_commit = on")
    if form is Form.TIMESCALE:
        # A late event is compared with compressed ones, however many these are.
        connection.execute("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0")
    return form


def _reject(connection: psycopg.Connection[Any], rejections: Sequence[Rejection]) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            _REJECT,
            [(text_of(it.source), it.sequence, it.chain, it.payload, it.code, it.reason) for it in rejections],
        )


def _by_days(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Parts of few enough days for one transaction, each in the order of the whole."""
    days = sorted({row.day for row in rows})
    if len(days) <= _DAYS_AT_ONCE:
        yield rows
        return
    for start in range(0, len(days), _DAYS_AT_ONCE):
        some = set(days[start : start + _DAYS_AT_ONCE])
        yield [row for row in rows if row.day in some]


def _is_about_data(error: psycopg.Error) -> bool:
    # Without the name of a constraint, what is violated is that a partition is there: retention just dropped it.
    if isinstance(error, psycopg.errors.CheckViolation) and not error.diag.constraint_name:
        return False
    return (error.sqlstate or "")[:2] in _DATA_CLASSES
