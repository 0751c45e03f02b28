"""h2load: throughput, and fixed rates. It sends one body all the time, so that several run at once, each with its own.

A gRPC status is in the trailers, which h2load does not read: a failed call shows only in the size of the answers.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.loads import Load, Shape, Target, children_cpu, percentiles

_SLACK = 120
"""Seconds that it may take beyond its time."""
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def program() -> str:
    """Exits with how to get it where it is not there."""
    found = shutil.which("h2load")
    if found is None:
        raise SystemExit(
            "h2load, which sends the load, is not on PATH: on Debian and Ubuntu, apt-get install nghttp2-client; "
            "elsewhere it is part of nghttp2"
        )
    return found


def send(folder: Path, target: Target, bodies: Sequence[bytes], shape: Shape, seconds: float) -> Load:
    """One round: a process for each body, all at the same time. Exits where one cannot send."""
    used = children_cpu()
    processes = [
        subprocess.Popen(
            _command(folder, number, target, body, _share(shape, len(bodies)), seconds),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number, body in enumerate(bodies)
    ]
    try:
        outputs = [process.communicate(timeout=seconds + _SLACK)[0].decode() for process in processes]
    finally:
        # Those that still run, where this run is ended.
        for process in processes:
            process.kill()
    loads = [read(output) for output in outputs]
    found = [load for load in loads if load is not None]
    if len(found) < len(bodies) or any(process.returncode for process in processes):
        raise SystemExit(f"h2load got no answers from {target.address}:\n{outputs[loads.index(None)][-2000:]}")
    logs = [_log(folder, number) for number in range(len(bodies))] if shape.latencies else []
    return Load(
        calls=sum(load.calls for load in found),
        failed=sum(load.failed for load in found),
        seconds=max(load.seconds for load in found),
        generator_cpu=children_cpu() - used,
        answer_bytes=[size for load in found for size in load.answer_bytes],
        latencies=percentiles([time for log in logs for time in read_times(log.read_text())]),
    )


def _share(shape: Shape, among: int) -> Shape:
    clients = max(1, shape.clients // among)
    return Shape(clients, shape.streams, shape.rate // among, shape.latencies)


def _command(folder: Path, number: int, target: Target, body: bytes, shape: Shape, seconds: float) -> list[str]:
    data, log = folder / f"body-{number}", _log(folder, number)
    data.write_bytes(body)
    log.unlink(missing_ok=True)
    command = (
        *(program(), "--threads", 1, "--clients", shape.clients, "--max-concurrent-streams", shape.streams),
        *_length(shape, seconds),
        *("--header", f"content-type: {target.api.content_type}", "--header", "te: trailers", "--data", data),
        *(("--log-file", log) if shape.latencies else ()),
        *_place(target),
    )
    return [str(part) for part in command]


def _length(shape: Shape, seconds: float) -> Sequence[object]:
    if not shape.rate:
        return ("--duration", f"{int(seconds * 1000)}ms")
    # A client sends every 10 ms what is due by then; clients that begin a millisecond apart spread that.
    spread = ("--rate", 1, "--rate-period", "1ms")
    return ("--requests", int(shape.rate * seconds), "--rps", shape.rate // shape.clients, *spread)


def _place(target: Target) -> Sequence[str]:
    if target.address.startswith("unix:"):
        return ("--base-uri", target.address, f"http://localhost{target.api.path}")
    return (f"{'https' if target.tls else 'http'}://{target.address}{target.api.path}",)


def _log(folder: Path, number: int) -> Path:
    return folder / f"times-{number}"


def read(output: str) -> Load | None:
    """What one h2load printed; None where it got no answer, as when it could not connect."""
    finished = re.search(r"finished in ([0-9.]+)(us|ms|s),", output)
    requests = re.search(r"requests: .*, (\d+) succeeded, (\d+) failed", output)
    statuses = re.search(r"status codes: (\d+) 2xx", output)
    data = re.search(r"\((\d+)\) data", output)
    if not (finished and requests and statuses and data):
        return None
    succeeded, failed = int(requests[1]), int(requests[2])
    # An answer that was being read at the end has its status counted, and is itself not.
    calls = min(succeeded, int(statuses[1]))
    if not calls:
        return None
    seconds = float(finished[1]) * _UNITS[finished[2]]
    return Load(calls=calls, failed=failed + succeeded - calls, seconds=seconds, answer_bytes=[int(data[1]) / calls])


def read_times(log: str) -> list[int]:
    """Microseconds of each call, from the lines of `--log-file`: start, status, duration."""
    return [int(line.rpartition("\t")[2]) for line in log.splitlines()]
