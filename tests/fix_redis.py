"""Real Redis servers, each on a Unix socket in a folder of its own, and a proxy before one.

The one of the session is shared by tests that use a prefix of their own; a test that breaks a server starts another.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sark_pdp.cache import redis_link
from sark_pdp.model import Seconds
from tests.fix_proxy import Proxy

_PATIENCE = 30.0
_QUICK = ("--port", "0", "--save", "", "--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")


class RedisProcess:
    """One server. May be killed, frozen and started again; without `appendonly` it starts empty."""

    def __init__(self, folder: Path, *options: str) -> None:
        """`options` are added to those of the tests."""
        self._folder, self._options = folder, options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self._folder / "redis.sock"

    @property
    def url(self) -> str:
        """For `cache.l2.url`."""
        return f"unix://{self.socket}"

    def start(self) -> "RedisProcess":
        """Returns when it answers."""
        # One program: its name says what it does, and Debian has it under this one alone where no service is wanted.
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        if program is None:
            pytest.fail("Redis is not installed: run `make redis`", pytrace=False)
        self._process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                "0",
                "--unixsocket",
                self.socket,
                "--dir",
                self._folder,
                *_QUICK,
                *self._options,
            ],
            executable=program,
            stdout=subprocess.DEVNULL,
        )
        self._answers()
        return self

    def client(self) -> "redis.Redis":
        """Of redis-py, for a test that looks at what is in it or changes it. The caller closes it."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2, socket_timeout=_PATIENCE, retry=once)

    def ask(self, *command: Any) -> Any:
        """The reply to one command."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay, nobody answers."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        # The signal is on its way: it may still answer for a moment.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Another run of it."""
        self.kill()
        self.start()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                if self.ask("PING"):
                    return
            except redis.exceptions.BusyLoadingError:
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < end, "redis-server does not answer"
                time.sleep(0.01)


class RedisProxy(Proxy):
    """A proxy before a server."""

    @property
    def url(self) -> str:
        """For `cache.l2.url`."""
        return f"redis://{self.address}"


StartRedis: TypeAlias = Callable[..., RedisProcess]


@pytest.fixture
def start_redis() -> Iterator[StartRedis]:
    """Starts a server of the test's own, with more options of redis-server where they are given."""
    with contextlib.ExitStack() as running:

        def start(*options: str) -> RedisProcess:
            # A Unix socket's path is short.
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sark-redis-")))
            server = RedisProcess(folder, *options).start()
            running.callback(server.kill)
            return server

        yield start


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisProcess]:
    """The one that tests share; it stays as it is."""
    with tempfile.TemporaryDirectory(prefix="sark-redis-") as folder:
        server = RedisProcess(Path(folder)).start()
        yield server
        server.kill()


@pytest.fixture
def redis_prefix() -> str:
    """Of this test's keys."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment does not make a link think that Redis is away."""
    monkeypatch.setattr(redis_link, "_PATIENCE", Seconds(5.0))


@pytest.fixture
def redis_proxy(redis_server: RedisProcess) -> Iterator[RedisProxy]:
    """Before the server that tests share."""
    proxy = RedisProxy(redis_server.socket)
    yield proxy
    proxy.close()
