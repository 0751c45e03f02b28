"""The settings of `serve` and of the commands that talk to it: every key, its type, limits, meaning and default."""

from pathlib import Path
from typing import Annotated, Literal, NewType

from msgspec import Meta, Struct

from sark_pdp.addresses import Address, TcpAddress
from sark_pdp.model import Seconds
from sark_pdp.settings.audit import AuditSettings
from sark_pdp.settings.l2 import L2Settings
from sark_pdp.settings.principal import PrincipalSettings
from sark_pdp.settings.tracing import TracingSettings
from sark_pdp.settings.units import Bytes

FileMode = NewType("FileMode", int)
"""Permission bits of a file."""


def _derived(description: str, default: str) -> Meta:
    """For a key without a constant default; `default` says in words what it is."""
    return Meta(description=description, extra={"default": default})


class ListenSettings(Struct, frozen=True, kw_only=True):
    """Where the process listens. A listener outside loopback needs TLS or `listen.insecure`; metrics are exempt."""

    grpc: Annotated[
        tuple[Address, ...],
        Meta(description="Decisions (native and ext_authz), health and reflection: one address or a list of them."),
    ] = (TcpAddress("127.0.0.1", 9001),)
    http: Annotated[
        tuple[Address, ...] | None,
        Meta(
            description="Decisions over HTTP/JSON: one address or a list of them; none, or an empty text, turns it off."
        ),
    ] = (TcpAddress("127.0.0.1", 9002),)
    metrics: Annotated[TcpAddress, Meta(description="`/metrics`, `/healthz` and `/readyz`, over plain HTTP.")] = (
        TcpAddress("127.0.0.1", 9004)
    )
    admin: Annotated[
        Address,
        _derived(
            "The `Administration` service: a Unix socket, which gets mode 0600, or TCP with mTLS.",
            "`admin.sock` in `$XDG_RUNTIME_DIR/sark-pdp`, or in `run` of `state_dir` where that is set "
            "or there is no such variable",
        ),
    ]
    socket_mode: Annotated[
        FileMode, Meta(description="Permission bits of the Unix sockets of `listen.grpc` and `listen.http`.")
    ] = FileMode(0o660)
    socket_owner: Annotated[
        str | None,
        Meta(
            description="Whose the Unix sockets of `listen.grpc` and `listen.http` are: `user`, `user:group` or "
            "`:group`, by name or number. Without it, of the process."
        ),
    ] = None
    insecure: Annotated[
        bool, Meta(description="Allows `listen.grpc` and `listen.http` outside loopback without TLS.")
    ] = False


class BundleSettings(Struct, frozen=True, kw_only=True):
    """One policy bundle, from a `path` or a `url`."""

    name: Annotated[str, Meta(description="How status and metrics call it.")]
    path: Annotated[Path | None, Meta(description="The bundle's `.tar.gz` file, or a folder with its files.")] = None
    url: Annotated[str | None, Meta(description="Where to fetch it, `http:` or `https:`, as OPA does.")] = None
    poll_interval: Annotated[
        Seconds | None,
        Meta(
            description="How often it is looked at; 0: only when told to. Default: 1s for a path, 60s for a url.", ge=0
        ),
    ] = None
    long_poll: Annotated[
        Seconds, Meta(description="How long the server may hold a question back until there is news.", ge=0, le=3600)
    ] = Seconds(0.0)
    token_file: Annotated[Path | None, Meta(description="A bearer token, read for each request.")] = None
    ca_file: Annotated[Path | None, Meta(description="Authorities of the server, PEM.")] = None
    client_cert_file: Annotated[Path | None, Meta(description="This client's certificate chain, PEM.")] = None
    client_key_file: Annotated[Path | None, Meta(description="Its private key, PEM.")] = None
    verification_key_file: Annotated[
        Path | None,
        Meta(description="What the bundle must be signed with: PEM, a secret, or OPA's `keys` as JSON."),
    ] = None
    persist_dir: Annotated[
        Path | None, Meta(description="Folder of the last good bundle, with which a sidecar starts offline.")
    ] = None


class PolicySettings(Struct, frozen=True, kw_only=True):
    """What is asked."""

    bundles: Annotated[
        tuple[BundleSettings, ...],
        _derived(
            "The bundles to load, with roots that do not overlap; docs/bundles.md tells of each key.",
            "the bundle that is packed with this program",
        ),
    ]
    entrypoint: Annotated[str, Meta(description="Asked where a request names no policy.")] = "sark/mcp/decision"
    ext_authz_entrypoint: Annotated[str, Meta(description="Asked for each call of Envoy's ext_authz.")] = (
        "envoy/authz/allow"
    )
    gateway_entrypoint: Annotated[
        str | None,
        Meta(description="Asked by `/api/v1/gateway/authorize`. Without it, `policy.entrypoint`."),
    ] = None
    a2a_entrypoint: Annotated[
        str | None,
        Meta(description="Asked by `/api/v1/gateway/authorize-a2a`. Without it, `policy.entrypoint`."),
    ] = None
    ext_authz_allowed: Annotated[
        tuple[str, ...],
        Meta(description="What a route of Envoy may name instead, with the context extension `sark_entrypoint`."),
    ] = ()
    ext_authz_dry_run: Annotated[
        bool,
        Meta(description="Decides and records, but lets every request of Envoy through."),
    ] = False
    ext_authz_on_failure: Annotated[
        Literal["deny", "error"],
        Meta(
            description="What Envoy is told where there is no decision: a denial, or an error, which "
            "`failure_mode_allow` lets through."
        ),
    ] = "deny"
    ext_authz_parse_body: Annotated[
        bool, Meta(description="Whether bodies are parsed, into `parsed_body` and `truncated_body`.")
    ] = True
    ext_authz_proto_descriptor: Annotated[
        Path | None,
        Meta(description="A `FileDescriptorSet` of gRPC services behind Envoy, whose messages policies get parsed."),
    ] = None


class L1Settings(Struct, frozen=True, kw_only=True):
    """The cache in memory."""

    size: Annotated[int, Meta(description="Verdicts that are kept; 0 turns the cache off.", ge=0)] = 1000
    ttl: Annotated[Seconds, Meta(description="The longest that a verdict is reused; 0 turns the cache off.", ge=0)] = (
        Seconds(10.0)
    )


class CacheSettings(Struct, frozen=True, kw_only=True):
    """Where verdicts are kept."""

    l1: L1Settings = L1Settings()
    l2: L2Settings = L2Settings()
    max_staleness: Annotated[
        Seconds,
        Meta(
            description="How old attributes may be that are used past their lifetime, while PostgreSQL is away.",
            ge=0,
        ),
    ] = Seconds(300.0)


class AttributeCacheSettings(Struct, frozen=True, kw_only=True):
    """Where attributes are kept in memory."""

    size: Annotated[int, Meta(description="Rows of the registry that are kept.", ge=1)] = 5000
    ttl: Annotated[
        Seconds, Meta(description="The longest that one is used before Redis or PostgreSQL is asked.", ge=0)
    ] = Seconds(10.0)


class AttributeSettings(Struct, frozen=True, kw_only=True):
    """The registry of users, servers and tools, in PostgreSQL."""

    postgres_dsn: Annotated[
        str | None,
        Meta(description="Connection string of PostgreSQL, without a password. Without it, requests bring attributes."),
    ] = None
    postgres_password_file: Annotated[
        Path | None, Meta(description="The password of PostgreSQL, read for each connection.")
    ] = None
    pool_size: Annotated[int, Meta(description="Connections to PostgreSQL.", ge=1)] = 2
    pool_overflow: Annotated[int, Meta(description="Connections that are added while all are in use.", ge=0)] = 0
    timeout: Annotated[Seconds, Meta(description="The longest that one reading of PostgreSQL may take.", gt=0)] = (
        Seconds(0.5)
    )
    ttl: Annotated[
        Seconds, Meta(description="The longest that a row is believed without PostgreSQL, in memory and Redis.", gt=0)
    ] = Seconds(60.0)
    trust_caller: Annotated[
        bool, Meta(description="Lets what a request says of its user, tool and server override the registry.")
    ] = False
    l1: AttributeCacheSettings = AttributeCacheSettings()


class TlsSettings(Struct, frozen=True, kw_only=True):
    """TLS of `listen.grpc`, `listen.http` and `listen.admin` over TCP."""

    cert_file: Annotated[Path | None, Meta(description="The server's certificate chain, PEM.")] = None
    key_file: Annotated[Path | None, Meta(description="Its private key, PEM.")] = None
    client_ca_file: Annotated[
        Path | None, Meta(description="Certificates that clients' must be signed by, PEM: makes it mTLS.")
    ] = None
    allowed_sans: Annotated[
        tuple[str, ...],
        Meta(description="Subject alternative names that a client's certificate may have; empty: any that is signed."),
    ] = ()


class LimitSettings(Struct, frozen=True, kw_only=True):
    """What one call, and all of them together, may take."""

    eval_timeout: Annotated[Seconds, Meta(description="One evaluation; past it, the answer is a denial.", gt=0)] = (
        Seconds(0.05)
    )
    max_input_bytes: Annotated[Bytes, Meta(description="One input document.", ge=1)] = Bytes(2**20)
    in_flight_bytes: Annotated[Bytes, Meta(description="All messages being answered.", ge=1)] = Bytes(2**24)
    max_bundle_bytes: Annotated[Bytes, Meta(description="One bundle, packed or unpacked.", ge=2**10, le=2**32 - 1)] = (
        Bytes(2**27)
    )
    wasm_memory: Annotated[Bytes, Meta(description="Memory of one policy instance.", ge=2**17, le=2**32)] = Bytes(2**26)
    max_concurrent: Annotated[
        int, Meta(description="Calls being answered; on grpcio no more than 64 of them streams and watches.", ge=1)
    ] = 1000
    max_batch: Annotated[
        int, Meta(description="Requests of one `CheckBatch` or JSON batch, resources of one `Filter`.", ge=1)
    ] = 1000
    max_depth: Annotated[int, Meta(description="Nesting of an input document.", ge=1, le=200)] = 30
    max_values: Annotated[
        int, Meta(description="Values of a document: to read very many delays everybody's answers.", ge=1)
    ] = 20_000
    max_message_bytes: Annotated[Bytes, Meta(description="One gRPC message, or body of HTTP.", ge=1, le=2**31 - 1)] = (
        Bytes(2**22)
    )


class ShutdownSettings(Struct, frozen=True, kw_only=True):
    """How the process ends."""

    grace: Annotated[Seconds, Meta(description="How long calls may finish after SIGTERM.", ge=0)] = Seconds(10.0)


class LogSettings(Struct, frozen=True, kw_only=True):
    """What is logged, to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")] = (
        "info"
    )
    format: Annotated[Literal["json", "text"], Meta(description="`json`: one object per line; `text`: for people.")] = (
        "json"
    )


class Settings(Struct, frozen=True, kw_only=True):
    """Every setting, with its effective value."""

    listen: ListenSettings
    transport: Annotated[
        Literal["auto", "front", "grpcio"],
        Meta(
            description="What carries gRPC: `front` is native code, built where cargo was at installation; "
            "`auto` takes it where it is there, else `grpcio`."
        ),
    ] = "auto"
    policy: PolicySettings
    cache: CacheSettings = CacheSettings()
    attributes: AttributeSettings = AttributeSettings()
    audit: AuditSettings
    tls: TlsSettings = TlsSettings()
    principal: PrincipalSettings = PrincipalSettings()
    limits: LimitSettings = LimitSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    address: Annotated[
        Address,
        _derived(
            "What the commands that ask a running process connect to.",
            "the first of `listen.grpc`, on loopback where that listens everywhere",
        ),
    ]
    state_dir: Annotated[
        Path,
        _derived(
            "Folder of what outlives a restart.",
            "`sark-pdp` in `$XDG_STATE_HOME`, else in `$HOME/.local/state`; `/var/lib/sark-pdp` where there is no home",
        ),
    ]
