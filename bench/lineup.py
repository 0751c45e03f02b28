"""Starts what takes turns in a load run."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct

from bench import groups, peers
from bench.certificates import make_certificates
from bench.questions import CHECK, EXT_AUTHZ
from bench.servers import AUDIT, NO_AUDIT, NO_CACHE, Start, echo, sidecar

_GRPCIO = {"transport": "grpcio"}


class Peers(Struct, frozen=True):
    """Programs to compare with; None where there is none."""

    opa_envoy: Path | None = None
    opa: Path | None = None
    cerbos: Path | None = None


def lineup(group: groups.Group, folder: Path, bundle: Path, others: Peers) -> Mapping[str, Start]:
    """How each server of the group that there is starts, in its order; certificates go to the folder."""
    ours = partial(sidecar, CHECK) if group.native else partial(sidecar, EXT_AUTHZ, bundle=bundle)
    settings = AUDIT if group.recorded else NO_AUDIT
    tls, mutual = (make_certificates(folder / name, client=name == "mtls") for name in ("tls", "mtls"))
    known = {
        groups.FRONT_ECHO: echo("front"),
        groups.GRPCIO_ECHO: echo("grpcio"),
        groups.HITS: ours(settings),
        groups.EVALUATED: ours({**settings, **NO_CACHE}),
        groups.GRPCIO_HITS: ours({**settings, **_GRPCIO}),
        groups.UNIX_HITS: ours(settings, unix=True),
        groups.TLS_HITS: ours(settings, tls=tls),
        groups.MTLS_HITS: ours(settings, tls=mutual),
    }
    if others.opa_envoy is not None:
        known[groups.OPA_ENVOY] = peers.opa_envoy(others.opa_envoy, log=group.recorded)
        known[groups.OPA_ENVOY_UNIX] = peers.opa_envoy(others.opa_envoy, log=group.recorded, unix=True)
    if others.opa is not None:
        known[groups.OPA_REST] = peers.opa_rest(others.opa)
    if others.cerbos is not None:
        known[groups.CERBOS] = peers.cerbos(others.cerbos)
    return {name: known[name] for name in group.servers if name in known}
