"""`sark-pdp injector` as a real process, and the webhook of docs/injector.md that makes an API server ask it."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest
import yaml

from tests.fix_authority import Authority

if TYPE_CHECKING:
    # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
    from tests.fix_kubernetes import Cluster

PATIENCE = 60.0
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "default": {"sidecar.envoy_image": "registry.example/envoy:test"},
    "admit": {"inject.on_failure": "admit"},
    "container": {"sidecar.mode": "container"},
    "host": {"sidecar.host_network": True},
}
"""Settings of the injectors that tests share."""
LABEL = "test-injector"
"""Of a namespace: the variant that is asked about its pods."""

_DOCUMENTATION = Path(__file__).parents[1] / "docs" / "injector.md"


class Injector:
    """One process, with a certificate of its own."""

    def __init__(self, command: Path, folder: Path, settings: Mapping[str, object]) -> None:
        """`settings` have dotted keys; values that are no strings are given as JSON."""
        from tests.fix_serve import free_port

        self.authority = Authority(folder)
        certificate, key = self.authority.issue("injector")
        self.settings: dict[str, object] = {
            "listen.webhook": f"127.0.0.1:{free_port()}",
            "listen.metrics": f"127.0.0.1:{free_port()}",
            "tls.cert_file": str(certificate),
            "tls.key_file": str(key),
            "sidecar.image": "registry.example/sark-pdp:test",
            "inject.events": False,
            **settings,
        }
        self.folder, self._command = folder, command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the webhook, without a path."""
        return f"https://{self.settings['listen.webhook']}"

    @property
    def log(self) -> str:
        """What it printed and logged."""
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """Returns when it is ready."""
        arguments = [
            f"--set={key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in self.settings.items()
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SARK_PDP_")}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, "injector", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + PATIENCE
        while self.probe("/readyz")[0] != HTTPStatus.OK:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def probe(self, path: str) -> tuple[int, str]:
        """Status and body of a path of listen.metrics; 0 where nobody answers."""
        connection = http.client.HTTPConnection(str(self.settings["listen.metrics"]), timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """One sample, with its labels as they are shown."""
        lines = self.probe("/metrics")[1].splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    def connect(self, client: tuple[Path, Path] | None = None) -> http.client.HTTPSConnection:
        """As the API server does; the caller closes it."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        if client is not None:
            context.load_cert_chain(*client)
        return http.client.HTTPSConnection(self.url.partition("//")[2], timeout=PATIENCE, context=context)

    def ask(self, body: bytes, path: str = "/inject") -> tuple[int, bytes]:
        """Status and body of one review, on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def stop(self) -> int:
        """Ends it as an orchestrator does; the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


def webhook(injector: Injector, name: str, **changes: object) -> dict[str, Any]:
    """What docs/injector.md has, for namespaces with the label `test-injector: NAME`, asking this process."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", _DOCUMENTATION.read_text(), re.MULTILINE | re.DOTALL)
    documents = (document for block in blocks for document in yaml.safe_load_all(block))
    configuration: dict[str, Any] = next(
        document for document in documents if document.get("kind") == "MutatingWebhookConfiguration"
    )
    configuration["metadata"]["name"] = f"test-{name}"
    bundle = base64.b64encode(injector.authority.file.read_bytes()).decode()
    for each in configuration["webhooks"]:
        path = each["clientConfig"]["service"]["path"]
        each["clientConfig"] = {"url": f"{injector.url}{path}", "caBundle": bundle}
        each["namespaceSelector"]["matchExpressions"].append({"key": LABEL, "operator": "In", "values": [name]})
        each.update(changes)
    return configuration


def wait_asked(cluster: "Cluster", namespace: str) -> None:
    """Until the API server knows the webhook for pods of this namespace: it hears of it a little later."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "first", "namespace": namespace, "annotations": {"sark.io/inject": "true"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }
    deadline = time.monotonic() + PATIENCE
    while True:
        made = cluster.run("kubectl", "create", "--dry-run=server", "-ojson", "-f-", given=json.dumps(pod))
        # Refused by it, or by the API server for it, or injected.
        if made.returncode or "initContainers" in made.stdout or "sark-pdp" in made.stdout:
            return
        assert time.monotonic() < deadline, made
        time.sleep(0.05)


def review_of(pod: Mapping[str, Any], namespace: str = "default", **request: object) -> bytes:
    """The question whether this pod may be created."""
    asked = {
        "uid": "1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": namespace,
        "object": pod,
        **request,
    }
    return msgspec.json.encode({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked})


def answer_of(body: bytes) -> dict[str, Any]:
    """The response of a review, its patch decoded."""
    response: dict[str, Any] = json.loads(body)["response"]
    if "patch" in response:
        response["patch"] = json.loads(base64.b64decode(response["patch"]))
    return response


StartInjector: TypeAlias = Callable[..., Injector]


@pytest.fixture
def start_injector(sark_pdp: Path) -> Iterator[StartInjector]:
    """Starts one of the test's own, with the settings that it gives. What still runs must then stop with 0."""
    with contextlib.ExitStack() as running:

        def start(settings: Mapping[str, object] | None = None) -> Injector:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sark-injector-")))
            injector = Injector(sark_pdp, folder, settings or {})
            running.callback(_finish, injector)
            injector.start()
            return injector

        yield start


@pytest.fixture(scope="session")
def injectors(sark_pdp: Path, cluster: "Cluster") -> Iterator[Mapping[str, Injector]]:
    """One of each variant, which the API server asks about namespaces with that label."""
    with contextlib.ExitStack() as running:
        started: dict[str, Injector] = {}
        for name, settings in VARIANTS.items():
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sark-injector-")))
            started[name] = injector = Injector(sark_pdp, folder, settings)
            running.callback(_finish, injector)
            injector.start()
            cluster.apply(webhook(injector, name))
            # A webhook whose process is gone would refuse pods of its namespaces.
            running.callback(cluster.kubectl, "delete", "mutatingwebhookconfiguration", f"test-{name}")
        for name in started:
            wait_asked(cluster, cluster.namespace({LABEL: name}))
        yield started


def _finish(injector: Injector) -> None:
    code = injector.stop()
    assert code == 0, f"sark-pdp injector ended with {code}:\n{injector.log}"
