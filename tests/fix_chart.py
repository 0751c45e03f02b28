"""The chart: what helm renders of it, with each of its files of values."""

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.fix_kubernetes import Cluster

CHART = Path(__file__).parents[1] / "charts" / "sark-pdp"
VALUES = sorted((CHART / "ci").glob("*.yaml"))
KUBE_VERSION = "1.34.2"
"""Of tests/kubernetes/apiserver, for what is rendered without asking it."""
_HELM = Path(__file__).parents[1] / ".tools" / "bin" / "helm"


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Without a cluster."""
    return subprocess.run([_HELM, *arguments], capture_output=True, text=True, timeout=60)


def render(*arguments: str | Path, namespace: str = "sark-pdp") -> list[dict[str, Any]]:
    """What would be installed as the release `sark-pdp`, hooks too; fails where helm does."""
    made = helm("template", "sark-pdp", CHART, f"--kube-version={KUBE_VERSION}", f"--namespace={namespace}", *arguments)
    assert made.returncode == 0, made.stderr
    return [document for document in yaml.safe_load_all(made.stdout) if document]


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one of this kind and name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def settings_of(objects: list[dict[str, Any]], component: str, file: str = "") -> dict[str, Any]:
    """What a process or the injected sidecars are told."""
    config = find(objects, "ConfigMap", f"sark-pdp-{component}")
    found: dict[str, Any] = yaml.safe_load(config["data"][file or f"{component}.yaml"])
    return found


def pod_templates(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of everything that makes pods, by the name of what does."""
    found: dict[str, dict[str, Any]] = {}
    for each in objects:
        spec = each.get("spec") or {}
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if each["kind"] in {"Deployment", "Job", "CronJob"}:
            found[f"{each['kind']} {each['metadata']['name']}"] = spec["template"]
    return found


@pytest.fixture(scope="session")
def foreign_kinds(cluster: "Cluster") -> None:
    """Definitions of what cert-manager and the Prometheus Operator bring; only that there are such kinds."""
    kinds = {
        "cert-manager.io/v1": ("Certificate", "Issuer"),
        "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule", "ServiceMonitor"),
    }
    names = []
    for version, members in kinds.items():
        group, _, number = version.partition("/")
        for kind in members:
            plural = f"{kind.lower()}s"
            names.append(f"{plural}.{group}")
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            schema = {"type": "object", "required": ["spec"], "properties": {"spec": anything}}
            cluster.apply(
                {
                    "apiVersion": "apiextensions.k8s.io/v1",
                    "kind": "CustomResourceDefinition",
                    "metadata": {"name": f"{plural}.{group}"},
                    "spec": {
                        "group": group,
                        "scope": "Namespaced",
                        "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
                        "versions": [
                            {"name": number, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                        ],
                    },
                }
            )
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", *names)


def finished_job(cluster: "Cluster", name: str, namespace: str) -> None:
    """Says of a Job what its controller would when its pod has ended well."""
    now = cluster.get("job", name, namespace)["metadata"]["creationTimestamp"]
    true = {"status": "True", "lastProbeTime": now, "lastTransitionTime": now}
    status = {
        "startTime": now,
        "completionTime": now,
        "succeeded": 1,
        "uncountedTerminatedPods": {},
        "conditions": [{"type": "SuccessCriteriaMet", **true}, {"type": "Complete", **true}],
    }
    cluster.kubectl(
        *("patch", "job", name, f"--namespace={namespace}", "--subresource=status", "--type=merge"),
        f"--patch={json.dumps({'status': status})}",
    )
