"""A real Kubernetes API server and its etcd, on loopback, built from the modules of tests/kubernetes/apiserver.

No controllers and no kubelet run: pods stay Pending, a Deployment makes none, a deleted namespace stays Terminating.
So a test uses a namespace of its own, and tests may share the server.
"""

import contextlib
import json
import os
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.fix_authority import Authority

_PATIENCE = 100.0
"""Seconds for the start: a loaded machine takes twenty of them."""
_CALL = 60.0
"""Seconds for one call of a command."""
_ROOT = Path(__file__).parent.parent
_TOKEN = "token-of-the-tests"


class Cluster:
    """etcd and kube-apiserver, and kubectl as one of system:masters."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._names: dict[int, str] = {}
        self._authority = Authority(folder, "cluster")
        self.url = f"https://127.0.0.1:{_free_port()}"
        self.ca_file = self._authority.file
        self.kubeconfig = folder / "kubeconfig"
        """For kubectl and helm."""

    def start(self) -> None:
        """Returns when the API server is ready; whoever calls also calls `stop`, even after a failure."""
        etcd = f"http://127.0.0.1:{_free_port()}"
        self._start("etcd", *self._etcd_flags(etcd))
        self._start("kube-apiserver", *self._apiserver_flags(etcd))
        self._write_kubeconfig()
        deadline = time.monotonic() + _PATIENCE
        while not self._ready():
            for process in self._processes:
                assert process.poll() is None, f"{self._names[process.pid]} ended:\n{self._log(process)}"
            assert time.monotonic() < deadline, f"the API server is not ready:\n{self._log(self._processes[-1])}"
            time.sleep(0.1)

    @property
    def pids(self) -> list[int]:
        """Of etcd and of the API server."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """The API server first, as it would else complain of etcd."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def run(self, program: str, *arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        """kubectl or helm, with `given` on standard input."""
        return subprocess.run(
            [self._programs / program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=_CALL,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._folder),
                "KUBECONFIG": str(self.kubeconfig),
                # Nothing leaves loopback by way of a proxy.
                "NO_PROXY": "*",
            },
        )

    def kubectl(self, *arguments: str | Path, given: str = "") -> str:
        """What it prints; fails where it fails."""
        ended = self.run("kubectl", *arguments, given=given)
        assert ended.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {ended.stderr}"
        return ended.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """As `kubectl apply` does."""
        self.kubectl("apply", "--filename=-", given=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """One object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, f"--namespace={namespace}", "--output=json"))
        return found

    def namespace(self, labels: Mapping[str, str] = MappingProxyType({})) -> str:
        """A new one; its name."""
        name = f"test-{uuid4().hex[:12]}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}})
        return name

    def _start(self, program: str, *flags: str) -> None:
        path = self._programs / program
        if not os.access(path, os.X_OK):
            pytest.fail(f"{program} is not at {path}: run `make kubernetes`", pytrace=False)
        with (self._folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                [path, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )
        self._processes.append(process)
        self._names[process.pid] = program

    def _etcd_flags(self, url: str) -> list[str]:
        # Alone it talks to no peer, but listens for them.
        peer = f"http://127.0.0.1:{_free_port()}"
        return [
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        ]

    def _apiserver_flags(self, etcd: str) -> list[str]:
        certificate, key = self._authority.issue("apiserver")
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
        return [
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            # It keeps an endpoint for itself, which may not be on loopback.
            "--endpoint-reconciler-type=none",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            # The controller that makes the accounts which it asks for does not run.
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={certificate}",
            f"--service-account-signing-key-file={key}",
            "--enable-priority-and-fairness=false",
        ]

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))
        # Helm says otherwise that others could read it.
        self.kubeconfig.chmod(0o600)

    def _ready(self) -> bool:
        # kubectl alone would take long to find out that nobody listens.
        context = ssl.create_default_context(cafile=str(self.ca_file))
        handlers = (urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        with contextlib.suppress(OSError), opener.open(f"{self.url}/readyz", timeout=10):
            return self.run("kubectl", "get", "namespace", "default").returncode == 0
        return False

    def _log(self, process: subprocess.Popen[bytes]) -> str:
        return (self._folder / f"{self._names[process.pid]}.log").read_text()[-4000:]


def _free_port() -> int:
    # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
    from tests.fix_serve import free_port

    return free_port()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One for all tests, each of which uses a namespace of its own."""
    programs = Path(os.environ.get("KUBERNETES_BIN") or _ROOT / ".tools" / "bin")
    with tempfile.TemporaryDirectory(prefix="sark-kubernetes-") as folder:
        cluster = Cluster(Path(folder), programs)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
