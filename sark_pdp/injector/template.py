"""What every injected sidecar has in common: what the operator of the injector says of it."""

from typing import Final, Literal

from msgspec import Struct

from sark_pdp.addresses import TcpAddress

SIDECAR: Final = "sark-pdp"
"""The name of the sidecar's container."""
ENVOY: Final = "sark-envoy"
"""The name of Envoy's."""

MARK: Final = "sark.io/injected"
"""The label of a pod that has its sidecar from here, for selectors of monitors and network policies too."""
OWN_LABEL: Final = ("app.kubernetes.io/name", "sark-pdp")
"""What the project's own pods have."""

SOCKET_DIR: Final = "/run/sark-pdp"
SOCKET: Final = f"{SOCKET_DIR}/pdp.sock"
ADDRESS: Final = "SARK_PDP_ADDRESS"
"""The variable that tells an app, its SDK and the commands where the sidecar is."""
STATE_DIR: Final = "/var/lib/sark-pdp"
TOKEN_DIR: Final = "/var/run/secrets/sark-pdp"  # noqa: S105 (a folder)
SECRET_DIR: Final = "/etc/sark-pdp/secret"  # noqa: S105 (a folder)

SOCKET_VOLUME: Final = "sark-pdp-socket"
STATE_VOLUME: Final = "sark-pdp-state"
TOKEN_VOLUME: Final = "sark-pdp-token"  # noqa: S105 (a name)
SECRET_VOLUME: Final = "sark-pdp-secret"  # noqa: S105 (a name)
VOLUMES: Final = (SOCKET_VOLUME, STATE_VOLUME, TOKEN_VOLUME, SECRET_VOLUME)

INJECTORS_OWN: Final = frozenset(
    {
        *(
            "listen.grpc",
            "listen.http",
            "listen.socket_mode",
            "listen.socket_owner",
            "listen.metrics",
            "listen.admin",
            "address",
        ),
        *("state_dir", "audit.spool_dir", "audit.spool_max_bytes", "audit.source_name", "shutdown.grace"),
    }
)
"""Settings of the sidecar that are decided here: volumes and mounts depend on them."""


class Resources(Struct, frozen=True):
    """Kubernetes quantities; None is not set."""

    cpu_request: str
    memory_request: str
    cpu_limit: str | None = None
    memory_limit: str | None = None


class Template(Struct, frozen=True, kw_only=True):
    """The same for all pods, unless an annotation of one says otherwise."""

    image: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    mode: Literal["native", "container"]
    """An init container that stays, which Kubernetes has from 1.29 on, or one like the app's."""
    resources: Resources
    metrics: TcpAddress
    """Where probes and scrapes reach the sidecar."""
    spool_size: str
    user: int
    """Who runs the containers: a number, above 0."""
    token_audience: str
    secret: str | None
    """The name of a Secret in the pod's namespace, which is mounted where it is there."""
    variables: tuple[tuple[str, str], ...] = ()
    """Settings of the sidecar as variables of its environment."""
    envoy_image: str | None = None
    host_network: bool = False
    """Whether pods in the node's network are injected too."""
