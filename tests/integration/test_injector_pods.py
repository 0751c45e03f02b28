"""What becomes of pods that kubectl creates, on a real API server that asks a real injector."""

import json
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_injector import LABEL, VARIANTS, Injector, answer_of, review_of
from tests.fix_kubernetes import Cluster

FILE = Path(__file__).parents[1] / "cases" / "injector" / "pods.yaml"
DATA = yaml.safe_load(FILE.read_text())
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in DATA["cases"]}
INJECTED = [name for name, case in CASES.items() if isinstance(case["expect"], dict) and "injected" in case["expect"]]
OFTEN = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}

Pod = dict[str, Any]
Places = Mapping[tuple[str, str], str]


def whole(case: Mapping[str, Any]) -> Pod:
    """What is created."""
    pod = deepcopy(dict(case["pod"]))
    metadata = pod.setdefault("metadata", {})
    if "generateName" not in metadata:
        metadata["name"] = "pod"
    # As the admission plugin of service accounts has it, which is off here and comes before webhooks elsewhere.
    pod["spec"].setdefault("serviceAccountName", "default")
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def create(cluster: Cluster, pod: Pod, namespace: str) -> subprocess.CompletedProcess[str]:
    flags = (f"-n{namespace}", "-ojson", "--dry-run=server")
    return cluster.run("kubectl", "create", *flags, "-f-", given=json.dumps(pod))


def asked_for(stored: Pod) -> Pod:
    """Of a pod what somebody asked for, without what the API server adds to tell it from others."""
    metadata = {
        key: stored["metadata"][key] for key in stored["metadata"].keys() & {"labels", "annotations", "generateName"}
    }
    return {"metadata": metadata, "spec": stored["spec"]}


def deep(base: Any, changes: Any) -> Any:
    """`base` with `changes`; null takes out."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    merged = {key: deep(base.get(key), value) for key, value in changes.items()}
    return {key: value for key, value in {**base, **merged}.items() if value is not None}


def by_name(container: Pod) -> Pod:
    """With the environment by name: what its order must be is another test's."""
    variables = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    assert len(variables) == len(container["env"])
    return {**container, "env": variables}


def expected_of(created: Pod, expected: Mapping[str, Any], *, native: bool) -> Pod:
    """The pod with what the file says is added; the sidecar and Envoy not among its containers."""
    added, pod = DATA["added"], deepcopy(created)
    pod["metadata"].setdefault("labels", {}).update(added["label"])
    volumes = deepcopy(added["volumes"])
    volumes[1]["emptyDir"] |= expected.get("state", {})
    pod["spec"].setdefault("volumes", []).extend(volumes)
    for kind in ("initContainers", "containers"):
        for container in pod["spec"].get(kind, ()):
            if container["name"] in expected["given"]:
                container.setdefault("volumeMounts", []).append(added["mount"])
                variables = expected.get("variable", [added["variable"]])
                container["env"] = container.get("env", []) + variables
    if native:
        pod["spec"].setdefault("initContainers", [])
    return pod


@pytest.fixture(scope="module")
def namespaces(cluster: Cluster, injectors: Mapping[str, Injector]) -> Places:
    """By variant and kind."""
    assert set(injectors) == set(VARIANTS)
    kinds = {"plain": {}, "labelled": {"sark.io/inject": "true"}}
    made = {
        (variant, kind): cluster.namespace({LABEL: variant, **labels})
        for variant in VARIANTS
        for kind, labels in kinds.items()
    }
    # As if somebody wanted it there.
    cluster.kubectl("label", "namespace", "kube-system", f"{LABEL}=default", "--overwrite")
    return {**made, ("default", "kube-system"): "kube-system"}


@pytest.fixture(scope="module")
def untouched(cluster: Cluster) -> dict[str, Pod]:
    """Every pod as the API server makes it where nobody injects."""
    namespace = cluster.namespace()
    pods = [whole(case) for case in CASES.values()]
    for number, pod in enumerate(pods):
        if "name" in pod["metadata"]:
            pod["metadata"]["name"] = f"pod-{number}"
    made = cluster.run(
        "kubectl",
        "create",
        f"-n{namespace}",
        "-ojson",
        "--dry-run=server",
        "-f-",
        given=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}),
    )
    assert made.returncode == 0, made.stderr
    return dict(zip(CASES, map(asked_for, objects(made.stdout)), strict=True))


def objects(text: str) -> list[Pod]:
    """kubectl writes one object after another, or one list of them."""
    found: list[Pod] = []
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        found += value["items"] if value["kind"] == "List" else [value]
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_pod_becomes_what_the_cases_say(
    name: str, cluster: Cluster, namespaces: Places, untouched: Mapping[str, Pod]
) -> None:
    case = CASES[name]
    expected = case["expect"]
    place = namespaces[case.get("injector", "default"), case.get("namespace", "plain")]

    made = create(cluster, whole(case), place)

    if isinstance(expected, dict) and "refused" in expected:
        assert made.returncode != 0, made.stdout
        assert expected["refused"] in made.stderr
        return
    assert made.returncode == 0, made.stderr
    assert case.get("warning", "") in made.stderr
    assert ("sidecar" in made.stderr) == ("warning" in case)
    stored = asked_for(json.loads(made.stdout))
    if expected == "untouched":
        assert stored == untouched[name]
    else:
        _check_injected(stored, untouched[name], expected["injected"], case.get("injector", "default"))


def _check_injected(stored: Pod, created: Pod, expected: Mapping[str, Any], variant: str) -> None:
    native = VARIANTS[variant].get("sidecar.mode") != "container"
    containers = stored["spec"]["initContainers" if native else "containers"]
    sidecar = containers.pop(0)
    envoy = containers.pop(0) if "envoy" in expected else None

    # A variable may refer only to those before it.
    assert [each["name"] for each in sidecar["env"]][:2] == ["POD_NAME", "POD_NAMESPACE"]
    wanted = deepcopy(DATA["added"]["sidecar"])
    for place, changes in expected.get("sidecar", {}).items():
        wanted[place] = deep(wanted.get(place), changes)
    assert by_name(sidecar) == {key: value for key, value in wanted.items() if value is not None}
    assert stored == expected_of(created, expected, native=native)
    if envoy is not None:
        _check_envoy(envoy, expected["envoy"])


def _check_envoy(envoy: Pod, expected: Mapping[str, int]) -> None:
    configuration = json.loads(envoy["args"][1])["static_resources"]
    listening = configuration["listeners"][0]["address"]["socket_address"]
    app, pdp = (
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in configuration["clusters"]
    )

    assert (envoy["name"], envoy["image"]) == ("sark-envoy", "registry.example/envoy:test")
    assert listening == {"address": "0.0.0.0", "port_value": expected["port"]}  # noqa: S104 (compared with)
    assert app == {"socket_address": {"address": "127.0.0.1", "port_value": expected["app_port"]}}
    assert pdp == {"pipe": {"path": "/run/sark-pdp/pdp.sock"}}
    assert envoy["ports"] == [{"name": "sark-envoy", "containerPort": expected["port"], "protocol": "TCP"}]
    secure = DATA["added"]["sidecar"]["securityContext"]
    assert envoy["securityContext"] == {**secure, "runAsUser": 101, "runAsGroup": 101}
    assert envoy["volumeMounts"] == [DATA["added"]["mount"]]
    assert (envoy["restartPolicy"], envoy["terminationMessagePolicy"]) == ("Always", "File")


@pytest.mark.parametrize("name", INJECTED)
def test_a_second_pass_changes_nothing(
    name: str, cluster: Cluster, namespaces: Places, injectors: Mapping[str, Injector]
) -> None:
    """Neither when the injector is asked again, as on a reinvocation, nor when the result is created again."""
    case = CASES[name]
    variant = case.get("injector", "default")
    place = namespaces[variant, case.get("namespace", "plain")]
    first = json.loads(create(cluster, whole(case), place).stdout)

    status, body = injectors[variant].ask(review_of(first), "/inject-all")
    again = json.loads(create(cluster, {"apiVersion": "v1", "kind": "Pod", **_anew(first)}, place).stdout)

    assert (status, answer_of(body)) == (200, {"uid": "1", "allowed": True})
    assert asked_for(again) == asked_for(first)


def _anew(stored: Pod) -> Pod:
    pod = deepcopy(asked_for(stored))
    if "generateName" not in pod["metadata"]:
        pod["metadata"]["name"] = "again"
    return pod
