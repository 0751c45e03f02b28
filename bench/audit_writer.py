"""The audit writer alone, fed by many sources, beside a bare loop of COPY and INSERT … ON CONFLICT on the same tables.

    python -m bench.audit_writer --dsn DSN [--events 200000] [--sources 50] [--rounds 3]

DSN names an empty database that may be filled. Rounds of both alternate; the bare loop is given rows that are ready to
be copied, in batches of the same size. Exits with 1 where the median of the ratios is below 0.5.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import psycopg
import uuid_utils

from sark_pdp._proto.audit_pb2 import Ack, Batch, Event
from sark_pdp.audit_writer import partitions
from sark_pdp.audit_writer.columns import COPY_END, COPY_HEAD, NAMES, row_of
from sark_pdp.audit_writer.schema import form_to_migrate, migrations
from sark_pdp.postgres.migrations import migrate

BATCH = 2000
MESSAGE = 250
"""Events of one message: about what a segment of a spool holds."""
LEAST = 0.5
ADDRESS = "127.0.0.1:19010"


def events(number: int, sources: int) -> dict[str, list[Event]]:
    """So many events, in equal shares of the sources."""
    made: dict[str, list[Event]] = {}
    for index in range(sources):
        source = f"pod-{index}/{uuid_utils.uuid4().hex[:16]}"
        made[source] = [
            Event(sequence=n, chain=bytes(32), payload=payload(source, n)) for n in range(1, number // sources + 1)
        ]
    return made


def payload(source: str, sequence: int) -> bytes:
    """As a sidecar makes it for a decision: some 650 bytes."""
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 1000 % 10**6:06d}Z"
    user, tool = f"user-{sequence % 997}", f"tool-{sequence % 101}"
    columns: dict[str, Any] = {
        "id": str(uuid_utils.uuid7()),
        "timestamp": stamp,
        "source": source,
        "sequence": sequence,
        "event_type": "authorization_denied" if sequence % 10 == 0 else "authorization_allowed",
        "severity": "low",
        "user_id": user,
        "user_email": None,
        "server_id": f"server-{sequence % 53}",
        "tool_name": tool,
        "decision": "deny" if sequence % 10 == 0 else "allow",
        "policy_id": "sark/mcp/decision",
        "policy_revision": "default",
        "ip_address": f"10.0.0.{sequence % 250}",
        "user_agent": "grpc-go/1.80",
        "request_id": str(uuid_utils.uuid4()),
        "details": {
            "reason": "role developer may invoke it",
            "tier": "l1",
            "age_seconds": 0.5,
            "latency_ns": 12345,
            "action": "tool:invoke",
            "input": {"user": {"roles": ["developer"]}, "tool": {"sensitivity_level": "low"}, "action": "tool:invoke"},
        },
    }
    return msgspec.json.encode(columns)


def bare(dsn: str, made: dict[str, list[Event]]) -> float:
    """Events a second of the loop."""
    rows = sorted(
        (row_of(source, it.sequence, it.chain, it.payload) for source, each in made.items() for it in each),
        key=lambda row: row.key,
    )
    buffers = [
        b"".join((COPY_HEAD, *(row.copied for row in rows[at : at + BATCH]), COPY_END))
        for at in range(0, len(rows), BATCH)
    ]
    with psycopg.connect(dsn, autocommit=True) as connection:
        partitions.create(connection, {partitions.day_at(row.day) for row in rows})
        connection.execute("CREATE TEMPORARY TABLE staging (LIKE audit_events) ON COMMIT DELETE ROWS")
        began = time.perf_counter()
        for buffer in buffers:
            with connection.transaction(), connection.cursor() as cursor:
                with cursor.copy(f"COPY staging ({', '.join(NAMES)}) FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(buffer)
                cursor.execute(
                    "INSERT INTO audit_events SELECT * FROM staging ORDER BY id, timestamp ON CONFLICT DO NOTHING"
                )
        return len(rows) / (time.perf_counter() - began)


async def written(made: dict[str, list[Event]]) -> float:
    """Events a second until the writer has acknowledged all of them, each source on a stream of its own."""
    messages = {
        source: [
            Batch(source=source, events=each[at : at + MESSAGE]).SerializeToString()
            for at in range(0, len(each), MESSAGE)
        ]
        for source, each in made.items()
    }
    async with grpc.aio.insecure_channel(ADDRESS) as channel:
        await channel.channel_ready()
        push: Any = channel.stream_stream("/sark.audit.v1.AuditIngest/Push", response_deserializer=Ack.FromString)

        async def feed(source: str) -> None:
            last = 0
            async for ack in push(iter_async(messages[source])):
                last = ack.sequence
            assert last == len(made[source]), f"{source}: {last} acknowledged"

        began = time.perf_counter()
        await asyncio.gather(*map(feed, made))
        return sum(map(len, made.values())) / (time.perf_counter() - began)


async def iter_async(messages: list[bytes]) -> Any:
    """What a call of grpc.aio sends."""
    for message in messages:
        yield message


def count(dsn: str) -> int:
    """Rows of the table."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM audit_events").fetchone()
        assert row is not None
        return int(row[0])


def main() -> int:
    """Measures and prints; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with psycopg.connect(arguments.dsn, autocommit=True) as connection:
        list(migrate(connection, migrations(form_to_migrate(connection))))
    command = Path(sys.executable).with_name("sark-pdp")
    settings = {"database.dsn": arguments.dsn, "listen.grpc": ADDRESS, "listen.metrics": "127.0.0.1:19012"}
    writer = subprocess.Popen([command, "audit-writer", *(f"--set={key}={value}" for key, value in settings.items())])
    ratios = []
    expected = 0
    try:
        for number in range(arguments.rounds):
            loop = bare(arguments.dsn, events(arguments.events, arguments.sources))
            through = asyncio.run(written(events(arguments.events, arguments.sources)))
            expected += 2 * (arguments.events // arguments.sources) * arguments.sources
            found = count(arguments.dsn)
            assert found == expected, f"{found} rows of {expected}"
            ratios.append(through / loop)
            print(f"round {number + 1}: bare loop {loop:,.0f}/s, writer {through:,.0f}/s, ratio {ratios[-1]:.2f}")
    finally:
        writer.terminate()
        writer.wait(30)
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f}, promised {LEAST}; all {expected:,} events are in the table")
    return 0 if median >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
