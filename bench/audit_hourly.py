"""The hourly counts beside the raw table: denials per user in the last 24 hours.

    python -m bench.audit_hourly [--rows 10000000] [--hours 24] [--users 500] [--dsn DSN]

A PostgreSQL of its own, sized by `sark-pdp db tune`; `POSTGRES_BIN` and `POSTGRES_PRELOAD=timescaledb` make it one with
TimescaleDB. The events are spread evenly over the last hours, a tenth of them denials. The counts are as the writer's
pass leaves them: the last minutes are counted when asked, with TimescaleDB all since the last full hour. Both answers
must be the same. Each is asked once before it is timed. Exits with 1 where the counts are less than 20 times as fast.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from bench.figures import table
from bench.postgres_server import postgres_server
from sark_pdp.audit_writer import partitions
from sark_pdp.audit_writer.maintenance import Keeping, maintain
from sark_pdp.audit_writer.schema import Form, form_of, form_to_migrate, migrations
from sark_pdp.postgres.migrations import migrate

LEAST: Final = 20.0
_AT_ONCE: Final = 250_000
"""Rows of one transaction."""
_WRITERS: Final = 2
_KEEPING: Final = Keeping(timedelta(days=90), timedelta(days=7))

# As a sidecar makes them: 650 bytes of payload, a UUIDv7, and of each column what decisions have there.
_FILL: Final = """
INSERT INTO audit_events
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || left(digest, 3) || '8'
        || substr(digest, 4, 15))::uuid,
    at, 'pod-' || n %% 50 || '/0123456789abcdef', n / 50 + 1, decode(digest || digest, 'hex'),
    decode(repeat(digest, 40), 'hex'),
    CASE WHEN denied THEN 'authorization_denied' ELSE 'authorization_allowed' END,
    CASE WHEN denied THEN 'medium' ELSE 'low' END,
    'user-' || abs(hashint8(n)) %% %(users)s, NULL, 'server-' || n %% 53, 'tool-' || n %% 101,
    CASE WHEN denied THEN 'deny' ELSE 'allow' END,
    'sark/mcp/decision', 'default', '10.0.0.7', 'grpc-go/1.80', left(digest, 16),
    jsonb_build_object('reason', 'role developer may invoke it', 'tier', 'l1', 'age_seconds', 0.5,
        'latency_ns', n %% 90000, 'action', 'tool:invoke',
        'input', '{"user": {"roles": ["developer"]}, "action": "tool:invoke"}'::jsonb)
FROM (
    SELECT n, %(since)s + n * %(step)s AS at, md5(n::text) AS digest, hashint8(n + 1) %% 10 = 0 AS denied
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
) AS numbered
"""
_RAW: Final = """
SELECT user_id, count(*) FROM audit_events
WHERE event_type = 'authorization_denied' AND timestamp >= %s GROUP BY user_id ORDER BY user_id
"""
_HOURLY: Final = """
SELECT user_id, sum(count)::bigint FROM audit_events_hourly
WHERE event_type = 'authorization_denied' AND hour >= %s GROUP BY user_id ORDER BY user_id
"""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--hours", type=float, default=24.0, help="over which they are spread [24]")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dsn", help="an empty database that may be filled, instead of a server of its own")
    options = parser.parse_args()
    with _database(options.dsn) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        list(migrate(connection, migrations(form_to_migrate(connection))))
        form = form_of(connection)
        now = datetime.now(UTC)
        began = time.monotonic()
        _fill(connection, dsn, now, options)
        print(f"{options.rows:,} events in {time.monotonic() - began:.0f} s, {form.value}", flush=True)
        began = time.monotonic()
        _count(connection)
        print(f"counted by the hour in {time.monotonic() - began:.0f} s", flush=True)
        since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=24)
        raise SystemExit(0 if _compared(connection, since, options.rounds) >= LEAST else 1)


@contextmanager
def _database(dsn: str | None) -> Iterator[str]:
    if dsn is not None:
        yield dsn
        return
    with postgres_server() as server:
        yield server.dsn


def _fill(connection: psycopg.Connection[Any], dsn: str, now: datetime, options: argparse.Namespace) -> None:
    since = now - timedelta(hours=options.hours)
    if form_of(connection) is Form.PLAIN:
        first = since.replace(hour=0, minute=0, second=0, microsecond=0)
        partitions.create(connection, [first + timedelta(days=day) for day in range((now - first).days + 1)])
    shared = {"since": since, "step": (now - since) / options.rows, "users": options.users}
    parts = [
        {**shared, "first": at, "last": min(at + _AT_ONCE, options.rows) - 1} for at in range(0, options.rows, _AT_ONCE)
    ]

    def fill(part: dict[str, Any]) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            own.execute(_FILL.encode(), part)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(fill, parts))
    # As autovacuum would by and by.
    connection.execute("VACUUM ANALYZE audit_events")


def _count(connection: psycopg.Connection[Any]) -> None:
    if not maintain(connection, _KEEPING):
        raise SystemExit("somebody else keeps this database; name one of your own")
    connection.execute("ANALYZE")


def _compared(connection: psycopg.Connection[Any], since: datetime, rounds: int) -> float:
    """Prints the times; how many times as fast the counts answer, in the median of the rounds."""
    asked = {"raw table": _RAW, "hourly counts": _HOURLY}
    answers = {name: connection.execute(query.encode(), [since]).fetchall() for name, query in asked.items()}
    if answers["raw table"] != answers["hourly counts"]:
        raise SystemExit("not kept: the counts are not those of the raw table")
    times: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, query in asked.items():
            began = time.perf_counter()
            connection.execute(query.encode(), [since]).fetchall()
            times[name].append(time.perf_counter() - began)
    rows = [
        (name, f"{statistics.median(each) * 1000:,.1f}", f"{min(each) * 1000:,.1f} to {max(each) * 1000:,.1f}")
        for name, each in times.items()
    ]
    print(table(("denials per user, last 24 h", "ms", "spread"), rows))
    pairs = zip(times["raw table"], times["hourly counts"], strict=True)
    faster = statistics.median(raw / hourly for raw, hourly in pairs)
    denials = sum(count for _, count in answers["raw table"])
    print(f"{denials:,} denials of {len(answers['raw table'])} users; {faster:.1f} times as fast, promised {LEAST:g}")
    if faster < LEAST:
        print("not kept")
    return faster


if __name__ == "__main__":
    main()
