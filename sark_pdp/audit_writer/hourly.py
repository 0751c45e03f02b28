"""Keeps the counts of `audit_events_hourly`: adds what is new, and counts hours anew of which events came late.

On plain PostgreSQL the view is a table of counts for all before `upto` and a live count for the rest, a few minutes.
A batch takes less than a minute (`sessions.WRITING`) and notes the hours of events that are older than a minute; what
is counted here is at least two minutes old. So each event is either counted or noted. With TimescaleDB its policy
counts the last hours; the noted ones are refreshed here.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from sark_pdp.audit_writer.store import LATE

_DISTANCE: Final = 2 * LATE
"""From now back to where counts end."""
_HOUR: Final = timedelta(hours=1)
_CLAIM: Final = "SELECT upto, now() FROM audit_hourly_state FOR UPDATE"
_COUNT: Final = """
INSERT INTO audit_hourly_counts
SELECT date_trunc('hour', timestamp, 'UTC'), event_type, coalesce(user_id, ''), count(*) FROM audit_events
WHERE timestamp >= %s AND timestamp < %s GROUP BY 1, 2, 3
ON CONFLICT (hour, event_type, user_id) DO UPDATE SET count = audit_hourly_counts.count + excluded.count
"""
# A later hour is still counted live; to refresh it would end that, and its next events would not count.
_NOTED: Final = """
SELECT hour, array_agg(id) FROM audit_late_hours WHERE hour <= now() - %s::interval GROUP BY hour ORDER BY hour
"""
_TAKE_LATE: Final = (
    "WITH taken AS (DELETE FROM audit_late_hours RETURNING hour) SELECT DISTINCT hour FROM taken ORDER BY 1"
)


def add_new(connection: psycopg.Connection[Any], oldest: datetime) -> None:
    """Brings the counts of plain PostgreSQL up to two minutes ago; those of hours before `oldest` go."""
    with connection.transaction():
        found = connection.execute(_CLAIM).fetchone()
        if found is None:
            return
        upto, now = found
        end = (now - _DISTANCE).replace(second=0, microsecond=0)
        late = [hour for (hour,) in connection.execute(_TAKE_LATE)]
        if end > upto:
            connection.execute(_COUNT, [upto, end])
            connection.execute("UPDATE audit_hourly_state SET upto = %s", [end])
        for hour in late:
            connection.execute("DELETE FROM audit_hourly_counts WHERE hour = %s", [hour])
            connection.execute(_COUNT, [hour, min(hour + _HOUR, max(end, upto))])
        connection.execute("DELETE FROM audit_hourly_counts WHERE hour < %s", [oldest - _HOUR])


def refresh_late(connection: psycopg.Connection[Any]) -> None:
    """Has TimescaleDB count the noted hours anew, on a connection in autocommit mode: a transaction is refused."""
    notes = connection.execute(_NOTED, [2 * _HOUR]).fetchall()
    for hour, ids in notes:
        connection.execute("CALL refresh_continuous_aggregate('audit_events_hourly', %s, %s)", [hour, hour + _HOUR])
        connection.execute("DELETE FROM audit_late_hours WHERE id = ANY(%s)", [ids])
