"""`providers.aws.sign_req`: AWS Signature Version 4, for a request that the caller will make."""

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, integer, items, string
from sark_pdp.engine.wasm.builtins.gojson import marshal
from sark_pdp.engine.wasm.builtins.gourl import parse_url
from sark_pdp.model import Json

_REQUEST: Final = frozenset({
    "method", "url", "body", "enable_redirect", "force_json_decode", "force_yaml_decode", "headers", "raw_body",
    "tls_use_system_certs", "tls_ca_cert", "tls_ca_cert_file", "tls_ca_cert_env_variable", "tls_client_cert",
    "tls_client_cert_file", "tls_client_cert_env_variable", "tls_client_key", "tls_client_key_file",
    "tls_client_key_env_variable", "tls_insecure_skip_verify", "tls_server_name", "timeout", "cache", "force_cache",
    "force_cache_duration_seconds", "raise_error", "caching_mode", "max_retry_attempts", "cache_ignored_headers",
})  # fmt: skip
"""What a request may say: the parameters of `http.send`."""
_CREDENTIALS: Final = ("aws_service", "aws_access_key", "aws_secret_access_key", "aws_region")
_UNSIGNED_HEADERS: Final = frozenset({"authorization", "user-agent", "x-amzn-trace-id"})
"""A proxy may change these on the way."""
_WITH_CONTENT_HASH: Final = ("s3", "glacier")
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"providers.aws.sign_req": _sign_request}


def _sign_request(_: Context, request: Json, configuration: Json, time_ns: Json) -> Json:
    parts, config = dict(items(request)), dict(items(configuration))
    if not parts.keys() <= _REQUEST:
        raise BuiltinError("providers.aws.sign_req: a request with an unknown parameter")
    time = datetime.fromtimestamp(integer(time_ns) // 1_000_000_000, UTC)
    is_unsigned = config.get("disable_payload_signing", False)
    if type(is_unsigned) is not bool:
        raise BuiltinError("providers.aws.sign_req: disable_payload_signing must be a boolean")
    content_hash = "UNSIGNED-PAYLOAD" if is_unsigned else sha256(_body(parts)).hexdigest()
    headers = {_text(name): _text(value) for name, value in items(parts.get("headers", {}))}
    added = _aws_headers(string(parts.get("url")), config, time, content_hash)
    authorization = _authorization(parts, headers, added, config, time, content_hash)
    return parts | {"headers": headers | {"Authorization": authorization} | added}


def _text(value: Json) -> str:
    return value if type(value) is str else ""


def _body(parts: dict[str, Json]) -> bytes:
    if "raw_body" in parts:
        return _text(parts["raw_body"]).encode()
    return marshal(parts["body"]).encode() if "body" in parts else b""


def _aws_headers(url: str, config: dict[str, Json], time: datetime, content_hash: str) -> dict[str, str]:
    headers = {"host": parse_url(url).host, "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ")}
    if config.get("aws_service") in _WITH_CONTENT_HASH:
        headers["x-amz-content-sha256"] = content_hash
    token = _text(config.get("aws_session_token"))
    return headers | ({"x-amz-security-token": token} if token else {})


def _authorization(
    parts: dict[str, Json],
    headers: dict[str, str],
    added: dict[str, str],
    config: dict[str, Json],
    time: datetime,
    content_hash: str,
) -> str:
    service, access, secret, region = (string(config.get(name)) for name in _CREDENTIALS)
    own = {name.lower(): value for name, value in headers.items()}
    signed = added | {name: value for name, value in own.items() if name not in _UNSIGNED_HEADERS}
    names = ";".join(sorted(signed))
    url = parse_url(string(parts.get("url")))
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    canonical = [string(parts.get("method")), url.escaped_path, url.raw_query, *lines, "", names, content_hash]
    date = time.strftime("%Y%m%d")
    scope = f"{date}/{region}/{service}/aws4_request"
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), sha256)
    digest = sha256("\n".join(canonical).encode()).hexdigest()
    signature = hmac.digest(key, "\n".join([_ALGORITHM, added["x-amz-date"], scope, digest]).encode(), sha256)
    return f"{_ALGORITHM} Credential={access}/{scope},SignedHeaders={names},Signature={signature.hex()}"
