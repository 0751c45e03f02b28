"""The injector in a cluster: other webhooks, security standards, trials, events, and pods while it is away."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fix_authority import Authority
from tests.fix_injector import LABEL, PATIENCE, Injector, StartInjector, wait_asked, webhook
from tests.fix_kubernetes import Cluster

ASKS = {"sark.io/inject": "true"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_of(name: str = "app", annotations: Mapping[str, str] = ASKS, **spec: Any) -> dict[str, Any]:
    whole = {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app:1"}], **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations)},
        "spec": whole,
    }


def create(cluster: Cluster, namespace: str, pod: Mapping[str, Any], *flags: str) -> dict[str, Any]:
    text = cluster.kubectl("create", f"--namespace={namespace}", "-ojson", "-f-", *flags, given=json.dumps(pod))
    made: dict[str, Any] = json.loads(text)
    return made


def refusal(cluster: Cluster, namespace: str, pod: Mapping[str, Any], *flags: str) -> str:
    ended = cluster.run("kubectl", "create", f"--namespace={namespace}", "-f-", *flags, given=json.dumps(pod))
    assert ended.returncode != 0, ended.stdout
    return ended.stderr


def names(pod: Mapping[str, Any], kind: str = "initContainers") -> list[str]:
    return [container["name"] for container in pod["spec"].get(kind, ())]


@pytest.mark.parametrize("variant", ["default", "container"])
def test_a_pod_of_the_restricted_standard_stays_one(
    variant: str, cluster: Cluster, injectors: Mapping[str, Injector]
) -> None:
    """The API server itself applies the standard to what was injected, Envoy included."""
    namespace = cluster.namespace({LABEL: variant, "pod-security.kubernetes.io/enforce": "restricted"})
    containers = [{"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}], "securityContext": RESTRICTED}]
    annotations = {**ASKS, "sark.io/envoy": "true"} if variant == "default" else ASKS
    careless = pod_of("careless", {})

    made = create(cluster, namespace, pod_of("app", annotations, containers=containers))

    assert injectors[variant].probe("/readyz")[0] == 200
    assert "sark-pdp" in names(made) + names(made, "containers")
    assert ("sark-envoy" in names(made)) == (variant == "default")
    # The standard is enforced in this namespace: somebody else's pod is refused.
    assert 'violates PodSecurity "restricted' in refusal(cluster, namespace, careless)


def test_a_pod_that_is_nearly_too_large_for_the_cluster_is_injected(
    cluster: Cluster, injectors: Mapping[str, Injector]
) -> None:
    namespace = cluster.namespace({LABEL: "default"})
    containers = [
        {"name": f"c{number}", "image": "app:1", "env": [{"name": f"V{i}", "value": "x" * 400} for i in range(100)]}
        for number in range(25)
    ]
    size = len(json.dumps(containers))

    made = create(cluster, namespace, pod_of(containers=containers), "--dry-run=server")

    assert size > 1_000_000
    assert names(made) == ["sark-pdp"]
    assert all(each["env"][-1]["name"] == "SARK_PDP_ADDRESS" for each in made["spec"]["containers"])
    assert injectors["default"].probe("/readyz")[0] == 200


def test_a_container_for_looking_into_a_pod_can_still_be_added(
    cluster: Cluster, injectors: Mapping[str, Injector]
) -> None:
    """An ephemeral container is an update, which the webhook is not asked about."""
    namespace = cluster.namespace({LABEL: "default"})
    made = create(cluster, namespace, pod_of())

    cluster.kubectl("debug", f"--namespace={namespace}", "app", "--image=tools:1", "--container=look", "--attach=false")
    looked_into = cluster.get("pod", "app", namespace)

    assert injectors["default"].probe("/readyz")[0] == 200
    assert names(looked_into, "ephemeralContainers") == ["look"]
    assert looked_into["spec"]["initContainers"] == made["spec"]["initContainers"]
    assert looked_into["spec"]["containers"] == made["spec"]["containers"]


class _Adder(ThreadingHTTPServer):
    """Another webhook, which adds a container to each pod that has none of that name."""

    daemon_threads = True

    def __init__(self, authority: Authority) -> None:
        super().__init__(("127.0.0.1", 0), _AddsContainer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("adder"))
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _AddsContainer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # the name that the server looks for
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = review.pop("request")
        response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        if "late" not in [each["name"] for each in request["object"]["spec"]["containers"]]:
            patch = [{"op": "add", "path": "/spec/containers/-", "value": {"name": "late", "image": "late:1"}}]
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        body = json.dumps({**review, "response": response}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the signature of the base class
        """Keeps standard error for what went wrong."""


@pytest.fixture
def adder(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The label of namespaces whose pods the other webhook changes, after the injector: by its name."""
    authority = Authority(tmp_path)
    server = _Adder(authority)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "zz-adder"},
        "webhooks": [
            {
                "name": "container.adder.test",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{server.server_port}/",
                    "caBundle": base64.b64encode(authority.file.read_bytes()).decode(),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"test-adder": "true"}},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    cluster.apply(configuration)
    yield "test-adder"
    cluster.kubectl("delete", "mutatingwebhookconfiguration", "zz-adder")
    server.shutdown()
    server.server_close()


def test_a_container_that_another_webhook_adds_is_given_the_socket(
    cluster: Cluster, injectors: Mapping[str, Injector], adder: str
) -> None:
    """The API server asks again, and what is there already is not added twice."""
    namespace = cluster.namespace({LABEL: "default", adder: "true"})
    deadline = time.monotonic() + PATIENCE
    while "late" not in names(create(cluster, namespace, pod_of(annotations={}), "--dry-run=server"), "containers"):
        assert time.monotonic() < deadline
    reviews = 'sark_injector_reviews_total{outcome="injected"}'
    before = injectors["default"].metric(reviews)

    made = create(cluster, namespace, pod_of())
    late = made["spec"]["containers"][1]

    assert injectors["default"].metric(reviews) == before + 2
    assert names(made) == ["sark-pdp"]
    assert names(made, "containers") == ["app", "late"]
    assert late["env"] == made["spec"]["containers"][0]["env"]
    assert late["volumeMounts"] == made["spec"]["containers"][0]["volumeMounts"]
    assert len(made["spec"]["volumes"]) == 3


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_while_no_injector_answers_the_failure_policy_decides(
    policy: str, cluster: Cluster, start_injector: StartInjector
) -> None:
    """About pods that want a sidecar; nobody else notices."""
    name = f"down-{policy.lower()}"
    injector = start_injector()
    cluster.apply(webhook(injector, name, failurePolicy=policy))
    try:
        namespace = cluster.namespace({LABEL: name})
        wait_asked(cluster, namespace)
        before = create(cluster, namespace, pod_of("before"))
        injector.stop()

        if policy == "Fail":
            assert 'failed calling webhook "pod.sark.io"' in refusal(cluster, namespace, pod_of("after"))
        else:
            assert names(create(cluster, namespace, pod_of("after"))) == []

        assert names(before) == ["sark-pdp"]
        assert names(create(cluster, namespace, pod_of("other", {}))) == []
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", f"test-{name}")


@pytest.fixture(scope="module")
def account(cluster: Cluster) -> Path:
    """A token of a service account that may do what docs/injector.md says, and no more."""
    namespace = cluster.namespace()
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "injector", "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "test-injector"},
            "rules": [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "test-injector"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-injector"},
            "subjects": [{"kind": "ServiceAccount", "name": "injector", "namespace": namespace}],
        },
    )
    token = cluster.kubeconfig.parent / "injector.token"
    token.write_text(cluster.kubectl("create", "token", "injector", f"--namespace={namespace}"))
    return token


def _reporting(cluster: Cluster, account: Path, **settings: object) -> dict[str, object]:
    return {
        "inject.events": True,
        "kubernetes.url": cluster.url,
        "kubernetes.token_file": str(account),
        "kubernetes.ca_file": str(cluster.ca_file),
        **settings,
    }


def _events(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "events", f"-n{namespace}", "-ojson"))["items"]
    return found


def _wait_events(cluster: Cluster, namespace: str, number: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE
    while len(found := _events(cluster, namespace)) < number:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_refused_pod_is_an_event_on_what_made_it_and_a_trial_is_none(
    cluster: Cluster, account: Path, start_injector: StartInjector
) -> None:
    injector = start_injector(_reporting(cluster, account))
    cluster.apply(webhook(injector, "events"))
    try:
        namespace = cluster.namespace({LABEL: "events"})
        wait_asked(cluster, namespace)
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "6f5d1f4e-1", "controller": True}
        trial = pod_of("app", {**ASKS, "sark.io/log-level": "trial"})
        owned = pod_of("web-1", {**ASKS, "sark.io/log-level": "loud"})
        owned["metadata"]["ownerReferences"] = [owner]
        bare = pod_of("bare", {**ASKS, "sark.io/log-level": "shrill"})

        refusal(cluster, namespace, trial, "--dry-run=server")
        refusal(cluster, namespace, owned)
        # Again and again, as controllers do.
        refusal(cluster, namespace, owned)
        refusal(cluster, namespace, bare)
        first, second = sorted(_wait_events(cluster, namespace, 2), key=lambda event: event["involvedObject"]["kind"])

        # They are sent one after another: what came before these is there or will never be.
        assert len(_events(cluster, namespace)) == 2
        assert (first["involvedObject"]["kind"], first["involvedObject"]["name"]) == ("Pod", "bare")
        assert 'annotation sark.io/log-level: "shrill" is unknown' in first["message"]
        assert second["involvedObject"]["name"] == "web"
        assert {event["reason"] for event in (first, second)} == {"SidecarRefused"}
        assert {event["type"] for event in (first, second)} == {"Warning"}
        assert injector.metric('sark_injector_events_total{result="sent"}') == 2
        assert injector.metric('sark_injector_events_total{result="repeated"}') == 1
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", "test-events")


def test_a_pod_that_is_let_through_without_a_sidecar_is_an_event(
    cluster: Cluster, account: Path, start_injector: StartInjector
) -> None:
    injector = start_injector(_reporting(cluster, account, **{"inject.on_failure": "admit"}))
    cluster.apply(webhook(injector, "admitted"))
    try:
        namespace = cluster.namespace({LABEL: "admitted"})
        wait_asked(cluster, namespace)

        made = create(cluster, namespace, pod_of("app", {**ASKS, "sark.io/log-level": "loud"}))
        (event,) = _wait_events(cluster, namespace, 1)

        assert names(made) == []
        assert (event["reason"], event["involvedObject"]["name"]) == ("SidecarNotInjected", "app")
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", "test-admitted")


@pytest.mark.parametrize("trouble", ["forbidden", "away"])
def test_pods_are_answered_while_the_cluster_cannot_be_told(
    trouble: str, cluster: Cluster, tmp_path: Path, start_injector: StartInjector
) -> None:
    token = tmp_path / "token"
    token.write_text("nobody's")
    away = {"kubernetes.url": "https://127.0.0.1:1"} if trouble == "away" else {}
    injector = start_injector(_reporting(cluster, token, **away))
    cluster.apply(webhook(injector, f"trouble-{trouble}"))
    try:
        namespace = cluster.namespace({LABEL: f"trouble-{trouble}"})
        wait_asked(cluster, namespace)

        message = refusal(cluster, namespace, pod_of("app", {**ASKS, "sark.io/log-level": "loud"}))
        deadline = time.monotonic() + PATIENCE
        while not injector.metric('sark_injector_events_total{result="failed"}'):
            assert time.monotonic() < deadline
            time.sleep(0.05)

        assert "is unknown; expected debug" in message
        assert names(create(cluster, namespace, pod_of("other"))) == ["sark-pdp"]
        assert ("Unauthorized" in injector.log) == (trouble == "forbidden")
        assert _events(cluster, namespace) == []
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", f"test-trouble-{trouble}")
