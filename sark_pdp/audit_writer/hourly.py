"""Keeps the counts of `audit_events_hourly`: adds what is new, and counts hours anew of which events came late.

On plain PostgreSQL the view is a table of counts for all before `upto` and a live count for the rest, a few minutes.
With TimescaleDB it is an aggregate, of which each hour is materialized once it has ended: what is counted when asked is
the last hour, instead of up to three by the policy alone. A batch takes less than a minute (`sessions.WRITING`) and
notes the hours of events that are older than a minute; what is counted here is at least two minutes old. So each event
is either counted or noted.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from sark_pdp.audit_writer.store import LATE

_DISTANCE: Final = 2 * LATE
"""From now back to where counts end."""
_HOUR: Final = timedelta(hours=1)
_CLAIM: Final = "SELECT upto, now() FROM audit_hourly_state FOR UPDATE"
# No type of ours is as long as that; with two columns of the greatest length the key would be too large for its index.
_COUNT: Final = """
INSERT INTO audit_hourly_counts
SELECT date_trunc('hour', timestamp, 'UTC'), left(event_type, 100), coalesce(user_id, ''), count(*) FROM audit_events
WHERE timestamp >= %s AND timestamp < %s GROUP BY 1, 2, 3
ON CONFLICT (hour, event_type, user_id) DO UPDATE SET count = audit_hourly_counts.count + excluded.count
"""
_ENDED: Final = "SELECT upto, date_trunc('hour', now() - %s::interval, 'UTC') FROM audit_hourly_state"
# A later hour is still counted live; to refresh it would end that, and its next events would not count.
_NOTED: Final = "SELECT hour, array_agg(id) FROM audit_late_hours WHERE hour < %s GROUP BY hour ORDER BY hour"
_REFRESH: Final = "CALL refresh_continuous_aggregate('audit_events_hourly', %s::timestamptz, %s::timestamptz)"
_NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)
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


def refresh(connection: psycopg.Connection[Any]) -> None:
    """Has TimescaleDB count the hours that have ended, and the noted ones of these anew.

    On a connection in autocommit mode: in a transaction it refuses to.
    """
    found = connection.execute(_ENDED, [_DISTANCE]).fetchone()
    if found is None:
        return
    upto, ended = found
    if ended > upto:
        connection.execute(_REFRESH, [None if upto == _NEVER else upto, ended])
        connection.execute("UPDATE audit_hourly_state SET upto = %s", [ended])
    for hour, ids in connection.execute(_NOTED, [max(ended, upto)]).fetchall():
        connection.execute(_REFRESH, [hour, hour + _HOUR])
        connection.execute("DELETE FROM audit_late_hours WHERE id = ANY(%s)", [ids])
