"""What is measured of this repository: `sark-pdp serve` as a process of its own, and bare echo servers beneath it."""

import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from bench.loads import Certificates, Target
from bench.machine import ROOT, SERVER_CORE, TOOLS, free_port, running, wait_ready, wait_until
from bench.questions import COMPARED, EXT_AUTHZ, Api
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.opa import Opa

Settings: TypeAlias = Mapping[str, str]

POLICY = ROOT / "bench" / "policies" / "ext_authz"
NO_AUDIT: Settings = {"audit.spool_max_bytes": "0"}
AUDIT: Settings = {"audit.spool_max_bytes": "16GiB"}
NO_CACHE: Settings = {"cache.l1.size": "0"}

_SETTLE_SECONDS = 60


def nothing() -> None:
    """For a server that is at rest as soon as it has answered."""


class Server(Struct, frozen=True):
    """A running server that answers."""

    pid: int
    target: Target
    decides: bool = True
    """An echo does not."""
    counters: Callable[[], Mapping[str, float]] = dict
    """What it counted since its start; rounds are given the differences."""
    settle: Callable[[], None] = nothing
    """Returns when all is done that the answers so far have left to do."""


Start: TypeAlias = Callable[[Path], AbstractContextManager[Server]]
"""Starts a server whose files go to an empty folder, and stops it at the end."""


class Serving(Struct, frozen=True):
    """A `sark-pdp serve` that answers."""

    pid: int
    grpc: str
    metrics: str

    def samples(self) -> list[tuple[str, float]]:
        """Every series of `/metrics`, labels and all, with its value."""
        return scraped(self.metrics)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name with at least these labels."""
        return total(self.samples(), name, **labels)


def scraped(address: str) -> list[tuple[str, float]]:
    """Every series of `/metrics` of a process of ours, labels and all, with its value."""
    lines = [line for line in get(f"http://{address}/metrics").splitlines() if not line.startswith("#")]
    return [(series, float(value)) for series, _, value in (line.rpartition(" ") for line in lines)]


def total(samples: list[tuple[str, float]], name: str, **labels: str) -> float:
    """The sum of those of this name with at least these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for series, value in samples
        if re.split(r"[{ ]", series)[0] == name and all(pair in series for pair in wanted)
    )


@contextmanager
def serving(
    folder: Path, settings: Settings | None = None, core: int | str = SERVER_CORE, within: Sequence[str] = ()
) -> Iterator[Serving]:
    """`sark-pdp serve` on the default bundle, its state in the folder; exits the script where it does not start.

    `within` is what its command is started by, as a `CpuGroup` has it.
    """
    values = {
        "listen.grpc": f"127.0.0.1:{free_port()}",
        "listen.http": "",
        "listen.metrics": f"127.0.0.1:{free_port()}",
        "listen.admin": f"unix://{folder}/admin.sock",
        "state_dir": f"{folder}/state",
        **(settings or {}),
    }
    arguments = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    command = [*within, str(Path(sys.executable).parent / "sark-pdp"), "serve", *arguments]
    output = folder / "output"
    with running(command, core, output) as process:
        served = Serving(process.pid, values["listen.grpc"], values["listen.metrics"])
        wait_ready(process, lambda: is_ready(f"http://{served.metrics}/readyz"), output)
        yield served


def sidecar(
    api: Api,
    settings: Settings,
    *,
    bundle: Path | None = None,
    unix: bool = False,
    tls: Certificates | None = None,
    within: Sequence[str] = (),
) -> Start:
    """`sark-pdp serve` as something to send load to."""

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        chosen = dict(settings)
        if bundle is not None:
            chosen["policy.bundles"] = json.dumps([{"name": "bench", "path": str(bundle)}])
        if unix:
            chosen["listen.grpc"] = f"unix://{folder}/grpc.sock"
        if tls is not None:
            chosen |= {"tls.cert_file": str(tls.certificate), "tls.key_file": str(tls.key)}
            chosen |= {"tls.client_ca_file": str(tls.authority)} if tls.client else {}
        with serving(folder, chosen, within=within) as served:
            address = served.grpc.replace("unix://", "unix:")
            target = Target(address, api, tls)
            counters, settle = partial(_counters, served), partial(_until_drained, served)
            yield Server(served.pid, target, counters=counters, settle=settle)

    return start


def _counters(served: Serving) -> dict[str, float]:
    samples = served.samples()
    handled = total(samples, "grpc_server_handled_total")
    # A generator that stops after some seconds gives up the calls in flight.
    fine = [total(samples, "grpc_server_handled_total", grpc_code=code) for code in ("OK", "Canceled")]
    return {
        "l1_hits": total(samples, "sark_cache_hits_total", cache_name="l1"),
        "l1_misses": total(samples, "sark_cache_misses_total", cache_name="l1"),
        "decisions": total(samples, "sark_decisions_total"),
        "dropped": total(samples, "sark_audit_dropped_total"),
        "refused": handled - sum(fine),
    }


def _until_drained(served: Serving) -> None:
    what = "the audit queue was not drained"
    wait_until(lambda: served.metric("sark_audit_queue_depth") == 0, _SETTLE_SECONDS, what)


def echo(carrier: str) -> Start:
    """Gives back what it gets: `front` or `grpcio` without anything above."""

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        address, output = f"127.0.0.1:{free_port()}", folder / "output"
        with running([sys.executable, "-m", "bench.echo_server", carrier, address], SERVER_CORE, output) as process:
            target = Target(address, EXT_AUTHZ)
            wait_ready(process, lambda: answers(target), output)
            yield Server(process.pid, target, decides=False)

    return start


def answers(target: Target) -> bool:
    """Whether a question gets an answer now."""
    import grpc

    try:
        target.ask(COMPARED[0])
    except (grpc.RpcError, OSError, http.client.HTTPException):
        return False
    return True


def build_policy(folder: Path) -> Path:
    """The bundle of the load runs, built as `sark-pdp bundle build` does it."""
    output = folder / "bundle.tar.gz"
    opa = Opa(str(TOOLS / "opa"))
    build_bundle(POLICY, output, opa=opa, entrypoints=(), revision="bench", report=lambda _line: None)
    return output


def is_ready(url: str) -> bool:
    """Whether a page of ours is there, and good."""
    try:
        get(url)
    except (OSError, urllib.error.URLError):
        return False
    return True


def get(url: str) -> str:
    """A page of ours."""
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - of our own listener
        text: str = response.read().decode()
        return text
