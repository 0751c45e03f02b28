"""What the load runs share: pinned servers as real processes, ghz, figures, tables.

The scripts need Linux (taskset, /proc) and two cores: the server has one for itself, the load the other.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, struct_pb2
from google.rpc import status_pb2
from msgspec import Struct

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.model import Json

ROOT = Path(__file__).resolve().parent.parent
GHZ = ROOT / ".tools" / "bin" / "ghz"
SERVER_CORE = 1
LOAD_CORE = 0

CHECK = "sark.pdp.v1.PolicyDecision/Check"
ECHO = "sark.bench.Echo/Echo"

DOCUMENT: dict[str, Json] = {
    "user": {"id": "alice", "email": "alice@example.com", "roles": ["developer"], "teams": ["search", "platform"]},
    "action": "tool:invoke",
    "tool": {"id": "search", "name": "search_documents", "sensitivity_level": "low", "owner": "bob"},
    "server": {"id": "docs", "name": "documents", "environment": "development"},
    "context": {"client_ip": "10.1.2.3"},
}
"""What is asked: about 300 bytes of JSON."""


class Load(Struct, frozen=True):
    """What ghz measured in one round."""

    rps: float
    p50_us: float
    p99_us: float
    errors: int


class Serving(Struct, frozen=True):
    """A `sark-pdp serve` that answers."""

    pid: int
    grpc: str
    metrics: str

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name with at least these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        total = 0.0
        for line in _get(f"http://{self.metrics}/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if re.split(r"[{ ]", series)[0] == name and all(pair in series for pair in wanted):
                total += float(value)
        return total


def check_request() -> bytes:
    """The request of every load run, as bytes."""
    return wire.CheckRequest(input_json=json.dumps(DOCUMENT).encode()).SerializeToString()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str | Path], core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to one core; ended with SIGTERM, which it has 30 seconds to follow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SARK_PDP_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)], stdout=output, stderr=output, env=environment, cwd=ROOT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving(core: int = SERVER_CORE, settings: dict[str, str] | None = None) -> Iterator[Serving]:
    """`sark-pdp serve` on the default bundle, with state of its own; exits the script where it does not start."""
    with tempfile.TemporaryDirectory(prefix="sark-bench-", dir="/tmp") as folder:
        values = {
            "listen.grpc": f"127.0.0.1:{free_port()}",
            "listen.metrics": f"127.0.0.1:{free_port()}",
            "listen.admin": f"unix://{folder}/admin.sock",
            "state_dir": f"{folder}/state",
            **(settings or {}),
        }
        command = [str(Path(sys.executable).parent / "sark-pdp"), "serve"]
        arguments = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        log = Path(folder) / "log"
        with running([*command, *arguments], core, log) as process:
            served = Serving(process.pid, values["listen.grpc"], values["listen.metrics"])
            _until_ready(process, f"http://{served.metrics}/readyz", log)
            yield served


def write_protoset(folder: Path) -> Path:
    """The descriptors of the decision API, and of an echo with the same request, for ghz."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (duration_pb2, struct_pb2, status_pb2):
        for dependency in module.DESCRIPTOR.dependencies:
            dependency.CopyToProto(files.file.add())
        module.DESCRIPTOR.CopyToProto(files.file.add())
    wire.DESCRIPTOR.CopyToProto(files.file.add())
    echo = files.file.add(name="echo.proto", package="sark.bench", syntax="proto3", dependency=[wire.DESCRIPTOR.name])
    request = ".sark.pdp.v1.CheckRequest"
    echo.service.add(name="Echo").method.add(name="Echo", input_type=request, output_type=request)
    path = folder / "bench.protoset"
    path.write_bytes(files.SerializeToString())
    return path


def ghz(folder: Path, address: str, method: str, calls: int, concurrency: int) -> Load:
    """One round of load over one connection, from the other core."""
    request = folder / "request.bin"
    request.write_bytes(check_request())
    protoset = folder / "bench.protoset"
    if not protoset.exists():
        write_protoset(folder)
    arguments = [
        "--insecure",
        *("--protoset", protoset, "--call", method, "--binary-file", request),
        *("--total", calls, "--concurrency", concurrency, "--connections", 1, "--format", "json"),
        address,
    ]
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), str(GHZ), *map(str, arguments)], capture_output=True, check=True, timeout=600
    )
    report = json.loads(done.stdout)
    latency = {entry["percentage"]: entry["latency"] / 1e3 for entry in report["latencyDistribution"] or []}
    answered = report["statusCodeDistribution"].get("OK", 0)
    return Load(report["rps"], latency.get(50, 0.0), latency.get(99, 0.0), calls - answered)


def resident_mib(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a process; `VmHWM` gives its peak. See proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no {field}")


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used so far, in user and kernel mode. See proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as a Markdown table; floats with one decimal."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [f"{cell:,.1f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_json(path: Path | None, figures: dict[str, object]) -> None:
    """The figures of a run, for plots and comparison; nothing without a path."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            _get(url)
        except (OSError, urllib.error.URLError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"sark-pdp serve did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - of our own listener
        text: str = response.read().decode()
        return text
