"""Native partitions by day: made before they are needed, or when an event needs one, and dropped past the retention."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

_AHEAD_DAYS: Final = 3
"""Days that have their partition before the first event comes."""
_LOCK: Final = 0x5341524B_00000010
"""The key of the advisory lock under which partitions are made."""
_PREFIX: Final = "audit_events_"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EXISTING: Final = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_events'::regclass
"""

_log = logging.getLogger(__name__)


def day_at(days: int) -> datetime:
    """The beginning of a day that is so many after 2000-01-01."""
    return _EPOCH + timedelta(days=days)


def existing_days(connection: psycopg.Connection[Any]) -> set[int]:
    """Days since 2000-01-01 that have their partition."""
    found = map(_day_of, _existing(connection))
    return {(day - _EPOCH).days for day in found if day is not None}


def create(connection: psycopg.Connection[Any], days: Iterable[datetime]) -> None:
    """Makes the partitions of these days where they are missing, whoever else does so too; events go on meanwhile."""
    days = set(days)
    # Mostly none is missing: then it is waited for nobody.
    if {_name_of(day) for day in days} <= _existing(connection):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        there = _existing(connection)
        for day in sorted(days):
            if _name_of(day) not in there:
                _create(connection, day)


def create_ahead(connection: psycopg.Connection[Any], now: datetime) -> None:
    """Makes those of today and of the days to come."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    create(connection, [today + timedelta(days=ahead) for ahead in range(_AHEAD_DAYS + 1)])


def drop_before(connection: psycopg.Connection[Any], oldest: datetime) -> int:
    """Drops the days that ended before a point in time, each in a transaction of its own; how many these were.

    Waits for nobody longer than the connection's lock_timeout: raises psycopg.errors.LockNotAvailable.
    """
    dropped = 0
    for name in sorted(_existing(connection)):
        day = _day_of(name)
        if day is not None and day <= oldest - timedelta(days=1):
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            _log.info("dropped a day past the retention", extra={"partition": name})
            dropped += 1
    return dropped


def _existing(connection: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in connection.execute(_EXISTING)}


def _name_of(day: datetime) -> str:
    # %Y has no leading zeros.
    return f"{_PREFIX}{day.year:04}{day:%m%d}"


def _day_of(name: str) -> datetime | None:
    try:
        return datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _end_of(day: datetime) -> str:
    try:
        return (day + timedelta(days=1)).isoformat()
    except OverflowError:
        # The last day that a clock can name.
        return "infinity"


def _create(connection: psycopg.Connection[Any], day: datetime) -> None:
    # CREATE … PARTITION OF would lock out everybody who writes; to attach a finished table does not.
    names = {"partition": sql.Identifier(_name_of(day)), "parent": sql.SQL("audit_events")}
    bounds = {"since": sql.Literal(day.isoformat()), "until": sql.Literal(_end_of(day))}
    connection.execute(
        sql.SQL("CREATE TABLE {partition} (LIKE {parent} INCLUDING DEFAULTS INCLUDING INDEXES)").format(**names)
    )
    connection.execute(
        sql.SQL("ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES FROM ({since}) TO ({until})").format(
            **names, **bounds
        )
    )
