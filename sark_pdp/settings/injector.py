"""The settings of `sark-pdp injector`. Keys that a sidecar has too are called the same and mean the same."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from sark_pdp.addresses import TcpAddress
from sark_pdp.errors import SettingsError
from sark_pdp.quantities import parse_cpu, parse_memory
from sark_pdp.settings.schema import LogSettings, ShutdownSettings
from sark_pdp.settings.units import Bytes

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds what its service account is."""
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Of a Secret or a namespace, about."""


class InjectorListenSettings(Struct, frozen=True, kw_only=True):
    """Where the injector listens."""

    webhook: Annotated[TcpAddress, Meta(description="Admission reviews, over HTTPS: `/inject` and `/inject-all`.")] = (
        TcpAddress("127.0.0.1", 9443)
    )
    metrics: Annotated[TcpAddress, Meta(description="`/metrics`, `/healthz` and `/readyz`, over plain HTTP.")] = (
        TcpAddress("127.0.0.1", 9014)
    )


class InjectorTlsSettings(Struct, frozen=True, kw_only=True):
    """TLS of `listen.webhook`."""

    cert_file: Annotated[
        Path | None, Meta(description="The server's certificate chain, PEM. Read again when it changes.")
    ] = None
    key_file: Annotated[Path | None, Meta(description="Its private key, PEM. Read again when it changes.")] = None
    client_ca_file: Annotated[
        Path | None,
        Meta(description="Authorities that sign the API server's client certificate, PEM: nobody else may ask then."),
    ] = None


class InjectSettings(Struct, frozen=True, kw_only=True):
    """Which pods are injected."""

    on_failure: Annotated[
        Literal["refuse", "admit"],
        Meta(description="What becomes of a pod that should have a sidecar and cannot: `admit` lets it run without."),
    ] = "refuse"
    excluded_namespaces: Annotated[tuple[str, ...], Meta(description="Where no pod is ever changed or refused.")] = (
        *("kube-system", "kube-public", "kube-node-lease"),
    )
    events: Annotated[bool, Meta(description="Tells the cluster of such pods by Kubernetes Events.")] = True


class SidecarSettings(Struct, frozen=True, kw_only=True):
    """What injected sidecars have in common. Quantities are Kubernetes' own, as in `64Mi` and `250m`."""

    image: Annotated[str | None, Meta(description="The image that they run.")] = None
    image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"], Meta(description="When a node fetches it, and Envoy's.")
    ] = "IfNotPresent"
    mode: Annotated[
        Literal["native", "container"],
        Meta(
            description="`native`: an init container that stays, for Kubernetes 1.29 and newer; `container`: one beside"
            " the app's, for older clusters."
        ),
    ] = "native"
    metrics: Annotated[
        TcpAddress, Meta(description="Their `listen.metrics`, for probes and scrapes; `[::]:9004` for IPv6.")
    ] = TcpAddress("0.0.0.0", 9004)  # noqa: S104 (probes come from the node)
    cpu_request: Annotated[str, Meta(description="Processors that are set aside.")] = "150m"
    cpu_limit: Annotated[str | None, Meta(description="Processors at most; none: what the node has left.")] = None
    memory_request: Annotated[str, Meta(description="Memory that is set aside.")] = "64Mi"
    memory_limit: Annotated[str | None, Meta(description="Memory at most; past it the kernel ends the sidecar.")] = (
        "128Mi"
    )
    spool_size: Annotated[
        str, Meta(description="Their `audit.spool_max_bytes`; the volume has room for bundles besides.")
    ] = "256Mi"
    run_as_user: Annotated[int, Meta(description="User and group that they run as.", ge=1, le=2**31 - 1)] = 65_532
    token_audience: Annotated[str, Meta(description="Whom the token in `/var/run/secrets/sark-pdp/token` is for.")] = (
        "sark-pdp"  # noqa: S105 (a name)
    )
    secret: Annotated[
        str | None,
        Meta(
            description="A Secret of the pod's namespace that is mounted at `/etc/sark-pdp/secret` where it exists: for"
            " keys and certificates that `sidecar.settings_file` names."
        ),
    ] = None
    settings_file: Annotated[
        Path | None, Meta(description="Settings of all injected sidecars, YAML, as for `sark-pdp serve --config`.")
    ] = None
    envoy_image: Annotated[
        str | None, Meta(description="Envoy's image, for pods that want one before the app; without it none may.")
    ] = None
    host_network: Annotated[bool, Meta(description="Injects pods in the node's network too.")] = False


class KubernetesSettings(Struct, frozen=True, kw_only=True):
    """The cluster's API, for events."""

    url: Annotated[str, Meta(description="Where it is.")] = "https://kubernetes.default.svc"
    token_file: Annotated[Path, Meta(description="A bearer token, read for each request.")] = _ACCOUNT / "token"
    ca_file: Annotated[Path, Meta(description="Authorities of the API server, PEM, read for each request.")] = (
        _ACCOUNT / "ca.crt"
    )


class InjectorLimitSettings(Struct, frozen=True, kw_only=True):
    """What one review may take."""

    max_review_bytes: Annotated[Bytes, Meta(description="One admission review.", ge=2**16, le=2**26)] = Bytes(2**23)


class InjectorSettings(Struct, frozen=True, kw_only=True):
    """Every setting of the injector, with its effective value."""

    listen: InjectorListenSettings = InjectorListenSettings()
    tls: InjectorTlsSettings = InjectorTlsSettings()
    inject: InjectSettings = InjectSettings()
    sidecar: SidecarSettings = SidecarSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    limits: InjectorLimitSettings = InjectorLimitSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    log: LogSettings = LogSettings()


def check_injector(settings: InjectorSettings, origins: Mapping[str, str]) -> None:
    """Raises SettingsError for the first thing that is wrong."""
    if settings.sidecar.image is None:
        raise SettingsError("sidecar.image: is not set; name the image that injected sidecars run")
    for key, file in (("tls.cert_file", settings.tls.cert_file), ("tls.key_file", settings.tls.key_file)):
        if file is None:
            raise SettingsError(f"{key}: is not set; the API server asks over HTTPS alone")
    _check_files(settings, origins)
    _check_resources(settings.sidecar, origins)
    _check_names(settings, origins)
    url = urlsplit(settings.kubernetes.url)
    if url.scheme != "https" or not url.hostname or url.query or url.fragment or "@" in url.netloc:
        raise _wrong(
            "kubernetes.url", settings.kubernetes.url, origins, "is no place of an API; expected https://host:port"
        )


def _check_files(settings: InjectorSettings, origins: Mapping[str, str]) -> None:
    files: dict[str, Path | None] = {
        "tls.cert_file": settings.tls.cert_file,
        "tls.key_file": settings.tls.key_file,
        "tls.client_ca_file": settings.tls.client_ca_file,
        "sidecar.settings_file": settings.sidecar.settings_file,
    }
    more = ""
    if settings.inject.events:
        files |= {
            "kubernetes.token_file": settings.kubernetes.token_file,
            "kubernetes.ca_file": settings.kubernetes.ca_file,
        }
        more = "; where there is no cluster to tell, set inject.events to false"
    for key, file in files.items():
        if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
            problem = "cannot be read; expected a file that this process may read"
            raise _wrong(key, file, origins, problem + (more if key.startswith("kubernetes.") else ""))


def _check_resources(sidecar: SidecarSettings, origins: Mapping[str, str]) -> None:
    parsed: dict[str, int] = {}
    for key, parse in (
        *(("cpu_request", parse_cpu), ("cpu_limit", parse_cpu)),
        *(("memory_request", parse_memory), ("memory_limit", parse_memory), ("spool_size", parse_memory)),
    ):
        value = getattr(sidecar, key)
        if value is None:
            continue
        try:
            parsed[key] = parse(value)
        except ValueError as error:
            raise _wrong(f"sidecar.{key}", value, origins, str(error)) from None
    for kind in ("cpu", "memory"):
        if parsed.get(f"{kind}_limit", parsed[f"{kind}_request"]) < parsed[f"{kind}_request"]:
            key = f"{kind}_limit"
            raise _wrong(f"sidecar.{key}", getattr(sidecar, key), origins, f"is below sidecar.{kind}_request; raise it")
    if parsed["spool_size"] < 2**20:
        raise _wrong("sidecar.spool_size", sidecar.spool_size, origins, "is too small; expected at least 1Mi")


def _check_names(settings: InjectorSettings, origins: Mapping[str, str]) -> None:
    for namespace in settings.inject.excluded_namespaces:
        if not _NAME.fullmatch(namespace):
            raise _wrong("inject.excluded_namespaces", namespace, origins, "is no name of a namespace")
    secret = settings.sidecar.secret
    if secret is not None and not _NAME.fullmatch(secret):
        raise _wrong("sidecar.secret", secret, origins, "is no name of a Secret")
    if settings.sidecar.metrics.port < 1024:
        problem = "has a port below 1024, which a sidecar without privileges cannot have; set a higher one"
        raise _wrong("sidecar.metrics", settings.sidecar.metrics, origins, problem)


def _wrong(key: str, value: object, origins: Mapping[str, str], problem: str) -> SettingsError:
    return SettingsError(f"{key}: '{value}' ({origins[key]}) {problem}")
