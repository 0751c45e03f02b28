"""The processes of a run: two sidecars, two writers, a database, clients, and proxies on every way between them."""

import contextlib
import http
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from msgspec import Struct
from psycopg.conninfo import make_conninfo

from sark_pdp.audit.reader import SpoolReader
from tests.chaos.disk import Disk
from tests.chaos.schedule import PAIR
from tests.chaos.watching import Watch
from tests.fix_postgres import PostgresServer, initialize
from tests.fix_proxy import Proxy
from tests.fix_serve import Sidecar
from tests.fix_writer_process import AuditWriter, make_tables

PATIENCE: Final = 120.0
"""Seconds for what takes a few."""
RATE: Final = 500.0
"""Questions a second, of both sidecars together."""
ON_FULL: Final = ("drop", "deny")
"""Of each sidecar."""
_GRACE: Final = "5s"
_ENDS: Final = 5
_DUPLICATES: Final = 'sark_audit_writer_events_total{result="duplicate"} '


class Death(Struct, frozen=True):
    """A sidecar that was killed. Times of the monotonic clock."""

    sidecar: int
    at: float
    full_since: float | None
    """Since when its disk was full; None where it was not."""


class Absence(Struct, frozen=True):
    """From when on a sidecar was going, and until it served again."""

    sidecar: int
    since: float
    until: float


class World:
    """All of it. `start` and `stop` are called once; faults call the rest, from threads of their own."""

    def __init__(self, folder: Path, command: Path, seed: int, *, disks: bool) -> None:
        """Everything is kept in `folder`; `disks` is whether file systems can be mounted."""
        self.folder = folder
        self.key_file = folder / "chain.key"
        self.deaths: list[Death] = []
        self.absences: list[Absence] = []
        self.duplicates = 0
        """Events that writers were sent again, as far as they could be asked."""
        self.troubles: list[str] = []
        """What ended or failed that nobody had touched."""
        self._seed = seed
        self._lock = threading.Lock()
        self._clients: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self.key_file.write_text(secrets.token_hex(32))
        self.key_file.chmod(0o600)
        (folder / "postgres").mkdir()
        (folder / "initialized").mkdir()
        self.database = PostgresServer(folder / "postgres", initialize(folder / "initialized"))
        self.links = [Proxy(self.database.socket) for _ in range(PAIR)]
        self.writers = [self._writer(command, link, number) for number, link in enumerate(self.links)]
        self.uplinks = [Proxy(_place(writer.address)) for writer in self.writers]
        self.disks = [Disk(folder / f"disk-{number}", mounted=disks) for number in range(PAIR)]
        self.sidecars = [self._sidecar(command, number) for number in range(PAIR)]
        self.watches: list[Watch] = []

    @property
    def spools(self) -> list[Path]:
        """Of each sidecar."""
        return [sidecar.spool_dir for sidecar in self.sidecars]

    @property
    def answers(self) -> list[Path]:
        """What each client kept; complete after `stop_asking`."""
        return [self.folder / f"answers-{number}" for number in range(PAIR)]

    @property
    def backlog(self) -> int:
        """Events that are in spools and that no writer has."""
        return sum(watch.backlog for watch in self.watches)

    def start(self) -> None:
        """Returns when all serve, and questions are asked."""
        self.database.start()
        make_tables(self.database.dsn())
        for writer in self.writers:
            writer.start()
        for sidecar in self.sidecars:
            sidecar.start()
        for sidecar in self.sidecars:
            sidecar.wait_ready()
        wait_until(lambda: all(writer.ready() for writer in self.writers), "writers are ready")
        self.watches = [Watch(spool) for spool in self.spools]
        for number in range(PAIR):
            self._clients.append(self._client(number))

    def stop_asking(self) -> None:
        """Returns when all that was asked is answered, or failed."""
        for process, end in self._clients:
            with contextlib.suppress(BrokenPipeError):
                end.close()
            if process.wait(PATIENCE):
                self.note(f"a client ended with {process.returncode}")

    def drain(self) -> None:
        """Heals what is left of faults, ends the sidecars in order, and returns when no spool holds anything."""
        for disk in self.disks:
            disk.free()
        wait_until(lambda: all(sidecar.ready() for sidecar in self.sidecars), "sidecars are ready")
        wait_until(lambda: all(writer.ready() for writer in self.writers), "writers are ready")
        wait_until(lambda: not self.backlog, "writers have all events")
        for _ in range(_ENDS):
            for number in range(PAIR):
                self.stop_sidecar(number)
            if not any(map(left_in, self.spools)):
                break
            # What a sidecar could not ship within its grace, the next one does.
            for number in range(PAIR):
                self.bring_back(number, time.monotonic())
            wait_until(lambda: not any(map(left_in, self.spools)), "writers have the ends of the sources")
        for watch in self.watches:
            watch.stop()

    def stop(self) -> None:
        """Ends everything that still runs."""
        for client, _ in self._clients:
            client.kill()
            client.wait()
        for end in [*(it.kill for it in self.sidecars), *(it.kill for it in self.writers)]:
            with contextlib.suppress(AssertionError):
                end()
        with contextlib.suppress(AssertionError, Exception):
            self.database.thaw()
        self.database.stop()
        for proxy in (*self.uplinks, *self.links):
            proxy.close()
        for disk in self.disks:
            disk.close()

    def save_spools(self) -> None:
        """Copies them to where they outlive the mounts."""
        for number, spool in enumerate(self.spools):
            shutil.copytree(spool, self.folder / f"spool-{number}", dirs_exist_ok=True)

    def note(self, trouble: str) -> None:
        """Something that must not be. Thread-safe."""
        with self._lock:
            self.troubles.append(trouble)

    def kill_sidecar(self, number: int, full_since: float | None = None) -> float:
        """SIGKILL; when."""
        at = time.monotonic()
        self.sidecars[number].kill()
        with self._lock:
            self.deaths.append(Death(number, at, full_since))
        return at

    def stop_sidecar(self, number: int) -> float:
        """SIGTERM; returns when it ended, and says since when it was going."""
        at = time.monotonic()
        if code := self.sidecars[number].stop():
            self.note(f"sidecar {number} ended with {code} when told to stop")
        return at

    def bring_back(self, number: int, since: float) -> None:
        """Starts a sidecar until it serves, again and again where it ends, as an orchestrator does."""
        sidecar = self.sidecars[number]
        deadline = time.monotonic() + PATIENCE
        while not sidecar.ready():
            if sidecar.process.poll() is not None:
                sidecar.start()
            if time.monotonic() > deadline:
                raise TimeoutError(f"sidecar {number} does not come back")
            time.sleep(0.05)
        with self._lock:
            self.absences.append(Absence(number, since, time.monotonic()))

    def end_writer(self, number: int, how: Callable[[AuditWriter], Any]) -> None:
        """Kills or stops one."""
        writer = self.writers[number]
        self.count_duplicates(number)
        if (code := how(writer)) not in {0, None}:
            self.note(f"writer {number} ended with {code} when told to stop")

    def count_duplicates(self, number: int) -> None:
        """Adds those that a writer has counted since its start; asked once in the life of each."""
        status, text = self.writers[number].get("/metrics")
        if status == http.HTTPStatus.OK:
            found = [line for line in text.splitlines() if line.startswith(_DUPLICATES)]
            with self._lock:
                self.duplicates += sum(int(float(line.removeprefix(_DUPLICATES))) for line in found)

    def require_alive(self) -> None:
        """Notes what ended by itself; called while no fault is there."""
        for name, process in self._processes():
            if (code := process.poll()) is not None:
                self.note(f"{name} ended with {code} by itself")

    def _processes(self) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        yield "the database", self.database.process
        for number in range(PAIR):
            yield f"sidecar {number}", self.sidecars[number].process
            yield f"writer {number}", self.writers[number].process
            yield f"client {number}", self._clients[number][0]

    def _writer(self, command: Path, link: Proxy, number: int) -> AuditWriter:
        folder = self.folder / f"writer-{number}"
        folder.mkdir()
        place = {"host": "127.0.0.1", "port": str(link.port), "user": "postgres", "dbname": "postgres"}
        return AuditWriter(command, folder, make_conninfo("", **place, sslmode="disable"), {})

    def _sidecar(self, command: Path, number: int) -> Sidecar:
        folder = self.folder / f"sidecar-{number}"
        folder.mkdir()
        settings = {
            "state_dir": str(self.folder / "state"),
            "audit.spool_dir": str(self.disks[number].folder / "spool"),
            "audit.writer": [proxy.address for proxy in self.uplinks],
            "audit.source_name": f"sidecar-{number}",
            "audit.chain_key_file": str(self.key_file),
            "audit.on_full": ON_FULL[number],
            "shutdown.grace": _GRACE,
        }
        return Sidecar(command, folder, settings)

    def _client(self, number: int) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        arguments = [self.sidecars[number].grpc, str(self.answers[number]), f"--rate={RATE / PAIR}"]
        with (self.folder / f"client-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.asking", *arguments, f"--seed={self._seed}-{number}"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert process.stdin is not None
        return process, process.stdin


def wait_until(what: Callable[[], bool], promise: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE:.0f} s: {promise}")
        time.sleep(0.05)


def left_in(spool: Path) -> int:
    """Events in a spool that no writer is known to have."""
    with SpoolReader(spool) as reader:
        return sum(end.sequence - end.shipped for end in reader.snapshot().sources)


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
