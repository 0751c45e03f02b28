"""The API server that tests use is the real one, and nobody outside this machine can reach it."""

import json

import psutil

from tests.fix_kubernetes import Cluster


def test_only_loopback_is_listened_on(cluster: Cluster) -> None:
    listening = [
        connection.laddr.ip
        for pid in cluster.pids
        for connection in psutil.Process(pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert set(listening) == {"127.0.0.1"}


def test_it_tells_its_release_to_those_who_depend_on_it(cluster: Cluster) -> None:
    versions = json.loads(cluster.kubectl("version", "--output=json"))

    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"] == "v1.34.2"
    assert (versions["serverVersion"]["major"], versions["serverVersion"]["minor"]) == ("1", "34")


def test_helm_finds_it(cluster: Cluster) -> None:
    listed = cluster.run("helm", "list", "--all-namespaces", "--output=json")

    assert (listed.returncode, listed.stdout.strip(), listed.stderr) == (0, "[]", "")


def test_what_is_applied_is_stored_with_its_defaults(cluster: Cluster) -> None:
    namespace = cluster.namespace({"team": "search"})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }

    cluster.apply(pod)

    assert cluster.get("pod", "app", namespace)["spec"]["restartPolicy"] == "Always"
    assert cluster.get("namespace", namespace)["metadata"]["labels"]["team"] == "search"
