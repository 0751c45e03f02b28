"""Real PostgreSQL servers, each on a Unix socket in a folder of its own: one for the session, others to be broken.

Nothing of a server that the machine may run is touched. As root the programs run as another user, for `initdb` refuses
root.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0
_UNSAFE_BUT_QUICK = (
    *("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off"),
    *("listen_addresses=", "max_connections=100", "shared_buffers=32MB", "max_wal_size=2GB"),
)
"""Nothing here has to outlive the machine. Without autovacuum plans change only where a test says ANALYZE."""


def _bin() -> Path:
    """The folder of PostgreSQL's programs, the newest of several."""
    named = os.environ.get("POSTGRES_BIN")
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    candidates = [Path(named)] if named else [*debian[::-1], *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in candidates:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    pytest.fail("PostgreSQL is not installed: run `make postgres`, or name its folder with POSTGRES_BIN", pytrace=False)


def _unprivileged() -> list[str]:
    """What a command begins with that gives up root; the process stays the same.

    `subprocess` with a `user` would have to fork for that, and in a process with calls of gRPC under way such a child
    crashes now and then before it becomes the program.
    """
    if os.getuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _give_away(folder: Path) -> None:
    """To whom the programs run as."""
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, nobody.pw_uid, nobody.pw_gid)


def initialize(folder: Path) -> Path:
    """Has `initdb` make an empty server in `folder`; what servers start with copies of."""
    _give_away(folder)
    options = ["--username=postgres", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"]
    command = [*_unprivileged(), str(_bin() / "initdb"), *options, str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder / "data"


class PostgresServer:
    """One server. May be stopped, killed, frozen and started again; its data stay."""

    def __init__(self, folder: Path, initialized: Path) -> None:
        """Everything is kept in `folder`; `initialized` is what `initdb` made."""
        self.folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        shutil.copytree(initialized, self._data)
        _give_away(folder)

    @property
    def log(self) -> str:
        """What it logged."""
        return self._log.read_text()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last one that was started; a signal to it alone leaves its children as they are."""
        assert self._process is not None, "start() comes first"
        return self._process

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.folder / ".s.PGSQL.5432"

    def dsn(self, database: str = "postgres", **parameters: str) -> str:
        """How a superuser connects."""
        return make_conninfo("", host=str(self.folder), user="postgres", dbname=database, **parameters)

    def start(self, given: Sequence[str] = _UNSAFE_BUT_QUICK) -> None:
        """Returns when it takes connections; `given` settings count more than those of its files."""
        loaded = [f"shared_preload_libraries={libraries}"] if (libraries := os.environ.get("POSTGRES_PRELOAD")) else []
        settings = [argument for setting in (*given, *loaded) for argument in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_unprivileged(), _bin() / "postgres", "-D", self._data, "-k", self.folder, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=10).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, f"PostgreSQL ended:\n{self.log}"
                assert time.monotonic() < deadline, f"PostgreSQL did not start:\n{self.log}"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Ends every connection, then itself."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Ends at once, as if it had been killed."""
        self._end(signal.SIGQUIT)

    def freeze(self) -> None:
        """All its processes stop where they are; connections stay open and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        import psutil

        parent = psutil.Process(self.process.pid)
        parent.send_signal(number)
        for child in parent.children(recursive=True):
            # One that has ended meanwhile has nothing to stop: a worker of autovacuum's, a connection that was closed.
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    def _end(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="session")
def initialized_postgres() -> Iterator[Path]:
    """What `initdb` makes, for servers to start with copies of."""
    with tempfile.TemporaryDirectory(prefix="sark-pg-", dir="/tmp") as parent:
        yield initialize(Path(parent))


@pytest.fixture(scope="session")
def postgres_server(initialized_postgres: Path) -> Iterator[PostgresServer]:
    """The server of the session, for tests that leave it running; most want `database`."""
    with tempfile.TemporaryDirectory(prefix="sark-pg-", dir="/tmp") as folder:
        server = PostgresServer(Path(folder), initialized_postgres)
        try:
            server.start()
            yield server
        finally:
            server.stop()


NewDatabase: TypeAlias = Callable[..., str]


@pytest.fixture
def new_database(postgres_server: PostgresServer) -> Iterator[NewDatabase]:
    """Makes empty databases on the server of the session and returns their DSNs; they are dropped after the test."""
    made: list[str] = []

    def make(template: str = "template0", encoding: str = "UTF8") -> str:
        name = f"test_{uuid4().hex}"
        _administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template} ENCODING '{encoding}'")
        made.append(name)
        return postgres_server.dsn(name)

    yield make
    for name in made:
        _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """The DSN of an empty database of this test."""
    return new_database()


def _administer(server: PostgresServer, statement: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())


StartPostgres: TypeAlias = Callable[[], PostgresServer]


@pytest.fixture
def start_postgres(initialized_postgres: Path) -> Iterator[StartPostgres]:
    """Starts servers of this test's own, which it may stop, crash and freeze."""
    started: list[PostgresServer] = []
    with tempfile.TemporaryDirectory(prefix="sark-pg-", dir="/tmp") as parent:
        Path(parent).chmod(0o755)

        def start() -> PostgresServer:
            folder = Path(parent) / str(len(started))
            folder.mkdir()
            server = PostgresServer(folder, initialized_postgres)
            started.append(server)
            server.start()
            return server

        try:
            yield start
        finally:
            for server in started:
                if server.process.poll() is None:
                    server.thaw()
                server.stop()
