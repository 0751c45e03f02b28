"""The machine: which core is whose, processes pinned to one, and what they and the cores used. Linux only."""

import os
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools" / "bin"
SERVER_CORE = 1
LOAD_CORE = 0

_TICK = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 60
_STOP_SECONDS = 30


class Cores(Struct, frozen=True):
    """Seconds since the boot."""

    server_idle: float
    """In which the server's core had nothing to do; so for the generator's."""
    load_idle: float
    stolen: float
    """That a hypervisor gave to others, of the core that lost more."""
    at: float
    """The monotonic clock."""


def take_load_core() -> None:
    """Keeps this process, and what it starts without another core, off the server's. Exits where there are not two."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise SystemExit(f"load runs need the cores {LOAD_CORE} and {SERVER_CORE}; run on a machine that has both")
    os.sched_setaffinity(0, {LOAD_CORE})


def read_cores(spare: Callable[[int], float]) -> Cores:
    """`spare` tells for how long a core was kept awake while it had nothing to do.

    See proc(5): of a core's times, the fourth is idle, the fifth idle while a disk works, the eighth stolen.
    """
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    times = {name: [int(value) / _TICK for value in values] for name, *values in lines if name.startswith("cpu")}
    server, load = times[f"cpu{SERVER_CORE}"], times[f"cpu{LOAD_CORE}"]
    server_idle = server[3] + server[4] + spare(SERVER_CORE)
    load_idle = load[3] + load[4] + spare(LOAD_CORE)
    return Cores(server_idle, load_idle, max(server[7], load[7]), time.monotonic())


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used so far, in user and kernel mode. See proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_mib(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a process; `VmHWM` gives its peak. See proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no {field}")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def describe() -> dict[str, str]:
    """What figures depend on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "processor": f"{models[0]}, {len(models)} cores" if models else platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


@contextmanager
def running(command: Sequence[object], core: int | str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to one core, or several, as in `0,1`; ended with SIGTERM, which it has 30 seconds to follow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SARK_PDP_")}
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)], stdout=file, stderr=file, env=environment, cwd=ROOT
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """With SIGTERM first; does nothing where it has ended."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], output: Path) -> None:
    """Until `ready` says so; exits with what the process printed where it ends before, or takes a minute."""
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} did not start:\n{output.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)


def wait_until(reached: Callable[[], bool], seconds: float, failure: str) -> None:
    """Looks every 20 ms; exits with `failure` where it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"{failure} within {seconds:g} s")
        time.sleep(0.02)
