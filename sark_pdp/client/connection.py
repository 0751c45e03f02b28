"""How a client connects: target, credentials and channel options. Nothing here opens a connection."""

import json
import math
from pathlib import Path
from typing import Any

import grpc
from msgspec import Struct

from sark_pdp.addresses import parse_address
from sark_pdp.errors import InvalidRequestError, SettingsError
from sark_pdp.model import Seconds

DEFAULT_ADDRESS = "127.0.0.1:9001"
DEFAULT_TIMEOUT = Seconds(0.2)
"""What Envoy's ext_authz waits by default, too."""

# A decision asked twice is the same decision, audited twice under one request id; so only what was most likely not
# decided is asked again: UNAVAILABLE. The deadline of the call holds for all attempts together.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "sark.pdp.v1.PolicyDecision"}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.05s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.service_config_disable_resolution", 1),
    # The proxy that the environment names for the web is not on the way to a sidecar.
    ("grpc.enable_http_proxy", 0),
    # A dead peer is noticed while calls wait for it; the second figure is TCP_USER_TIMEOUT, too.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # A sidecar that restarts is back within a second; the defaults would look again after up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Clients share no connection: what one of them knows about a dead peer does not fail the first call of the next.
    ("grpc.use_local_subchannel_pool", 1),
    # 1000 answers with their results; what is sent is limited by the decision point.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


class Tls(Struct, frozen=True):
    """The files for TLS, PEM; read once, when the client is made."""

    ca_file: Path | str | None = None
    """Who may sign the decision point's certificate; None: the authorities that gRPC brings."""
    cert_file: Path | str | None = None
    """The client's certificate, for mTLS; together with `key_file`."""
    key_file: Path | str | None = None
    server_name: str = ""
    """The name in the decision point's certificate, where the address does not say it (a Unix socket, an IP)."""


class Connection(Struct, frozen=True):
    """What a channel is made of."""

    target: str
    credentials: grpc.ChannelCredentials | None
    """None: plaintext."""
    options: tuple[tuple[str, Any], ...]


def connection(address: str, tls: Tls | None) -> Connection:
    """Raises SettingsError for an address or a file that cannot be used."""
    try:
        target = str(parse_address(address))
    except ValueError as problem:
        raise SettingsError(f"address: {address!r} {problem}; write host:port or unix:///path") from None
    if tls is None:
        return Connection(target, None, _OPTIONS)
    if (tls.cert_file is None) != (tls.key_file is None):
        raise SettingsError("tls: cert_file and key_file go together; give both or neither")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read("ca_file", tls.ca_file),
        private_key=_read("key_file", tls.key_file),
        certificate_chain=_read("cert_file", tls.cert_file),
    )
    name = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
    return Connection(target, credentials, _OPTIONS + name)


def checked_timeout(timeout: float) -> float:
    """The timeout of a call, in seconds; raises InvalidRequestError for what is none."""
    if not 0 < timeout < math.inf:
        raise InvalidRequestError("timeout", f"must be a positive number of seconds, is {timeout}")
    return timeout


def checked_window(window: float) -> Seconds:
    """How long a question may wait for others; raises InvalidRequestError for what is no length of time."""
    if not 0 <= window < math.inf:
        raise InvalidRequestError("window", f"must be a number of seconds from 0 on, is {window}")
    return Seconds(window)


def checked_count(name: str, count: int, least: int) -> int:
    """A number of things; raises InvalidRequestError for one that is too small."""
    if count < least:
        raise InvalidRequestError(name, f"must be at least {least}, is {count}")
    return count


def _read(name: str, file: Path | str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as problem:
        raise SettingsError(f"tls: {name} {str(file)!r} cannot be read: {problem.strerror}") from problem
