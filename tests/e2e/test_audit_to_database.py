"""From an answer to a row: sidecar, audit writer and PostgreSQL as real processes; two are killed on the way."""

from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fix_native import Channel, events, wait_until, wire_policy
from tests.fix_serve import Serve, Sidecar
from tests.fix_writer_process import AuditWriter, StartWriter

ROWS = "SELECT id::text, source, sequence FROM audit_events ORDER BY source, sequence"


def rows(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(ROWS).fetchall()


def ask(sidecar: Sidecar, number: int) -> list[str]:
    """The ids of so many decisions."""
    with Channel(sidecar.grpc) as channel:
        return [channel.check(case="allow", user={"id": "alice"}, salt=salt).decision_id for salt in range(number)]


def is_stored(id_: str, dsn: str) -> bool:
    return id_ in {row[0] for row in rows(dsn)}


def is_committed(id_: str, sidecar: Sidecar, dsn: str) -> bool:
    return is_stored(id_, dsn) or id_ in {event.id for event in events(sidecar.spool_dir)}


@pytest.mark.timeout(300)
def test_each_event_that_was_committed_is_in_the_table_once(
    start_writer: StartWriter, serve: Serve, wire_bundle: Path, store: str
) -> None:
    writer = start_writer(store)
    sidecar = serve({**wire_policy(wire_bundle), "audit.writer": writer.address, "shutdown.grace": "60s"})
    sidecar.wait_ready()
    kept = ask(sidecar, 200)
    wait_until(partial(is_committed, kept[-1], sidecar, store))
    writer.kill()
    writer.start()
    kept += ask(sidecar, 200)
    wait_until(partial(is_committed, kept[-1], sidecar, store))
    sidecar.kill()
    sidecar.start()
    sidecar.wait_ready()
    kept += ask(sidecar, 200)
    writer.kill()
    writer.start()
    kept += ask(sidecar, 200)
    assert sidecar.stop() == 0
    found = rows(store)
    assert {row[0] for row in found} >= set(kept)
    assert len({row[0] for row in found}) == len(found)
    by_source: dict[str, list[int]] = {}
    for _, source, sequence in found:
        by_source.setdefault(source, []).append(sequence)
    assert len(by_source) == 2
    for sequences in by_source.values():
        assert sequences == list(range(1, len(sequences) + 1))
    assert events(sidecar.spool_dir) == []


@pytest.mark.timeout(300)
def test_a_sidecar_moves_between_writers_and_nobody_notices(
    start_writer: StartWriter, serve: Serve, wire_bundle: Path, store: str
) -> None:
    """Whichever is there takes what the other one has not acknowledged."""
    writers = [start_writer(store), start_writer(store)]
    targets = [writer.address for writer in writers]
    sidecar = serve({**wire_policy(wire_bundle), "audit.writer": targets, "shutdown.grace": "60s"})
    sidecar.wait_ready()
    kept: list[str] = []
    for end in (AuditWriter.stop, AuditWriter.kill):
        for leaving in writers:
            kept += ask(sidecar, 100)
            end(leaving)
            kept += ask(sidecar, 100)
            wait_until(partial(is_stored, kept[-1], store))
            leaving.start()
            leaving.wait_started()
    assert sidecar.stop() == 0
    found = rows(store)
    assert [row[2] for row in found] == list(range(1, len(found) + 1))
    assert {row[0] for row in found} >= set(kept)
    assert events(sidecar.spool_dir) == []


def test_a_sidecar_sends_for_the_source_that_its_certificate_names_and_for_no_other(
    start_writer: StartWriter, serve: Serve, wire_bundle: Path, store: str, certificates: Path
) -> None:
    files = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
    writer = start_writer(store, **{f"tls.{key}": certificates / file for key, file in files.items()})
    settings = {
        **wire_policy(wire_bundle),
        "audit.writer": writer.address,
        "audit.tls.ca_file": str(certificates / "ca.pem"),
        "audit.tls.cert_file": str(certificates / "client.pem"),
        "audit.tls.key_file": str(certificates / "client.key"),
        "audit.tls.server_name": "server.test",
    }
    named = serve({**settings, "audit.source_name": "client.test"})
    other = serve({**settings, "audit.source_name": "somebody.test", "shutdown.grace": "1s"})
    for sidecar in (named, other):
        sidecar.wait_ready()
    ids = ask(named, 20)
    ask(other, 20)

    def problems() -> list[str]:
        with Channel(other.admin) as admin:
            return [problem for problem in admin.status().problems if "does not cover the source" in problem]

    assert "PERMISSION_DENIED" in wait_until(problems)[0]
    wait_until(lambda: {row[0] for row in rows(store)} >= set(ids))
    assert named.stop() == 0
    assert other.stop() == 0
    assert {row[1].partition("/")[0] for row in rows(store)} == {"client.test"}
    assert len(events(other.spool_dir)) > 20
