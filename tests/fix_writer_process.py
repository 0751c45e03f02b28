"""`sark-pdp audit-writer` as a real process, and databases with the tables that it writes."""

import http.client
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest

from sark_pdp.audit_writer.schema import form_to_migrate, migrations
from sark_pdp.postgres.migrations import migrate
from tests.fix_native import wait_until
from tests.fix_serve import free_port

STOP_TIMEOUT = 60.0


class AuditWriter:
    """One `sark-pdp audit-writer`. May be killed and started again on its ports."""

    def __init__(self, command: Path, folder: Path, dsn: str, settings: Mapping[str, object]) -> None:
        """Its log goes to `folder`; `settings` have dotted keys."""
        self.address, self.metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        given = {"listen.grpc": self.address, "listen.metrics": self.metrics, "database.dsn": dsn, **settings}
        self._command = [str(command), "audit-writer", *(f"--set={key}={value}" for key, value in given.items())]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last one that was started."""
        assert self._process is not None, "start() comes first"
        return self._process

    @property
    def log(self) -> str:
        """What all runs printed and logged."""
        return self._log.read_text()

    def start(self) -> None:
        """Returns at once; `wait_started` comes next."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_started(self) -> None:
        """Until it listens, or ended."""
        wait_until(lambda: self.get("/healthz")[0] == http.HTTPStatus.OK or self.process.poll() is not None)

    def ready(self) -> bool:
        """Whether it says that its database takes events."""
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a path of the metrics listener; 0 where nobody answers."""
        connection = http.client.HTTPConnection(self.metrics, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def stop(self) -> int:
        """Ends it as an orchestrator does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)

    def kill(self) -> None:
        """Ends it with no chance to tidy up."""
        self.process.kill()
        self.process.wait()


def make_tables(dsn: str) -> None:
    """Those of the audit trail, in the form that the server offers."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        list(migrate(connection, migrations(form_to_migrate(connection))))


@pytest.fixture
def store(database: str) -> str:
    """The DSN of a database with the tables of the audit trail."""
    make_tables(database)
    return database


StartWriter: TypeAlias = Callable[..., AuditWriter]


@pytest.fixture
def start_writer(sark_pdp: Path, tmp_path: Path) -> Iterator[StartWriter]:
    """Starts writers on the database with this DSN; `__` in the name of a setting stands for a dot."""
    started: list[AuditWriter] = []

    def start(dsn: str, **settings: object) -> AuditWriter:
        folder = tmp_path / f"writer-{len(started)}"
        folder.mkdir()
        named = {key.replace("__", "."): value for key, value in settings.items()}
        writer = AuditWriter(sark_pdp, folder, dsn, named)
        writer.start()
        started.append(writer)
        writer.wait_started()
        return writer

    yield start
    for writer in started:
        writer.kill()
