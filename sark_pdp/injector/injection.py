"""Puts a sidecar into one pod: what is added to it, as a JSON Patch (RFC 6902).

Only additions are made, and each only where it is missing: the patch of a pod that has everything is empty, and that of
a pod to which another webhook has meanwhile added a container gives the socket to that one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from jsonpatch import JsonPatch
from jsonpointer import JsonPointer

from sark_pdp.errors import InjectionError
from sark_pdp.injector.annotations import PREFIX, Wishes, read_wishes
from sark_pdp.injector.envoy import PORT as ENVOY_PORT
from sark_pdp.injector.envoy import envoy
from sark_pdp.injector.review import Container, Pod
from sark_pdp.injector.sidecar import metrics_address, sidecar, volumes
from sark_pdp.injector.template import (
    ADDRESS,
    ENVOY,
    MARK,
    SIDECAR,
    SOCKET,
    SOCKET_DIR,
    SOCKET_VOLUME,
    VOLUMES,
    Template,
)

_INJECTED: Final = frozenset({SIDECAR, ENVOY})
_INJECT: Final = f"annotation {PREFIX}inject"

Operation = dict[str, Any]


def has_sidecar(pod: Pod) -> bool:
    """Whether a container of that name is there, from here or by hand."""
    return any(container.name == SIDECAR for _, _, container in _containers(pod))


def is_marked(pod: Pod) -> bool:
    """Whether what is there is from here."""
    return (pod.metadata.labels or {}).get(MARK) == "true"


def inject(pod: Pod, template: Template) -> list[Operation]:
    """The patch. Raises InjectionError where the pod cannot have a sidecar, or not as it asks for it."""
    wishes = read_wishes(pod.metadata.annotations or {}, template.resources)
    _check_containers(pod, wishes)
    operations: list[Operation] = []
    if not has_sidecar(pod):
        _check(pod, template, wishes)
        operations += _added("spec/volumes", pod.spec.volumes, volumes(template, wishes))
        operations += _marked(pod)
    operations += _given_socket(pod, wishes)
    if not has_sidecar(pod):
        # Last, because they come first: what was added before counts places in the lists as they were.
        operations += _first(pod, template, _injected(pod, template, wishes))
    # It looks at each operation.
    return list(JsonPatch(operations).patch)


def _injected(pod: Pod, template: Template, wishes: Wishes) -> list[dict[str, Any]]:
    """In the order in which they start."""
    containers = [sidecar(template, wishes, pod.spec.termination_grace_period_seconds)]
    if wishes.envoy:
        containers.append(envoy(template, wishes, _app_port(pod, wishes)))
    return containers


def _check(pod: Pod, template: Template, wishes: Wishes) -> None:
    """What stands against a sidecar. Raises InjectionError."""
    spec = pod.spec
    system = spec.os.name if spec.os else (spec.node_selector or {}).get("kubernetes.io/os", "linux")
    if system != "linux":
        raise InjectionError(
            f'the pod is for nodes with {system}, where the sidecar does not run; set {_INJECT}: "false"'
        )
    if spec.host_network and not template.host_network:
        raise InjectionError(
            "the pod is in the node's network, where the sidecar's port could be anybody's; set "
            f'{_INJECT}: "false", or have the injector allow it with sidecar.host_network'
        )
    if template.mode == "container" and spec.restart_policy in {"Never", "OnFailure"}:
        raise InjectionError(
            "the pod ends by itself, as those of a Job do, and would not with a sidecar as an ordinary container; have "
            "the injector add native ones with sidecar.mode, which takes Kubernetes 1.29 or newer"
        )
    if wishes.envoy and template.envoy_image is None:
        raise InjectionError(f"annotation {PREFIX}envoy: the injector has no image for it; set its sidecar.envoy_image")
    _check_names(pod)
    _check_ports(pod, template, wishes)


def _check_names(pod: Pod) -> None:
    taken = [volume.name for volume in pod.spec.volumes or () if volume.name in VOLUMES]
    if taken:
        raise InjectionError(f"the pod has a volume {taken[0]} of its own; give it another name")
    for _, _, container in _containers(pod):
        for mount in container.volume_mounts or ():
            if mount.name in VOLUMES:
                raise InjectionError(
                    f"container {container.name} mounts the volume {mount.name}, which is the sidecar's; take it out"
                )
    if any(container.name == ENVOY for _, _, container in _containers(pod)):
        raise InjectionError(f"the pod has a container {ENVOY} of its own; give it another name")


def _check_ports(pod: Pod, template: Template, wishes: Wishes) -> None:
    """Two that listen on one port share the pod's network: one of them would not start."""
    wanted = {
        "metrics-port": metrics_address(template, wishes).port,
        "grpc-port": wishes.grpc_port,
        "http-port": wishes.http_port,
    }
    if wishes.envoy:
        wanted["envoy-port"] = wishes.envoy_port or ENVOY_PORT
    taken = {name: number for name, number in wanted.items() if number is not None}
    if wishes.app_port in taken.values():
        raise InjectionError(
            f"annotation {PREFIX}app-port: {wishes.app_port} is a port of the sidecar's or of Envoy's own; set another"
        )
    if len(set(taken.values())) < len(taken):
        names = " and ".join(f"{PREFIX}{name}" for name in taken)
        raise InjectionError(f"annotations {names}: two of them are the same port; set different ones")
    for _, _, container in _containers(pod):
        for port in container.ports or ():
            for name, number in taken.items():
                if port.container_port == number and port.protocol == "TCP":
                    raise InjectionError(
                        f"container {container.name} has port {number}, which the sidecar needs; set annotation "
                        f"{PREFIX}{name} to a free one"
                    )


def _app_port(pod: Pod, wishes: Wishes) -> int:
    """Where Envoy reaches the app."""
    if wishes.app_port is not None:
        return wishes.app_port
    ports = {port.container_port for each in pod.spec.containers for port in each.ports or () if port.protocol == "TCP"}
    if len(ports) != 1:
        raise InjectionError(
            f"annotation {PREFIX}envoy: the containers have {len(ports) or 'no'} TCP ports, and one is expected; set "
            f"annotation {PREFIX}app-port to the one that Envoy is to stand before"
        )
    return ports.pop()


def _check_containers(pod: Pod, wishes: Wishes) -> None:
    known = {container.name for _, _, container in _containers(pod)} - _INJECTED
    unknown = sorted((wishes.containers or frozenset()) - known)
    if unknown:
        raise InjectionError(
            f"annotation {PREFIX}containers: the pod has no container {unknown[0]}; expected {', '.join(sorted(known))}"
        )


def _given_socket(pod: Pod, wishes: Wishes) -> Iterator[Operation]:
    """Mount and variable for each container that is to have them and does not."""
    for kind, index, container in _containers(pod):
        if container.name in _INJECTED or not _is_given(kind, container, wishes):
            continue
        at = f"spec/{kind}/{index}"
        mounts, variables = container.volume_mounts or [], container.env or []
        if not any(mount.name == SOCKET_VOLUME for mount in mounts):
            _check_path(container)
            mount = {"name": SOCKET_VOLUME, "mountPath": SOCKET_DIR, "readOnly": True}
            yield from _added(f"{at}/volumeMounts", mounts, [mount])
        # A container that has its own, from wherever, means it.
        if not any(variable.name == ADDRESS for variable in variables):
            yield from _added(f"{at}/env", variables, [{"name": ADDRESS, "value": f"unix://{SOCKET}"}])


def _check_path(container: Container) -> None:
    for mount in container.volume_mounts or ():
        if mount.mount_path.rstrip("/") == SOCKET_DIR:
            raise InjectionError(
                f"container {container.name} mounts {mount.name} at {SOCKET_DIR}, where the socket goes; use another"
            )


def _is_given(kind: str, container: Container, wishes: Wishes) -> bool:
    """Init containers that end are given it only by name: most make things ready for the app, and ask nobody."""
    if wishes.containers is not None:
        return container.name in wishes.containers
    return kind == "containers" or container.restart_policy == "Always"


def _containers(pod: Pod) -> Iterator[tuple[str, int, Container]]:
    """All of them, with the list that each is in and its place there."""
    for index, container in enumerate(pod.spec.containers):
        yield "containers", index, container
    for index, container in enumerate(pod.spec.init_containers or ()):
        yield "initContainers", index, container


def _marked(pod: Pod) -> Iterator[Operation]:
    if pod.metadata.labels:
        yield _add(("metadata", "labels", MARK), "true")
    else:
        yield _add(("metadata", "labels"), {MARK: "true"})


def _first(pod: Pod, template: Template, containers: Sequence[dict[str, Any]]) -> Iterator[Operation]:
    """At the head of their list, which is the order in which the kubelet starts them."""
    kind = "initContainers" if template.mode == "native" else "containers"
    present = pod.spec.init_containers if template.mode == "native" else pod.spec.containers
    if not present:
        yield _add(("spec", kind), list(containers))
        return
    for index, container in enumerate(containers):
        yield _add(("spec", kind, str(index)), container)


def _added(at: str, present: Sequence[Any] | None, items: Sequence[Any]) -> Iterator[Operation]:
    """At the end of a list, which is made where there is none."""
    parts = at.split("/")
    if not present:
        yield _add(parts, list(items))
        return
    for item in items:
        yield _add((*parts, "-"), item)


def _add(parts: Sequence[str], value: Any) -> Operation:
    return {"op": "add", "path": JsonPointer.from_parts(parts).path, "value": value}
