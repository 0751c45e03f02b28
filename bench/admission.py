"""How long the API server waits for the injector: 1,000 admission reviews over HTTPS, each answer a patch.

`python -m bench.admission [--reviews N] [--json FILE]`; exits with 1 where the p99 is 20 ms or more.

The pods are those of a Deployment: a small one, one of three containers with forty variables each, and one with Envoy,
in turns. Reviews come one after another over a connection that stays open, as the API server's do, and then eight at a
time over as many connections. The time begins before a review is written and ends when its answer was read.
"""

import argparse
import contextlib
import http.client
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from bench.certificates import make_certificates
from bench.figures import write_json
from bench.machine import LOAD_CORE, SERVER_CORE, describe, free_port, resident_mib, running, take_load_core, wait_ready

PROMISED_MS: Final = 20.0
_AT_ONCE: Final = 8
_WARM_UP: Final = 50
_PATIENCE: Final = 30.0


class Taken(Struct, frozen=True):
    """Milliseconds, ascending."""

    times: Sequence[float]

    def percentile(self, share: float) -> float:
        """The time within which this share of the answers came."""
        return self.times[min(len(self.times) - 1, int(share * len(self.times)))]


def _pod(containers: int, variables: int, **annotations: str) -> dict[str, Any]:
    """As a ReplicaSet makes it, with what the API server has added by the time it asks."""
    made = [
        {
            "name": f"app-{number}",
            "image": "registry.example/team/app:1.2.3",
            "ports": [{"containerPort": 8080, "protocol": "TCP"}] if not number else [],
            "env": [{"name": f"SETTING_{index}", "value": "some value of it"} for index in range(variables)],
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        }
        for number in range(containers)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-5d4c9b7f8-",
            "labels": {"app": "web", "pod-template-hash": "5d4c9b7f8"},
            "annotations": {"sark.io/inject": "true", **annotations},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4c9b7f8", "uid": "1", "controller": True}
            ],
        },
        "spec": {
            "containers": made,
            "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": []}}],
            "serviceAccountName": "default",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
        },
    }


def reviews() -> list[bytes]:
    """The bodies, which are asked in turns."""
    pods = (_pod(1, 3), _pod(3, 40), _pod(1, 10, **{"sark.io/envoy": "true"}))
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    return [
        msgspec.json.encode(
            {
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "request": {"uid": "1", "kind": kind, "operation": "CREATE", "namespace": "team", "object": pod},
            }
        )
        for pod in pods
    ]


class Asking:
    """One connection of an API server."""

    def __init__(self, port: int, authority: Path) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_PATIENCE, context=context)

    def ask(self, body: bytes) -> float:
        """Milliseconds. Exits where the answer is no patch."""
        began = time.perf_counter()
        self._connection.request("POST", "/inject", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != HTTPStatus.OK or b'"patch"' not in text:
            raise SystemExit(f"the injector answers {answer.status}: {text[:300]!r}")
        return took

    def close(self) -> None:
        """For good."""
        self._connection.close()


def measure(port: int, authority: Path, count: int, at_once: int) -> Taken:
    """So many reviews, of which so many are asked at the same time."""
    bodies = reviews()

    def ask(asking: Asking) -> list[float]:
        for index in range(_WARM_UP):
            asking.ask(bodies[index % len(bodies)])
        return [asking.ask(bodies[index % len(bodies)]) for index in range(count // at_once)]

    with contextlib.ExitStack() as open_ones:
        asking = [Asking(port, authority) for _ in range(at_once)]
        for each in asking:
            open_ones.callback(each.close)
        pool = open_ones.enter_context(ThreadPoolExecutor(at_once))
        return Taken(sorted(took for times in pool.map(ask, asking) for took in times))


@contextlib.contextmanager
def injector(folder: Path) -> Iterator[tuple[int, Path, int]]:
    """A process on the server's core: its port, who signed its certificate, and its pid."""
    certificates = make_certificates(folder / "certificates", client=False)
    port, metrics = free_port(), free_port()
    settings = {
        "listen.webhook": f"127.0.0.1:{port}",
        "listen.metrics": f"127.0.0.1:{metrics}",
        "tls.cert_file": str(certificates.certificate),
        "tls.key_file": str(certificates.key),
        "sidecar.image": "registry.example/sark-pdp:0.1.0",
        "sidecar.envoy_image": "registry.example/envoy:1.40",
        "inject.events": "false",
    }
    command = [".venv/bin/sark-pdp", "injector", *(f"--set={key}={value}" for key, value in settings.items())]
    output = folder / "output"

    def ready() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", metrics, timeout=_PATIENCE)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        return False

    with running(command, SERVER_CORE, output) as process:
        wait_ready(process, ready, output)
        yield port, certificates.authority, process.pid


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=1000, metavar="N", help="[1000]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    take_load_core()
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as name, injector(Path(name)) as (port, authority, pid):
        alone = measure(port, authority, options.reviews, 1)
        together = measure(port, authority, options.reviews, _AT_ONCE)
        memory = resident_mib(pid)
    raise SystemExit(_report(alone, together, memory, options.json))


def _report(alone: Taken, together: Taken, memory: float, file: Path | None) -> int:
    """Prints; 1 where the promise is not kept."""
    figures = {
        name: {"p50": statistics.median(taken.times), "p99": taken.percentile(0.99), "longest": taken.times[-1]}
        for name, taken in (("one at a time", alone), (f"{_AT_ONCE} at a time", together))
    }
    for name, taken in figures.items():
        print(f"{name}: {', '.join(f'{key} {value:.1f} ms' for key, value in taken.items())}")
    print(f"resident memory: {memory:.1f} MiB")
    write_json(file, {"machine": describe(), "core of the reviews": LOAD_CORE, "ms": figures, "memory MiB": memory})
    if alone.percentile(0.99) >= PROMISED_MS:
        print(f"not kept: the p99 of reviews that come one at a time is not below {PROMISED_MS:g} ms")
        return 1
    return 0


if __name__ == "__main__":
    main()
