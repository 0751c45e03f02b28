"""The load runs: which servers take turns, under what load."""

from typing import Literal

from msgspec import Struct

from bench.figures import Figure
from bench.loads import Shape

FRONT_ECHO = "echo, the front"
GRPCIO_ECHO = "echo, grpcio"
HITS = "SARK PDP, L1 hits"
EVALUATED = "SARK PDP, evaluated"
GRPCIO_HITS = "SARK PDP on grpcio, L1 hits"
UNIX_HITS = "SARK PDP, Unix socket"
TLS_HITS = "SARK PDP, TLS"
MTLS_HITS = "SARK PDP, mTLS"
OPA_ENVOY = "opa-envoy-plugin"
OPA_ENVOY_UNIX = "opa-envoy-plugin, Unix socket"
OPA_REST = "OPA, REST"
CERBOS = "Cerbos"

_FULL = Shape(clients=4, streams=16)
_TAIL: tuple[Figure, ...] = ("50", "99", "99.9")


class Group(Struct, frozen=True, kw_only=True):
    """One load run."""

    name: str
    title: str
    about: str
    servers: tuple[str, ...]
    """In turns, in this order; a peer that was not named is left out."""
    base: str
    """What ratios are taken to."""
    shape: Shape
    figures: tuple[Figure, ...] = ("rps",)
    """What is plotted."""
    native: bool = False
    """Whether `Check` is called, instead of ext_authz."""
    recorded: bool = False
    """Whether decisions are recorded: in our spool, in the peer's console log."""
    bodies: int = 1
    """Requests that are sent at the same time, each over and over; every round has its own."""
    generator: Literal["h2load", "ghz"] = "h2load"
    stretch: float = 1.0
    """How many times as long as others its rounds take."""
    quick: bool = True
    """Whether it is part of the quick run."""


GROUPS = (
    Group(
        name="no-log",
        title="ext_authz without a decision log",
        about="64 calls in flight on four connections, as fast as answers come. Metrics on; no decision log on either "
        "side.",
        servers=(FRONT_ECHO, GRPCIO_ECHO, HITS, EVALUATED, GRPCIO_HITS, OPA_ENVOY, OPA_REST, CERBOS),
        base=OPA_ENVOY,
        shape=_FULL,
        bodies=4,
    ),
    Group(
        name="logged",
        title="ext_authz, every decision recorded",
        about="The same load. SARK PDP writes its audit trail (hash chain, SQLite), opa-envoy-plugin its decision log "
        "to its console, which is a file.",
        servers=(HITS, EVALUATED, OPA_ENVOY),
        base=OPA_ENVOY,
        shape=_FULL,
        recorded=True,
        bodies=4,
    ),
    Group(
        name="alone",
        title="One call at a time",
        about="One connection, one call in flight; no decision log on either side.",
        servers=(FRONT_ECHO, HITS, EVALUATED, OPA_ENVOY),
        base=OPA_ENVOY,
        shape=Shape(clients=1, streams=1, latencies=True),
        figures=("50", "99"),
    ),
    Group(
        name="fixed",
        title="10,000 calls a second, audited",
        about="Ten connections, each of which sends what is due every 10 ms, one a millisecond after the other: ten "
        "calls at once. The echo at the same rate shows how much of the tail is the generator's and the machine's.",
        servers=(FRONT_ECHO, HITS, EVALUATED),
        base=FRONT_ECHO,
        shape=Shape(clients=10, streams=100, rate=10_000, latencies=True),
        figures=_TAIL,
        recorded=True,
        stretch=2.0,
    ),
    Group(
        name="slow",
        title="1,000 calls a second, recorded",
        about="Sent as before, at a rate that the peer can follow.",
        servers=(FRONT_ECHO, HITS, EVALUATED, OPA_ENVOY),
        base=OPA_ENVOY,
        shape=Shape(clients=10, streams=100, rate=1_000, latencies=True),
        figures=_TAIL,
        recorded=True,
        stretch=2.0,
        quick=False,
    ),
    Group(
        name="ways",
        title="TCP, Unix sockets, TLS",
        about="L1 hits without a decision log, under the load of the first run. h2load shows no certificate of its "
        "own, so that TLS is the server's alone here. opa-envoy-plugin has no TLS.",
        servers=(HITS, UNIX_HITS, TLS_HITS, OPA_ENVOY, OPA_ENVOY_UNIX),
        base=HITS,
        shape=_FULL,
        bodies=4,
        quick=False,
    ),
    Group(
        name="mtls",
        title="mTLS, and requests that all differ: 2,000 calls a second",
        about="ghz on four connections; 1,000 requests that differ in request id, port and time; no decision log on "
        "either side. CPU a call is higher than under full load, where one wake-up serves several calls; compare it "
        "within this table. opa-envoy-plugin has no TLS.",
        servers=(HITS, MTLS_HITS, OPA_ENVOY),
        base=HITS,
        shape=Shape(clients=4, streams=8, rate=2_000),
        figures=("cpu_us", "50", "99"),
        generator="ghz",
        quick=False,
    ),
    Group(
        name="check",
        title="`Check` on both carriers",
        about="The default bundle, L1 hits, audited; 64 calls in flight on four connections.",
        servers=(FRONT_ECHO, HITS, GRPCIO_ECHO, GRPCIO_HITS),
        base=GRPCIO_ECHO,
        shape=_FULL,
        native=True,
        recorded=True,
        bodies=4,
    ),
)


def group_named(name: str) -> Group:
    """Exits with the names that there are."""
    for group in GROUPS:
        if group.name == name:
            return group
    raise SystemExit(f"there is no load run '{name}'; choose among {', '.join(group.name for group in GROUPS)}")
