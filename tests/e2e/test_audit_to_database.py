"""From an answer to a row: sidecar, audit writer and PostgreSQL as real processes; two are killed on the way."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from sark_pdp.audit_writer.schema import form_to_migrate, migrations
from sark_pdp.postgres.migrations import migrate
from tests.fix_native import Channel, events, wait_until, wire_policy
from tests.fix_serve import Serve, Sidecar, free_port

COMMAND = "from sark_pdp.cli.audit_writer import audit_writer; audit_writer()"
ROWS = "SELECT id::text, source, sequence FROM audit_events ORDER BY source, sequence"


class WriterProcess:
    """`sark-pdp audit-writer`; may be killed and started again on its port."""

    def __init__(self, dsn: str, folder: Path, tls: Mapping[str, object]) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self._log = folder / "writer.log"
        settings = {
            "listen.grpc": self.target,
            "listen.metrics": f"127.0.0.1:{free_port()}",
            "database.dsn": dsn,
            **tls,
        }
        self._arguments = [f"--set={key}={value}" for key, value in settings.items()]
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            command = [sys.executable, "-c", COMMAND, *self._arguments]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._started()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def store(database: str) -> str:
    """The DSN of a database with the tables of the store."""
    with psycopg.connect(database, autocommit=True) as connection:
        list(migrate(connection, migrations(form_to_migrate(connection))))
    return database


StartWriter: TypeAlias = Callable[[Mapping[str, object]], WriterProcess]


@pytest.fixture
def start_writer(store: str, tmp_path: Path) -> Iterator[StartWriter]:
    """Starts writers with these settings for TLS; they are stopped after the test."""
    started: list[WriterProcess] = []

    def start(tls: Mapping[str, object]) -> WriterProcess:
        started.append(WriterProcess(store, tmp_path, tls))
        return started[-1]

    yield start
    for writer in started:
        writer.stop()


def rows(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(ROWS).fetchall()


def ask(sidecar: Sidecar, number: int) -> list[str]:
    """The ids of so many decisions."""
    with Channel(sidecar.grpc) as channel:
        return [channel.check(case="allow", user={"id": "alice"}, salt=salt).decision_id for salt in range(number)]


def is_committed(id_: str, sidecar: Sidecar, dsn: str) -> bool:
    return id_ in {row[0] for row in rows(dsn)} or id_ in {event.id for event in events(sidecar.spool_dir)}


@pytest.mark.timeout(300)
def test_each_event_that_was_committed_is_in_the_table_once(
    start_writer: StartWriter, serve: Serve, wire_bundle: Path, store: str
) -> None:
    writer = start_writer({})
    sidecar = serve({**wire_policy(wire_bundle), "audit.writer": writer.target, "shutdown.grace": "60s"})
    sidecar.wait_ready()
    kept = ask(sidecar, 200)
    wait_until(partial(is_committed, kept[-1], sidecar, store))
    writer.kill_and_start()
    kept += ask(sidecar, 200)
    wait_until(partial(is_committed, kept[-1], sidecar, store))
    sidecar.kill()
    sidecar.start()
    sidecar.wait_ready()
    kept += ask(sidecar, 200)
    writer.kill_and_start()
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


def test_a_sidecar_sends_for_the_source_that_its_certificate_names_and_for_no_other(
    start_writer: StartWriter, serve: Serve, wire_bundle: Path, store: str, certificates: Path
) -> None:
    files = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
    writer = start_writer({f"tls.{key}": certificates / file for key, file in files.items()})
    settings = {
        **wire_policy(wire_bundle),
        "audit.writer": writer.target,
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
