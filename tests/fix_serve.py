"""`sark-pdp serve` as a real process, on ports, sockets and folders of its own."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0


def free_port() -> int:
    """A port that nobody listens on.

    It lies below the range that the kernel gives to outgoing connections, one of which could else take it before it
    is bound.
    """
    for port in random.sample(range(15000, 32000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port on loopback")


class Sidecar:
    """One `sark-pdp serve`. May be started again on what an earlier run left in its folder."""

    def __init__(self, command: Path, folder: Path, settings: Mapping[str, object]) -> None:
        """`settings` have dotted keys; values that are no strings are given as JSON."""
        self.folder = folder
        self.settings: dict[str, object] = {
            "listen.grpc": f"127.0.0.1:{free_port()}",
            # Off, but where a test asks over it.
            "listen.http": "",
            "listen.metrics": f"127.0.0.1:{free_port()}",
            "listen.admin": f"unix://{folder / 'admin.sock'}",
            "state_dir": str(folder / "state"),
            "audit.spool_dir": str(folder / "state" / "audit"),
            # A machine that stands still for a moment must not turn an answer into a denial.
            "limits.eval_timeout": "10s",
            # Runs whatever a test does over another carrier.
            "transport": os.environ.get("TEST_TRANSPORT", "auto"),
            **settings,
        }
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def grpc(self) -> str:
        """What a client connects to."""
        return str(self.settings["listen.grpc"])

    @property
    def metrics(self) -> str:
        """Host and port of `/metrics`, `/healthz` and `/readyz`."""
        return str(self.settings["listen.metrics"])

    @property
    def admin(self) -> str:
        """What a client of `Administration` connects to."""
        return str(self.settings["listen.admin"])

    @property
    def spool_dir(self) -> Path:
        """Where audit events are kept."""
        return Path(str(self.settings["audit.spool_dir"]))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last one that was started."""
        assert self._process is not None, "start() comes first"
        return self._process

    @property
    def output(self) -> str:
        """What was printed, by all runs."""
        return (self.folder / "stdout").read_text()

    @property
    def log(self) -> str:
        """What was logged, by all runs."""
        return (self.folder / "stderr").read_text()

    def start(self) -> None:
        """Returns at once; `wait_ready` or `wait_exit` comes next."""
        arguments = [f"--set={key}={_text(value)}" for key, value in self.settings.items()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SARK_PDP_", "XDG_"))}
        with (self.folder / "stdout").open("ab") as output, (self.folder / "stderr").open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=self.folder,
                env={**environment, "HOME": str(self.folder)},
            )

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Until it says that it serves; fails with its log where it ends or takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            code = self.process.poll()
            assert code is None, f"sark-pdp serve ended with {code}:\n{self.log}"
            assert time.monotonic() < deadline, f"sark-pdp serve is not ready after {timeout} s:\n{self.log}"
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether `/readyz` says so now."""
        try:
            return self.get("/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a path of the metrics listener."""
        connection = http.client.HTTPConnection(self.metrics, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def wait_exit(self, timeout: float = STOP_TIMEOUT) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"sark-pdp serve did not end within {timeout} s:\n{self.log}")

    def stop(self) -> int:
        """Ends it as an orchestrator does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def kill(self) -> None:
        """Ends it with no chance to tidy up."""
        self.process.kill()
        self.process.wait()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder for Unix sockets, whose whole path must stay below 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def sidecar(sark_pdp: Path) -> Iterator[Sidecar]:
    """One that serves the default bundle with almost default settings, for tests that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as folder:
        served = Sidecar(sark_pdp, Path(folder), {"listen.http": f"127.0.0.1:{free_port()}"})
        served.start()
        try:
            served.wait_ready()
            yield served
        finally:
            _finish(served)


Serve: TypeAlias = Callable[[Mapping[str, object]], Sidecar]


@pytest.fixture
def serve(sark_pdp: Path) -> Iterator[Serve]:
    """Makes and starts one of its own for a test, with the settings that it gives; does not wait for it.

    One that still runs when the test is over is stopped, and must then exit with 0.
    """
    with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as parent:
        started: list[Sidecar] = []

        def start(settings: Mapping[str, object]) -> Sidecar:
            folder = Path(parent) / str(len(started))
            folder.mkdir()
            served = Sidecar(sark_pdp, folder, settings)
            served.start()
            started.append(served)
            return served

        yield start
        for served in started:
            _finish(served)


def _finish(served: Sidecar) -> None:
    if served.process.poll() is None:
        code = served.stop()
        assert code == 0, f"sark-pdp serve ended with {code} when told to stop:\n{served.log}"
