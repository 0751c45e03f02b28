"""The containers that the injector adds, run as a kubelet would: the sidecar, the app's commands, and Envoy."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from tests.fix_envoy import Upstream
from tests.fix_injector import StartInjector, answer_of, review_of
from tests.fix_serve import free_port

PATIENCE = 60.0
DEVELOPER = {"action": "tool:invoke", "user": {"id": "bob", "roles": ["developer"]}, "tool": {"name": "search_code"}}


class Pod:
    """An injected pod whose volumes are folders, and whose network is loopback."""

    def __init__(self, stored: dict[str, Any], folder: Path) -> None:
        self._folders = {"/run/sark-pdp": folder / "run", "/var/lib/sark-pdp": folder / "state"}
        for each in self._folders.values():
            each.mkdir()
        spec = stored["spec"]
        self.sidecar, self.envoy = spec["initContainers"]
        (self.app,) = spec["containers"]

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """What a process in it finds, and no home, as a user whom the image does not know."""
        fields = {"metadata.name": "web-1", "metadata.namespace": "team"}
        found: dict[str, str] = {}
        for variable in container["env"]:
            value = variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            value = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
            found[variable["name"]] = self.here(value)
        return {"PATH": os.environ["PATH"], "HOME": "/", **found}

    def here(self, text: str) -> str:
        """With the folders of this test, and nothing that others could reach."""
        for path, folder in self._folders.items():
            text = text.replace(path, str(folder))
        return text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (taken out)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """The app."""
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def pod(start_injector: StartInjector, upstream: Upstream, short_dir: Path) -> Pod:
    injector = start_injector({"sidecar.envoy_image": "envoy:1"})
    annotations = {
        "sark.io/inject": "true",
        "sark.io/envoy": "true",
        "sark.io/envoy-port": str(free_port()),
        "sark.io/metrics-port": str(free_port()),
        "sark.io/log-level": "warning",
    }
    containers = [{"name": "app", "image": "app:1", "ports": [{"containerPort": upstream.server_port}]}]
    created = {"metadata": {"name": "web-1", "annotations": annotations}, "spec": {"containers": containers}}
    response = answer_of(injector.ask(review_of(created))[1])
    return Pod(jsonpatch.apply_patch(created, response["patch"]), short_dir)


@contextlib.contextmanager
def running(command: list[str | Path], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def ask(port: int, method: str, path: str, user: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"x-sark-user": user, "content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_the_injected_sidecar_serves_the_app_and_envoy(
    pod: Pod, sark_pdp: Path, envoy: Path, upstream: Upstream, tmp_path: Path
) -> None:
    """With nothing but what was injected: no file of settings, no home, no flags."""
    inside = pod.environment(pod.sidecar)
    port = pod.envoy["ports"][0]["containerPort"]
    assert pod.sidecar["command"] == ["sark-pdp", "serve"]
    with running([sark_pdp, "serve"], inside, tmp_path / "sidecar") as sidecar:
        ready = subprocess.run([sark_pdp, "ready", "--wait", "60s"], env=inside, capture_output=True, text=True)
        assert ready.returncode == 0, ready.stderr + (tmp_path / "sidecar").read_text()
        checked = subprocess.run(
            [sark_pdp, "check", "--input", json.dumps(DEVELOPER)],
            env=pod.environment(pod.app),
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stderr

        arguments = [pod.here(argument) for argument in pod.envoy["args"]]
        with running([envoy, *arguments], {"PATH": os.environ["PATH"]}, tmp_path / "envoy") as proxy:
            _wait_listening(port, proxy, tmp_path / "envoy")
            call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "drop_database"}}

            assert ask(port, "GET", "/health", "nobody")[0] == 200
            assert ask(port, "GET", "/orders", "nobody")[0] == 403
            assert upstream.reached == 1
            # The body is shown to the policy, or the message could not be refused by name.
            refused = ask(port, "POST", "/mcp", "bob", json.dumps(call).encode())[1]
            assert b"refused by policy" in refused
            assert upstream.reached == 1
    assert sidecar.returncode == 0
    spool = pod.here("/var/lib/sark-pdp/audit")
    listed = subprocess.run([sark_pdp, "audit", "list", "--spool", spool, "--json"], capture_output=True, text=True)
    sources = {json.loads(line)["source"].rpartition("/")[0] for line in listed.stdout.splitlines()}
    assert sources == {"web-1.team"}


def _wait_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
