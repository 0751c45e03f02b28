"""The audit writer alone, fed by many sources, beside a bare loop of COPY and INSERT … ON CONFLICT on the same tables.

    python -m bench.audit_writer [--events 200000] [--sources 50] [--rounds 3] [--dsn DSN]

A PostgreSQL of its own, sized by `sark-pdp db tune`, or the empty database that DSN names; `POSTGRES_BIN` and
`POSTGRES_PRELOAD=timescaledb` make it one with TimescaleDB. The events are made in turns, one of each source, as those
of sidecars that all work: each source has a stream of its own, and a batch of the writer has messages of several.
Rounds of both alternate; the bare loop is given rows that are ready to be copied, in batches of the same size. Exits
with 1 where the median of the ratios is below 0.5.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import psycopg
import uuid_utils

from bench.machine import free_port
from bench.postgres_server import postgres_server
from sark_pdp._proto.audit_pb2 import Ack, Batch, Event
from sark_pdp.audit_writer import partitions
from sark_pdp.audit_writer.columns import COPY_END, COPY_HEAD, NAMES, row_of
from sark_pdp.audit_writer.schema import form_to_migrate, migrations
from sark_pdp.postgres.migrations import migrate

BATCH = 2000
MESSAGE = 250
"""Events of one message: about what a segment of a spool holds."""
LEAST = 0.5


def events(number: int, sources: int) -> dict[str, list[Event]]:
    """So many events, in equal shares of the sources and made in turns: their ids and times are interleaved."""
    made: dict[str, list[Event]] = {f"pod-{index}/{uuid_utils.uuid4().hex[:16]}": [] for index in range(sources)}
    for n in range(1, number // sources + 1):
        for source, each in made.items():
            each.append(Event(sequence=n, chain=bytes(32), payload=payload(source, n)))
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
                    "INSERT INTO audit_events SELECT * FROM staging ORDER BY id, timestamp"
                    " ON CONFLICT (id, timestamp) DO NOTHING"
                )
        return len(rows) / (time.perf_counter() - began)


async def written(address: str, made: dict[str, list[Event]]) -> float:
    """Events a second until the writer has acknowledged all of them, each source on a stream of its own."""
    messages = {
        source: [
            Batch(source=source, events=each[at : at + MESSAGE]).SerializeToString()
            for at in range(0, len(each), MESSAGE)
        ]
        for source, each in made.items()
    }
    async with grpc.aio.insecure_channel(address) as channel:
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
    parser.add_argument("--dsn", help="an empty database that may be filled, instead of a server of its own")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.dsn is not None:
        return measured(options.dsn, options)
    with postgres_server() as server:
        return measured(server.dsn, options)


def measured(dsn: str, options: argparse.Namespace) -> int:
    """The same with a database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        list(migrate(connection, migrations(form_to_migrate(connection))))
    ratios = []
    expected = 0
    with running_writer(dsn) as address:
        for number in range(options.rounds):
            loop = bare(dsn, events(options.events, options.sources))
            through = asyncio.run(written(address, events(options.events, options.sources)))
            expected += 2 * (options.events // options.sources) * options.sources
            found = count(dsn)
            assert found == expected, f"{found} rows of {expected}"
            ratios.append(through / loop)
            print(f"round {number + 1}: bare loop {loop:,.0f}/s, writer {through:,.0f}/s, ratio {ratios[-1]:.2f}")
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f}, promised {LEAST}; all {expected:,} events are in the table")
    if median < LEAST:
        print("not kept")
    return 0 if median >= LEAST else 1


@contextmanager
def running_writer(dsn: str) -> Iterator[str]:
    """Its address; what it logs goes where this does."""
    address = f"127.0.0.1:{free_port()}"
    settings = {"database.dsn": dsn, "listen.grpc": address, "listen.metrics": f"127.0.0.1:{free_port()}"}
    command = Path(sys.executable).with_name("sark-pdp")
    writer = subprocess.Popen(
        [command, "audit-writer", *(f"--set={key}={value}" for key, value in settings.items())],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield address
    finally:
        writer.terminate()
        writer.wait(30)


if __name__ == "__main__":
    sys.exit(main())
