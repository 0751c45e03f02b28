"""What a change of policies costs: calls under load, memory and files over many changes, a large data document.

`python -m bench.activation [load] [soak] [data] [--seconds N] [--activations N] [--json FILE]`; exits with 1 where
something that is promised does not hold.
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from bench.figures import table, write_json
from bench.ghz import varint, write_protoset
from bench.machine import LOAD_CORE, TOOLS, resident_mib, take_load_core
from bench.servers import Serving, serving
from sark_pdp._proto import decision_pb2 as wire
from sark_pdp._proto.admin_pb2 import ReloadBundleRequest, ReloadBundleResponse
from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.opa import Opa

RATE = 2000
ACTIVATIONS = 20
"""Under load."""
WARM = 50
"""Changes after which memory is compared with."""
SERVERS, TOOLS_EACH = 10_000, 10
MIB = 1 << 20

_POLICY = """package p

# METADATA
# entrypoint: true
allow := {{"allow": true, "one": {mark}, "two": data.facts.mark}} if input.id != "nobody"
"""
_LOOKUP = """package p

# METADATA
# entrypoint: true
allow := {"allow": tool.sensitivity == "low", "owner": data.registry.servers[tool.server].owner} if {
	tool := data.registry.tools[input.tool]
}
"""

Figures = dict[str, Any]


def main() -> None:
    """Prints what was measured."""
    runs: Mapping[str, Callable[[Path, argparse.Namespace], Figures]] = {"load": _load, "soak": _soak, "data": _data}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", choices=[*runs, []], help="which ones [all]")
    parser.add_argument("--seconds", type=int, default=60, help="of load, with and without activations [60]")
    parser.add_argument("--activations", type=int, default=1000, help="of the soak [1000]")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    take_load_core()
    figures: dict[str, Figures] = {}
    for name in chosen.runs or runs:
        with tempfile.TemporaryDirectory(prefix="sark-bench-") as folder:
            figures[name] = runs[name](Path(folder), chosen)
        print(f"{name}\n{table(('figure', 'value'), figures[name].items())}\n")
    write_json(chosen.json, figures)
    raise SystemExit(0 if all(each["held"] for each in figures.values()) else 1)


def _load(folder: Path, chosen: argparse.Namespace) -> Figures:
    """The promise: no failed call, no answer of two revisions, p99 at most twice what it is without activations."""
    marks = [_bundle(folder, mark) for mark in range(ACTIVATIONS + 1)]
    place = folder / "bundle.tar.gz"
    _deliver(place, marks[0])
    with serving(folder, _settings(place)) as served, _administration(folder) as reload:
        calm = _ghz(folder, served.grpc, chosen.seconds)
        wrong: list[str] = []
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(served, wrong, done))
        watcher.start()
        load: list[Figures] = []
        sender = threading.Thread(target=lambda: load.append(_ghz(folder, served.grpc, chosen.seconds)))
        sender.start()
        for content in marks[1:]:
            time.sleep(chosen.seconds / (ACTIVATIONS + 1))
            _deliver(place, content)
            if error := reload():
                wrong.append(error)
        sender.join()
        done.set()
        watcher.join()
    (busy,) = load
    ratio = busy["p99_ms"] / calm["p99_ms"]
    return {
        "calls without and with activations": f"{calm['calls']} {busy['calls']}",
        "failed": calm["failed"] + busy["failed"],
        "answers of two revisions, and refused activations": len(wrong),
        "p50 ms without and with": f"{calm['p50_ms']:.2f} {busy['p50_ms']:.2f}",
        "p99 ms without and with": f"{calm['p99_ms']:.2f} {busy['p99_ms']:.2f}",
        "p99 with activations, times that without": ratio,
        "held": not wrong and not calm["failed"] + busy["failed"] and ratio <= 2.0,
    }


def _soak(folder: Path, chosen: argparse.Namespace) -> Figures:
    """The promise: memory within 5 % of what it was after the first 50 changes, as many open files."""
    place = folder / "bundle.tar.gz"
    contents = [_bundle(folder, mark) for mark in range(3)]
    _deliver(place, contents[0])
    seen: dict[int, tuple[float, int]] = {}
    with serving(folder, _settings(place)) as served, _administration(folder) as reload:
        began = time.monotonic()
        for number in range(1, chosen.activations + 1):
            # A module of three, and data that never was before.
            _deliver(place, contents[number % 3], number)
            if error := reload():
                raise SystemExit(error)
            if number in {WARM, chosen.activations}:
                files = len(list(Path(f"/proc/{served.pid}/fd").iterdir()))
                seen[number] = (resident_mib(served.pid), files)
        took = time.monotonic() - began
        counted = served.metric("sark_bundle_activations_total")
    (memory, files), (memory_after, files_after) = seen[WARM], seen[chosen.activations]
    return {
        "activations": counted - 1,
        "ms each": took / chosen.activations * 1000,
        f"resident MiB after {WARM} and at the end": f"{memory:.1f} {memory_after:.1f}",
        "open files": f"{files} {files_after}",
        "held": counted == chosen.activations + 1 and memory_after <= 1.05 * memory and files == files_after,
    }


def _data(folder: Path, _: argparse.Namespace) -> Figures:
    """Nothing is promised: docs/bundles.md tells what it costs, and what to do instead."""
    registry = _registry()
    files = _compiled(folder, _LOOKUP, ["p", "registry"])
    files["data.json"] = json.dumps({"registry": registry}).encode()
    place, small = folder / "bundle.tar.gz", folder / "small.tar.gz"
    place.write_bytes(pack_archive(files, level=6))
    small.write_bytes(pack_archive({**files, "data.json": b"{}"}))
    settings = {"limits.wasm_memory": "1GiB", "cache.l1.size": "0"}
    figures: Figures = {"JSON MiB": len(files["data.json"]) / MIB, "archive MiB": place.stat().st_size / MIB}
    for name, path in (("without data", small), ("with data", place)):
        own = folder / name.replace(" ", "-")
        own.mkdir()
        with serving(own, _settings(path) | settings) as served:
            before = served.metric("sark_bundle_activation_seconds_sum")
            with grpc.insecure_channel(served.grpc) as channel:
                _ask(channel, [{"tool": f"tool-{number}"} for number in range(0, 100_000, 50)])
            count = served.metric("sark_policy_evaluation_duration_seconds_count")
            seconds = served.metric("sark_policy_evaluation_duration_seconds_sum")
            figures |= {
                f"activation s {name}": before,
                f"resident MiB {name}": resident_mib(served.pid),
                f"peak MiB {name}": resident_mib(served.pid, "VmHWM"),
                f"evaluation µs {name}": seconds / count * 1e6,
            }
    return figures | {"held": True}


def _registry() -> dict[str, Any]:
    """A registry of 10,000 servers and 100,000 tools, as a policy would look things up in it."""
    names = [f"server-{number}" for number in range(SERVERS)]
    return {
        "servers": {
            name: {
                "owner": f"user-{number % 500}@example.com",
                "team": f"team-{number % 40}",
                "environment": "production",
            }
            for number, name in enumerate(names)
        },
        "tools": {
            f"tool-{number}": {
                "server": names[number // TOOLS_EACH],
                "name": f"search_documents_{number}",
                "sensitivity": ("low", "medium", "high")[number % 3],
                "description": "Searches documents of the company by words in their title and text.",
                "teams": [f"team-{number % 40}", f"team-{number % 7}"],
            }
            for number in range(SERVERS * TOOLS_EACH)
        },
    }


def _compiled(folder: Path, source: str, roots: Sequence[str]) -> dict[str, bytes]:
    rego = folder / "rego"
    rego.mkdir(exist_ok=True)
    (rego / "p.rego").write_text(source)
    files = Opa(str(TOOLS / "opa")).wasm_bundle(rego, folder / "opa.tar.gz", ["p/allow"], 0)
    manifest = {**json.loads(files[".manifest"]), "roots": list(roots)}
    return {".manifest": json.dumps(manifest).encode(), "policy.wasm": files["policy.wasm"]}


def _bundle(folder: Path, mark: int) -> dict[str, bytes]:
    """A module with its mark in the code and in the data: an answer of two revisions shows."""
    files = _compiled(folder, _POLICY.format(mark=mark), ["p", "facts", "salt"])
    manifest = {**json.loads(files[".manifest"]), "revision": f"r{mark}"}
    return {
        **files,
        ".manifest": json.dumps(manifest).encode(),
        "facts/data.json": json.dumps({"mark": mark}).encode(),
    }


def _deliver(place: Path, files: Mapping[str, bytes], salt: int = 0) -> None:
    part = place.with_suffix(".part")
    part.write_bytes(pack_archive({**files, "salt/data.json": str(salt).encode()}, level=1))
    part.replace(place)


def _settings(place: Path) -> dict[str, str]:
    bundles = [{"name": "bench", "path": str(place), "poll_interval": "0"}]
    names = {"policy.entrypoint": "p/allow", "policy.ext_authz_entrypoint": "p/allow"}
    return {"policy.bundles": json.dumps(bundles), **names}


class _administration:  # noqa: N801  # a context manager that reads as a function
    """Asks a sidecar to reload its bundle; gives why it was refused, empty where it was not."""

    def __init__(self, folder: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{folder}/admin.sock")

    def __enter__(self) -> Callable[[], str]:
        call = self._channel.unary_unary(
            "/sark.pdp.v1.Administration/ReloadBundle",
            request_serializer=ReloadBundleRequest.SerializeToString,
            response_deserializer=ReloadBundleResponse.FromString,
        )
        return lambda: str(call(ReloadBundleRequest(), timeout=120).bundle.error)

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def _ask(channel: grpc.Channel, documents: Sequence[Mapping[str, Any]]) -> list[wire.CheckResponse]:
    call = channel.unary_unary(
        "/sark.pdp.v1.PolicyDecision/Check",
        request_serializer=wire.CheckRequest.SerializeToString,
        response_deserializer=wire.CheckResponse.FromString,
    )
    return [call(wire.CheckRequest(input_json=json.dumps(each).encode()), timeout=60) for each in documents]


def _watch(served: Serving, wrong: list[str], done: threading.Event) -> None:
    """Asks 50 times a second, and compares what is in the code, in the data and in the revision."""
    number = 0
    with grpc.insecure_channel(served.grpc) as channel:
        while not done.wait(0.02):
            number += 1
            (answer,) = _ask(channel, [{"id": f"watcher-{number}"}])
            result = json.loads(answer.result_json)
            if result["one"] != result["two"] or answer.policy_revision != f"r{result['one']}":
                wrong.append(f"{answer.policy_revision}: {answer.result_json.decode()}")


def _ghz(folder: Path, address: str, seconds: int) -> Figures:
    protoset, data = folder / "protoset", folder / f"messages-{time.monotonic_ns()}"
    write_protoset(protoset, wire.DESCRIPTOR)
    messages = [
        wire.CheckRequest(input_json=json.dumps({"id": f"user-{number}"}).encode()).SerializeToString()
        for number in range(500)
    ]
    data.write_bytes(b"".join(varint(len(message)) + message for message in messages))
    command = (
        *(TOOLS / "ghz", "--insecure", "--protoset", protoset, "--call", "sark.pdp.v1.PolicyDecision/Check"),
        *("--binary-file", data, "--rps", RATE, "--concurrency", 20, "--connections", 2, "--cpus", 1),
        *("--duration", f"{seconds}s", "--duration-stop", "wait", "--format", "json", address),
    )
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *map(str, command)], capture_output=True, check=True, timeout=seconds + 120
    )
    report = json.loads(done.stdout)
    times = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"]}
    answered = report["statusCodeDistribution"].get("OK", 0)
    return {"calls": answered, "failed": report["count"] - answered, "p50_ms": times[50], "p99_ms": times[99]}


if __name__ == "__main__":
    main()
