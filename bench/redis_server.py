"""A redis-server that a script may kill, freeze and start again."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.machine import LOAD_CORE, wait_until

_OPTIONS: Final[Sequence[str]] = (
    *("--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning"),
    *("--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"),
)
_PATIENCE: Final = 30.0


class RedisServer:
    """On a Unix socket in its folder; starts empty each time. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `cache.l2.url`."""
        return f"unix://{self._folder}/redis.sock"

    def start(self) -> None:
        """Returns when it answers; exits where it does not."""
        socket = self._folder / "redis.sock"
        # One program: its name says what it does, and Debian has it under this one alone where no service is wanted.
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        if program is None:
            raise SystemExit("Redis is not installed: run `make redis`")
        command = ["taskset", "-c", str(LOAD_CORE), "bash", "-c", 'exec -a redis-server "$0" "$@"', program]
        command += ["--unixsocket", str(socket), "--dir", str(self._folder), *_OPTIONS]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(
            lambda: self._answers(socket), _PATIENCE, f"redis-server does not answer, see {log.name}: it did not"
        )

    def kill(self) -> None:
        """SIGKILL; does nothing where it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_PATIENCE)

    def restart(self) -> None:
        """Another run of it, at once."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay, nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    @staticmethod
    def _answers(socket: Path) -> bool:
        asked = subprocess.run(["redis-cli", "-s", socket, "ping"], capture_output=True, check=False, timeout=_PATIENCE)
        return asked.stdout.strip() == b"PONG"


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Killed at the end; it keeps nothing."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
