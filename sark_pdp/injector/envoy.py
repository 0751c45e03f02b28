"""An Envoy before the app, which asks the sidecar about each HTTP request: its container and configuration."""

from typing import Any, Final

import msgspec

from sark_pdp.injector.annotations import Wishes
from sark_pdp.injector.sidecar import resources, security_context
from sark_pdp.injector.template import ENVOY, SOCKET, SOCKET_DIR, SOCKET_VOLUME, Resources, Template

PORT: Final = 10_000
"""Where it listens unless the pod says otherwise."""

_RESOURCES: Final = Resources(cpu_request="50m", memory_request="80Mi", memory_limit="192Mi")
"""Envoy 1.40 with this configuration and one worker is 63 MiB resident when it is idle, 70 MiB with 50 connections."""
_USER: Final = 101
"""Of Envoy's own images."""
_LISTENERS: Final = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters.http"
_HTTP2: Final = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def envoy(template: Template, wishes: Wishes, app_port: int) -> dict[str, Any]:
    """The container, before an app that listens on `app_port`; the template has an image for it."""
    port = wishes.envoy_port or PORT
    container: dict[str, Any] = {
        "name": ENVOY,
        "image": template.envoy_image,
        "imagePullPolicy": template.pull_policy,
        "command": ["envoy"],
        "args": [
            *("--config-yaml", configuration(port, app_port, wishes.envoy_body)),
            *("--concurrency", "1", "--log-level", "warning"),
            # Several in one network, as with hostNetwork, would share memory by the default one.
            "--disable-hot-restart",
        ],
        "ports": [{"name": "sark-envoy", "containerPort": port, "protocol": "TCP"}],
        "resources": resources(_RESOURCES),
        "securityContext": security_context(_USER),
        "startupProbe": _probe(port, 1, 60),
        "readinessProbe": _probe(port, 5, 3),
        "volumeMounts": [{"name": SOCKET_VOLUME, "mountPath": SOCKET_DIR, "readOnly": True}],
    }
    if template.mode == "native":
        container["restartPolicy"] = "Always"
    return container


def configuration(port: int, app_port: int, body: int) -> str:
    """Envoy's bootstrap as JSON; `body` is how many bytes of each body the sidecar is shown, 0: none.

    It has no admin listener: nobody in the pod could be kept away from it.
    """
    routes = {"virtual_hosts": [{"name": "app", "domains": ["*"], "routes": [_route()]}]}
    manager = {
        "@type": f"{_LISTENERS}.HttpConnectionManager",
        "stat_prefix": "app",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": routes,
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": _ext_authz(body)},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listening = {"socket_address": {"address": "0.0.0.0", "port_value": port}}  # noqa: S104 (the pod's network)
    resources = {
        "listeners": [{"name": "app", "address": listening, "filter_chains": [chain]}],
        "clusters": [_app(app_port), _sidecar()],
    }
    return msgspec.json.encode({"static_resources": resources}).decode()


def _ext_authz(body: int) -> dict[str, Any]:
    """An Envoy that gets no answer refuses: the sidecar's own failures are denials already."""
    filter_ = {
        "@type": f"{_FILTERS}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "grpc_service": {"envoy_grpc": {"cluster_name": "sark-pdp"}, "timeout": "0.25s"},
    }
    if body:
        filter_["with_request_body"] = {"max_request_bytes": body, "allow_partial_message": True}
    return filter_


def _route() -> dict[str, Any]:
    """Streams of MCP and of gRPC stay open for long: no time limit for the whole of a request."""
    return {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}


def _app(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return _cluster("app", address)


def _sidecar() -> dict[str, Any]:
    """gRPC is HTTP/2, which Envoy speaks to a cluster only where it is told to."""
    options = {"@type": _HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        **_cluster("sark-pdp", {"pipe": {"path": SOCKET}}),
        "typed_extension_protocol_options": {_HTTP2.rpartition("/")[2]: options},
    }


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [endpoints]},
    }


def _probe(port: int, period: int, failures: int) -> dict[str, Any]:
    return {
        "tcpSocket": {"port": port},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
        "successThreshold": 1,
    }
