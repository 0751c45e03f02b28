"""The container of the sidecar, and the volumes that it needs.

Everything here satisfies the restricted Pod Security Standard
(https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted).
"""

import json
from typing import Any, Final

from sark_pdp.addresses import TcpAddress
from sark_pdp.injector.annotations import Wishes
from sark_pdp.injector.template import (
    SECRET_DIR,
    SECRET_VOLUME,
    SIDECAR,
    SOCKET,
    SOCKET_DIR,
    SOCKET_VOLUME,
    STATE_DIR,
    STATE_VOLUME,
    TOKEN_DIR,
    TOKEN_VOLUME,
    Resources,
    Template,
)
from sark_pdp.quantities import format_memory, parse_memory

_TOKEN_SECONDS: Final = 3600
"""The kubelet renews a token when four fifths of this are over."""
_BESIDE_SPOOL: Final = 512 * 2**20
"""What else the state folder may hold: compiled policies, and the last good bundle (limits.max_bundle_bytes)."""
_DEFAULT_GRACE: Final = 30
"""Seconds: Kubernetes' own."""
_LONGEST_GRACE: Final = 10
_LONGEST_PAUSE: Final = 5
_START_SECONDS: Final = 120
"""Within which a bundle must have been fetched, compiled and activated."""


def sidecar(template: Template, wishes: Wishes, grace: int | None) -> dict[str, Any]:
    """The container; `grace` is the pod's terminationGracePeriodSeconds."""
    metrics = metrics_address(template, wishes)
    native = template.mode == "native"
    pause, calls = _times(_DEFAULT_GRACE if grace is None else grace, native=native)
    container: dict[str, Any] = {
        "name": SIDECAR,
        "image": template.image,
        "imagePullPolicy": template.pull_policy,
        "command": ["sark-pdp", "serve"],
        "env": _environment(template, wishes, metrics, calls),
        "ports": [{"name": "sark-metrics", "containerPort": metrics.port, "protocol": "TCP"}],
        "resources": resources(wishes.resources),
        "securityContext": security_context(template.user),
        "startupProbe": _probe("/readyz", metrics.port, 1, _START_SECONDS),
        "readinessProbe": _probe("/readyz", metrics.port, 5, 3),
        "livenessProbe": _probe("/healthz", metrics.port, 10, 6),
        "volumeMounts": _mounts(template),
    }
    if native:
        container["restartPolicy"] = "Always"
    else:
        # The next container is started when this has returned: the app finds a sidecar that serves. And all are stopped
        # at once, so that this one lets the app finish first.
        wait = ["sark-pdp", "ready", f"--wait={_START_SECONDS}s"]
        container["lifecycle"] = {"postStart": {"exec": {"command": wait}}}
        if pause:
            container["lifecycle"]["preStop"] = {"exec": {"command": ["sleep", str(pause)]}}
    return container


def volumes(template: Template, wishes: Wishes) -> list[dict[str, Any]]:
    """What the sidecar's mounts and those of the app's containers refer to."""
    token = {"audience": template.token_audience, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    limit = format_memory(parse_memory(_spool_size(template, wishes)) + _BESIDE_SPOOL)
    made: list[dict[str, Any]] = [
        {"name": SOCKET_VOLUME, "emptyDir": {}},
        {"name": STATE_VOLUME, "emptyDir": {"sizeLimit": limit}},
        {"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]
    if template.secret is not None:
        made.append({"name": SECRET_VOLUME, "secret": {"secretName": template.secret, "optional": True}})
    return made


def metrics_address(template: Template, wishes: Wishes) -> TcpAddress:
    """Where this pod's sidecar is probed."""
    return TcpAddress(template.metrics.host, wishes.metrics_port or template.metrics.port)


def resources(wanted: Resources) -> dict[str, Any]:
    """`resources` of a container; limits only where there are some."""
    made: dict[str, Any] = {"requests": {"cpu": wanted.cpu_request, "memory": wanted.memory_request}}
    limits = {"cpu": wanted.cpu_limit, "memory": wanted.memory_limit}
    if any(limits.values()):
        made["limits"] = {name: limit for name, limit in limits.items() if limit is not None}
    return made


def security_context(user: int) -> dict[str, Any]:
    """Of the restricted standard, and a root file system that nobody writes to."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": user,
        "runAsNonRoot": True,
        "runAsUser": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _times(grace: int, *, native: bool) -> tuple[int, int]:
    """Seconds that the sidecar waits before it stops, and that calls may then take; both fit into the pod's grace.

    A native sidecar is stopped when the app's containers have ended: nobody calls it any more, and it needs no pause.
    """
    pause = 0 if native else min(_LONGEST_PAUSE, grace // 3)
    return pause, max(1, min(_LONGEST_GRACE, grace - pause - 2))


def _environment(template: Template, wishes: Wishes, metrics: TcpAddress, grace: int) -> list[dict[str, Any]]:
    """A variable may refer to those before it."""
    spool = parse_memory(_spool_size(template, wishes))
    variables = {
        **dict(template.variables),
        **wishes.variables,
        "SARK_PDP_LISTEN__GRPC": _list(f"unix://{SOCKET}", *_loopback(wishes.grpc_port)),
        # Off unless it is asked for: the app may have that port.
        "SARK_PDP_LISTEN__HTTP": _list(*_loopback(wishes.http_port)),
        # Containers of a pod run as different users, and whoever mounts the volume is meant to ask.
        "SARK_PDP_LISTEN__SOCKET_MODE": "0666",
        "SARK_PDP_LISTEN__METRICS": str(metrics),
        "SARK_PDP_STATE_DIR": STATE_DIR,
        "SARK_PDP_AUDIT__SOURCE_NAME": "$(POD_NAME).$(POD_NAMESPACE)",
        "SARK_PDP_AUDIT__SPOOL_MAX_BYTES": str(spool),
        "SARK_PDP_SHUTDOWN__GRACE": f"{grace}s",
    }
    return [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}},
        *({"name": name, "value": value} for name, value in variables.items()),
    ]


def _loopback(port: int | None) -> list[str]:
    return [] if port is None else [f"127.0.0.1:{port}"]


def _list(*addresses: str) -> str:
    """As a variable has it."""
    return json.dumps(addresses)


def _mounts(template: Template) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": SOCKET_VOLUME, "mountPath": SOCKET_DIR},
        {"name": STATE_VOLUME, "mountPath": STATE_DIR},
        {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIR, "readOnly": True},
    ]
    if template.secret is not None:
        mounts.append({"name": SECRET_VOLUME, "mountPath": SECRET_DIR, "readOnly": True})
    return mounts


def _probe(path: str, port: int, period: int, failures: int) -> dict[str, Any]:
    """A request that is not answered within two seconds has failed: a busy sidecar answers probes later than calls."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def _spool_size(template: Template, wishes: Wishes) -> str:
    return wishes.spool_size or template.spool_size
