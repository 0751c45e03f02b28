"""A PostgreSQL server of a script's own, on a Unix socket in a folder that goes with it.

`POSTGRES_BIN` names the folder of its programs, as for the tests, and `POSTGRES_PRELOAD=timescaledb` loads TimescaleDB.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from msgspec import Struct

from bench.machine import wait_until
from sark_pdp.postgres.tuning import LEAST_MEMORY, Machine, configuration

_SHARE: Final = 4
"""The server is sized for so much of the machine's memory: the rest is for what else runs here."""
_CONNECTIONS: Final = 50
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 120.0


class PostgresServer(Struct, frozen=True):
    """One that takes connections."""

    programs: Path
    dsn: str
    pid: int

    def cpu(self) -> float:
        """Seconds that all its processes used, those that have ended too."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = [int(field) for field in stat.read_text().rpartition(")")[2].split()[1:15]]
            except OSError:
                # It has ended, and counts to those below.
                continue
            # See proc(5): the parent, then, from the eleventh on, times of its own and of its children that have ended.
            if int(stat.parent.name) == self.pid:
                ticks += sum(fields[10:14])
            elif fields[0] == self.pid:
                ticks += sum(fields[10:12])
        return ticks / os.sysconf("SC_CLK_TCK")


def programs() -> Path:
    """The folder of PostgreSQL's programs; exits with what to do where there is none."""
    if named := os.environ.get("POSTGRES_BIN"):
        return Path(named)
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    on_path = shutil.which("initdb")
    if not (installed or on_path):
        raise SystemExit("PostgreSQL is not installed: run `make postgres`")
    return installed[-1] if installed else Path(str(on_path)).resolve().parent


@contextmanager
def postgres_server(*, tuned: bool = True, parent: Path = Path("/tmp")) -> Iterator[PostgresServer]:  # noqa: S108
    """Sized as `sark-pdp db tune` says, or with the defaults; ends with this."""
    where = programs()
    with tempfile.TemporaryDirectory(prefix="sark-pg-", dir=parent) as name:
        folder = Path(name)
        other: dict[str, Any] = {}
        if os.getuid() == 0:
            # It refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            shutil.chown(folder, nobody.pw_uid, nobody.pw_gid)
        made = ["--username=postgres", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"]
        run: Callable[..., Any] = subprocess.run
        run([where / "initdb", *made, folder / "data"], check=True, capture_output=True, cwd=folder, **other)
        if tuned:
            (folder / "tuned.conf").write_text(configuration(_machine()))
            with (folder / "data" / "postgresql.conf").open("a") as file:
                file.write(f"include '{folder}/tuned.conf'\n")
        command = [str(part) for part in (where / "postgres", "-D", folder / "data", "-k", folder)]
        command += ["-c", "listen_addresses="]
        if libraries := os.environ.get("POSTGRES_PRELOAD"):
            command += ["-c", f"shared_preload_libraries={libraries}"]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **other) as server:
            try:
                dsn = f"host={folder} user=postgres dbname=postgres"
                ready = [where / "pg_isready", "-q", "-d", dsn]
                wait_until(lambda: run(ready, check=False).returncode == 0, _START_SECONDS, "PostgreSQL does not start")
                yield PostgresServer(where, dsn, server.pid)
            finally:
                # Without waiting for connections.
                run([where / "pg_ctl", "stop", "-s", "-m", "fast", "-D", folder / "data"], check=False, **other)
                server.wait(_STOP_SECONDS)


def age(server: PostgresServer) -> None:
    """Makes it one that has run for a while: all its buffers have been in use, and files of its log are there to reuse.

    A new server pays for both while it is measured: where the machine is a virtual one whose memory the host gives it
    page by page, with two thirds of its processor time.
    """
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE aging (page text)")
        # So that each row is a page.
        connection.execute("ALTER TABLE aging ALTER page SET STORAGE PLAIN")
        connection.execute(
            "INSERT INTO aging SELECT repeat('x', 8000) FROM pg_settings, generate_series(1, setting::int)"
            " WHERE name = 'shared_buffers'"
        )
        connection.execute("DROP TABLE aging")
        connection.execute("CHECKPOINT")


def _machine() -> Machine:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    timescale = "timescaledb" in os.environ.get("POSTGRES_PRELOAD", "")
    return Machine(
        max(total // _SHARE, LEAST_MEMORY), os.cpu_count() or 1, connections=_CONNECTIONS, timescaledb=timescale
    )
