"""ghz: load over TLS with client certificates, and of messages that all differ. It reads each call's gRPC status."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from bench.loads import Load, Shape, Target, children_cpu
from bench.machine import TOOLS

PROGRAM = TOOLS / "ghz"
_SLACK = 120
"""Seconds that it may take beyond its time."""


def send(
    folder: Path, target: Target, service: FileDescriptor, messages: Sequence[bytes], shape: Shape, seconds: float
) -> Load:
    """One round, with these messages in turn. Exits where it cannot send."""
    if not PROGRAM.exists():
        raise SystemExit(f"ghz, which sends the load, is not at {PROGRAM}: run `make tools`")
    protoset, data = folder / "protoset", folder / "messages"
    write_protoset(protoset, service)
    data.write_bytes(b"".join(varint(len(message)) + message for message in messages))
    command = (
        *(PROGRAM, "--protoset", protoset, "--call", target.api.path.removeprefix("/"), "--binary-file", data),
        *("--concurrency", shape.clients * shape.streams, "--connections", shape.clients, "--cpus", 1),
        *("--duration", f"{int(seconds * 1000)}ms", "--duration-stop", "wait", "--format", "json"),
        *(("--rps", shape.rate) if shape.rate else ()),
        *_security(target),
        target.address.replace("unix:", "unix://"),
    )
    used = children_cpu()
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=seconds + _SLACK, check=False)
    if done.returncode:
        raise SystemExit(f"ghz got no answers from {target.address}:\n{done.stderr.decode()[-2000:]}")
    return read(json.loads(done.stdout), children_cpu() - used)


def _security(target: Target) -> Sequence[str | Path]:
    tls = target.tls
    if tls is None:
        return ("--insecure",)
    shown = ("--cert", tls.certificate, "--key", tls.key) if tls.client else ()
    return ("--cacert", tls.authority, "--cname", "localhost", *shown)


def read(report: Mapping[str, Any], generator_cpu: float = 0.0) -> Load:
    """What ghz reports as JSON; its times are nanoseconds."""
    answered = report["statusCodeDistribution"].get("OK", 0)
    times = {f"{entry['percentage']:g}": entry["latency"] / 1e3 for entry in report["latencyDistribution"] or ()}
    return Load(
        calls=answered,
        failed=report["count"] - answered,
        seconds=report["total"] / 1e9,
        generator_cpu=generator_cpu,
        latencies={**times, "max": report["slowest"] / 1e3} if times else {},
    )


def write_protoset(path: Path, service: FileDescriptor) -> None:
    """The descriptors of a service and of all that it imports, each after its imports."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in files:
            for dependency in file.dependencies:
                add(dependency)
            files[file.name] = file

    add(service)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    path.write_bytes(found.SerializeToString())


def varint(number: int) -> bytes:
    """As protobuf writes a length."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
