"""The chart on a real API server: all of it is accepted, installed, upgraded and removed again, and its Job certifies.

There is no kubelet and no controller, so nothing of it runs here but what a test starts.
"""

import base64
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from sark_pdp.injector.api import Api
from sark_pdp.injector.authority import Plan, keep_valid
from tests.fix_chart import CHART, KUBE_VERSION, VALUES, finished_job, helm, pod_templates, render
from tests.fix_kubernetes import Cluster

PATIENCE = 100.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
OWN = "app.kubernetes.io/name=sark-pdp"
NAMESPACED = "configmap,secret,serviceaccount,role,rolebinding,service,deployment,job,cronjob,networkpolicy,pdb,hpa"
CLUSTER_WIDE = "clusterrole,clusterrolebinding,mutatingwebhookconfiguration"

pytestmark = pytest.mark.usefixtures("foreign_kinds")


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.namespace(RESTRICTED)


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_the_api_server_accepts_all_of_it(cluster: Cluster, namespace: str, values: Path) -> None:
    """As it would be stored: no field is unknown to it."""
    objects = render("--values", values, namespace=namespace)

    accepted = _dry_run(cluster, objects, namespace)
    assert accepted.returncode == 0, accepted.stderr
    assert accepted.stderr == ""
    assert len(accepted.stdout.splitlines()) == len(objects)


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_its_pods_satisfy_the_restricted_standard(cluster: Cluster, namespace: str, values: Path) -> None:
    """In a namespace that enforces it, where a pod that does not is refused, as the last assertion shows."""
    pods = []
    for number, template in enumerate(pod_templates(render("--values", values, namespace=namespace)).values()):
        metadata = {"name": f"pod-{number}", "namespace": namespace, "labels": template["metadata"]["labels"]}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})

    accepted = _dry_run(cluster, pods, namespace)
    assert accepted.returncode == 0, accepted.stderr
    pods[0]["spec"]["containers"][0]["securityContext"].pop("capabilities")
    assert "violates PodSecurity" in _dry_run(cluster, pods[:1], namespace).stderr


@pytest.mark.parametrize(
    ("release", "name"),
    [("x" * 53, "x" * 39), ("12345", "sark-pdp"), ("1e5", "sark-pdp")],
    ids=["longest", "digits", "number"],
)
def test_any_name_of_a_release_makes_names_that_are_accepted(
    cluster: Cluster, namespace: str, release: str, name: str
) -> None:
    """A CronJob's name has 52 letters at most; a label is a text, even of digits."""
    production = ("--values", CHART / "ci" / "production.yaml")
    for certificates in (["--set=certificates.mode=selfSigned", "--set=auditWriter.clientCertificates=false"], []):
        override = [] if name.startswith("x") else [f"--set=fullnameOverride={name}"]
        where = (f"--kube-version={KUBE_VERSION}", f"--namespace={namespace}")
        made = helm("template", release, CHART, *where, *production, *certificates, *override)
        assert made.returncode == 0, made.stderr
        objects = [each for each in yaml.safe_load_all(made.stdout) if each]

        accepted = _dry_run(cluster, made.stdout, namespace)
        assert (accepted.returncode, accepted.stderr) == (0, "")
        assert {each["metadata"]["name"][: len(name)] for each in objects} == {name}


def test_the_examples_are_accepted(cluster: Cluster, namespace: str) -> None:
    objects = list(yaml.safe_load_all((CHART / "examples" / "gateway.yaml").read_text()))

    accepted = _dry_run(cluster, objects, namespace)
    assert (accepted.returncode, accepted.stderr) == (0, "")


def test_installed_upgraded_and_removed(cluster: Cluster) -> None:
    """A hook Job migrates before each, and may reach its database; helm waits for it. Nothing stays behind."""
    namespace = cluster.namespace(RESTRICTED)
    values = ("--values", CHART / "ci" / "production.yaml", f"--namespace={namespace}", "--timeout=90s")
    kinds = f"{NAMESPACED},servicemonitor,podmonitor,certificate,issuer"

    for command in ("install", "upgrade"):
        with _finishing(cluster, namespace) as seen:
            done = cluster.run("helm", command, "sark-pdp", CHART, *values, f"--set=logLevel={_level(command)}")
        assert done.returncode == 0, done.stderr
        assert sorted(seen) == ["sark-pdp-migrate-audit", "sark-pdp-migrate-registry"]
        assert all("sark-pdp-migrations-hook" in policies for policies in seen.values())
        assert "Have a pod injected" in done.stdout
    stored = cluster.get("configmap", "sark-pdp-injector", namespace)
    assert yaml.safe_load(stored["data"]["injector.yaml"])["log"] == {"level": "warning"}
    assert len(_listed(cluster, kinds, namespace)) > 20

    removed = cluster.run("helm", "uninstall", "sark-pdp", f"--namespace={namespace}")
    assert removed.returncode == 0, removed.stderr
    assert _listed(cluster, kinds, namespace) == []
    assert _listed(cluster, CLUSTER_WIDE) == []


def test_the_job_certifies_and_an_upgrade_keeps_it(
    cluster: Cluster, namespace: str, sark_pdp: Path, tmp_path: Path
) -> None:
    """Run with its own arguments and the token of its own account: it may do what it must, and nothing else."""
    values = ("--values", CHART / "ci" / "self-signed-writer.yaml", f"--namespace={namespace}", "--timeout=90s")
    with _finishing(cluster, namespace):
        installed = cluster.run("helm", "install", "sark-pdp", CHART, *values)
    try:
        assert installed.returncode == 0, installed.stderr
        first = _run_job(cluster, namespace, sark_pdp, tmp_path)
        assert "an authority was made" in first
        secrets = {name: _secret(cluster, name, namespace) for name in _issued(namespace)}
        for name, host in _issued(namespace).items():
            assert _verified_for(secrets[name]) == host
        assert _bundles(cluster) == {secrets["sark-pdp-injector-tls"]["ca.crt"]}
        assert "ca.key" not in secrets["sark-pdp-injector-tls"]

        with _finishing(cluster, namespace):
            upgraded = cluster.run("helm", "upgrade", "sark-pdp", CHART, *values, "--set=logLevel=debug")
        assert upgraded.returncode == 0, upgraded.stderr
        again = _run_job(cluster, namespace, sark_pdp, tmp_path)
        assert again.count("nothing to do") == 4
        assert {name: _secret(cluster, name, namespace) for name in secrets} == secrets
        assert _bundles(cluster) == {secrets["sark-pdp-injector-tls"]["ca.crt"]}
    finally:
        cluster.run("helm", "uninstall", "sark-pdp", f"--namespace={namespace}")
    assert _listed(cluster, NAMESPACED, namespace) == []


def test_certificates_are_renewed_in_time_and_authorities_overlap(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """A certificate when a third is left; an authority a year before its end, when both are trusted for a while."""
    for name in ("authority", "web-tls"):
        metadata = {"name": name, "namespace": namespace}
        cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    token = tmp_path / "token"
    token.write_text("token-of-the-tests")
    api = Api(cluster.url, token, cluster.ca_file)

    def certified(now: datetime, *names: str) -> dict[str, str]:
        plan = Plan(namespace, "authority", {"web-tls": names or ("web.test.svc",)}, None, 90)
        keep_valid(api, plan, now, lambda _line: None)
        return _secret(cluster, "web-tls", namespace)

    start = datetime.now(UTC)
    first = certified(start)
    assert certified(start + timedelta(days=59)) == first
    renewed = certified(start + timedelta(days=61))
    assert renewed["tls.crt"] != first["tls.crt"]
    assert renewed["tls.key"] != first["tls.key"]
    assert renewed["ca.crt"] == first["ca.crt"]
    named = certified(start + timedelta(days=62), "web.test.svc", "other.test.svc")
    assert named["tls.crt"] != renewed["tls.crt"]

    late = certified(start + timedelta(days=3650 - 300))
    authorities = x509.load_pem_x509_certificates(late["ca.crt"].encode())
    assert len(authorities) == 2
    x509.load_pem_x509_certificate(late["tls.crt"].encode()).verify_directly_issued_by(authorities[0])
    assert late["ca.crt"].endswith(first["ca.crt"])
    after = certified(start + timedelta(days=3651))
    assert len(x509.load_pem_x509_certificates(after["ca.crt"].encode())) == 1


def _dry_run(cluster: Cluster, objects: list[dict[str, Any]] | str, namespace: str) -> subprocess.CompletedProcess[str]:
    """Of objects, or of the text that helm made."""
    flags = ("--dry-run=server", "--validate=strict", f"--namespace={namespace}", "--filename=-")
    given = objects if isinstance(objects, str) else yaml.safe_dump_all(objects)
    return cluster.run("kubectl", "apply", *flags, given=given)


@contextmanager
def _finishing(cluster: Cluster, namespace: str) -> Iterator[dict[str, str]]:
    """Meanwhile every hook Job ends well; by their names, the network policies that were there."""
    seen: dict[str, str] = {}
    over = threading.Event()

    def finish() -> None:
        deadline = time.monotonic() + PATIENCE
        while not over.wait(0.2) and time.monotonic() < deadline:
            jobs = json.loads(cluster.kubectl("get", "job", f"--namespace={namespace}", "--output=json"))["items"]
            for job in jobs:
                hook = "helm.sh/hook" in job["metadata"].get("annotations", {})
                if hook and not job.get("status", {}).get("completionTime"):
                    policies = cluster.kubectl("get", "networkpolicy", f"--namespace={namespace}", "--output=name")
                    finished_job(cluster, job["metadata"]["name"], namespace)
                    seen[job["metadata"]["name"]] = policies

    thread = threading.Thread(target=finish)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _run_job(cluster: Cluster, namespace: str, sark_pdp: Path, folder: Path) -> str:
    """What the container of the CronJob would print."""
    template = pod_templates([cluster.get("cronjob", "sark-pdp-certificates", namespace)])
    (spec,) = (each["spec"] for each in template.values())
    token = folder / "token"
    token.write_text(cluster.kubectl("create", "token", spec["serviceAccountName"], f"--namespace={namespace}"))
    own = [f"--url={cluster.url}", f"--token-file={token}", f"--ca-file={cluster.ca_file}"]
    ended = subprocess.run(
        [sark_pdp, *spec["containers"][0]["args"], *own], capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 0, ended.stderr
    refused = subprocess.run(
        [sark_pdp, "certificates", f"--namespace={namespace}", "--authority=another", "--issue=x=y", *own],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (refused.returncode, "403" in refused.stderr) == (2, True), refused.stderr
    return ended.stdout


def _issued(namespace: str) -> dict[str, str]:
    return {
        f"sark-pdp-{component}-tls": f"sark-pdp-{component}.{namespace}.svc"
        for component in ("injector", "audit-writer")
    }


def _secret(cluster: Cluster, name: str, namespace: str) -> dict[str, str]:
    data = cluster.get("secret", name, namespace)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _verified_for(secret: dict[str, str]) -> str:
    """The name that OpenSSL, which has to trust `ca.crt` alone, takes the certificate for."""
    context = ssl.create_default_context(cadata=secret["ca.crt"])
    assert len(context.get_ca_certs()) == 1
    certificate = x509.load_pem_x509_certificate(secret["tls.crt"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(secret["ca.crt"].encode()))
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = found.get_values_for_type(x509.DNSName)
    return name


def _bundles(cluster: Cluster) -> set[str]:
    webhooks = cluster.get("mutatingwebhookconfiguration", "sark-pdp-injector")["webhooks"]
    return {base64.b64decode(each["clientConfig"]["caBundle"]).decode() for each in webhooks}


def _level(command: str) -> str:
    return "info" if command == "install" else "warning"


def _listed(cluster: Cluster, kinds: str, namespace: str | None = None) -> list[str]:
    where = [] if namespace is None else [f"--namespace={namespace}"]
    return cluster.kubectl("get", kinds, f"--selector={OWN}", "--output=name", *where).splitlines()
