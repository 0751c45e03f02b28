"""What no single key shows: files that must exist, and settings that only make sense together."""

import os
from collections.abc import Collection, Mapping, Sequence

from sark_pdp.addresses import MAX_UNIX_PATH_BYTES, Address, TcpAddress, UnixAddress
from sark_pdp.errors import SettingsError
from sark_pdp.settings import l2, principal, tracing
from sark_pdp.settings.bundles import problem_of
from sark_pdp.settings.schema import Settings
from sark_pdp.settings.units import format_size

_SMALLEST_SPOOL = 2**20


def check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Raises SettingsError for the first thing that is wrong."""
    _check_files(settings, origins)
    _check_tls(settings, origins)
    _check_listeners(settings, origins)
    if problem := problem_of(settings.policy.bundles, packed=origins["policy.bundles"] == "default"):
        raise _wrong(f"policy.bundles{problem.at}", problem.value, origins["policy.bundles"], problem.text)
    if wrong := l2.problem_of(settings.cache.l2):
        key = f"cache.l2.{wrong.key}"
        value = getattr(settings.cache.l2, wrong.key)
        # A password may be in it, and this line is logged.
        shown = "***" if wrong.key == "url" and "@" in value else value
        raise _wrong(key, f"'{shown}'", origins[key], wrong.text)
    if unproven := principal.problem_of(settings.principal):
        key = f"principal.{unproven.key}"
        raise _wrong(key, _value_at(settings, key), origins[key], unproven.text)
    if untraced := tracing.problem_of(settings.tracing):
        key = f"tracing.{untraced.key}"
        # A password may be in it, and this line is logged.
        value = _value_at(settings, key)
        raise _wrong(key, "'***'" if "@" in value else value, origins[key], untraced.text)
    _check_audit(settings, origins)


def _value_at(settings: Settings, key: str) -> str:
    value: object = settings
    for name in key.split("."):
        value = getattr(value, name)
    return str(list(value)) if isinstance(value, tuple) else f"'{value}'"


def _check_files(settings: Settings, origins: Mapping[str, str]) -> None:
    named = {
        "policy.ext_authz_proto_descriptor": settings.policy.ext_authz_proto_descriptor,
        "tls.cert_file": settings.tls.cert_file,
        "tls.key_file": settings.tls.key_file,
        "tls.client_ca_file": settings.tls.client_ca_file,
        "audit.chain_key_file": settings.audit.chain_key_file,
        "attributes.postgres_password_file": settings.attributes.postgres_password_file,
        "audit.mask_key_file": settings.audit.mask_key_file,
        "audit.tls.ca_file": settings.audit.tls.ca_file,
        "audit.tls.cert_file": settings.audit.tls.cert_file,
        "audit.tls.key_file": settings.audit.tls.key_file,
    }
    for key, file in named.items():
        if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
            raise _wrong(key, f"'{file}'", origins[key], "cannot be read; expected a file that this process may read")


def _check_tls(settings: Settings, origins: Mapping[str, str]) -> None:
    tls = settings.tls
    needs = {
        "tls.cert_file": (tls.cert_file, "tls.key_file", tls.key_file),
        "tls.key_file": (tls.key_file, "tls.cert_file", tls.cert_file),
        "tls.client_ca_file": (tls.client_ca_file, "tls.cert_file", tls.cert_file),
        "tls.allowed_sans": (tls.allowed_sans, "tls.client_ca_file", tls.client_ca_file),
    }
    for key, (value, other, needed) in needs.items():
        if value and not needed:
            shown = list(value) if isinstance(value, tuple) else f"'{value}'"
            raise _wrong(key, str(shown), origins[key], f"is of no use alone; set {other} too")


def _check_listeners(settings: Settings, origins: Mapping[str, str]) -> None:
    listen, tls = settings.listen, settings.tls
    if not listen.grpc:
        raise _wrong("listen.grpc", "[]", origins["listen.grpc"], "is empty; expected at least one address")
    _check_exposed("listen.grpc", listen.grpc, (listen.admin,), settings, origins)
    _check_exposed("listen.http", listen.http or (), (listen.admin, *listen.grpc, listen.metrics), settings, origins)
    if isinstance(listen.admin, UnixAddress) and len(bytes(listen.admin.path)) > MAX_UNIX_PATH_BYTES:
        raise _wrong(
            "listen.admin",
            f"'{listen.admin}'",
            origins["listen.admin"],
            f"has a path of more than {MAX_UNIX_PATH_BYTES} bytes; set a shorter one, or a shorter state_dir",
        )
    if isinstance(listen.admin, TcpAddress) and not tls.client_ca_file:
        raise _wrong(
            "listen.admin",
            f"'{listen.admin}'",
            origins["listen.admin"],
            "is TCP without mTLS; set tls.client_ca_file, or expected unix:///path",
        )


def _check_exposed(
    key: str, addresses: Sequence[Address], others: Collection[Address], settings: Settings, origins: Mapping[str, str]
) -> None:
    """Of what answers questions: nobody else listens there, and who comes from elsewhere comes over TLS."""
    if len(set(addresses)) < len(addresses) or not set(addresses).isdisjoint(_fixed(others)):
        raise _wrong(key, _shown(addresses), origins[key], "names one address twice")
    for address in addresses:
        exposed = isinstance(address, TcpAddress) and not address.loopback
        if exposed and not (settings.tls.cert_file or settings.listen.insecure):
            problem = "is reached from other machines; set tls.cert_file and tls.key_file, or listen.insecure to true"
            raise _wrong(key, f"'{address}'", origins[key], problem)


def _fixed(addresses: Collection[Address]) -> Collection[Address]:
    """Without those that stand for any free port."""
    return [address for address in addresses if not (isinstance(address, TcpAddress) and address.port == 0)]


def _check_audit(settings: Settings, origins: Mapping[str, str]) -> None:
    audit, key = settings.audit, "audit.spool_max_bytes"
    value = f"'{format_size(audit.spool_max_bytes)}'"
    if 0 < audit.spool_max_bytes < _SMALLEST_SPOOL:
        raise _wrong(key, value, origins[key], "is too small; expected 0, or at least 1MiB")
    if not audit.spool_max_bytes and audit.on_full == "deny":
        raise _wrong(key, value, origins[key], "turns the audit trail off, without which audit.on_full deny would deny")

    for index, mask in enumerate(audit.mask):
        if mask.operation == "hash" and audit.mask_key_file is None:
            problem = "needs a key that the hashes are made with; set audit.mask_key_file too"
            raise _wrong(f"audit.mask[{index}].operation", "'hash'", origins["audit.mask"], problem)
    _check_writer(settings, origins)


def _check_writer(settings: Settings, origins: Mapping[str, str]) -> None:
    audit, tls = settings.audit, settings.audit.tls
    needs: dict[str, tuple[object, str, object]] = {
        "audit.writer": (audit.writer, "audit.spool_max_bytes", audit.spool_max_bytes),
        "audit.tls.ca_file": (tls.ca_file, "audit.writer", audit.writer),
        "audit.tls.cert_file": (tls.cert_file, "audit.tls.key_file", tls.key_file),
        "audit.tls.key_file": (
            tls.key_file,
            "audit.tls.cert_file and audit.tls.ca_file",
            tls.cert_file and tls.ca_file,
        ),
        "audit.tls.server_name": (tls.server_name, "audit.tls.ca_file", tls.ca_file),
    }
    for key, (value, other, needed) in needs.items():
        if value and not needed:
            shown = _shown(value) if isinstance(value, tuple) else f"'{value}'"
            raise _wrong(key, shown, origins[key], f"is of no use alone; set {other} too")
    for address in audit.writer:
        if isinstance(address, TcpAddress) and not (address.loopback or tls.ca_file or tls.insecure):
            problem = "is on another machine; set audit.tls.ca_file, or audit.tls.insecure to true"
            raise _wrong("audit.writer", f"'{address}'", origins["audit.writer"], problem)


def _shown(addresses: Sequence[object]) -> str:
    return str([str(address) for address in addresses])


def _wrong(key: str, value: str, origin: str, problem: str) -> SettingsError:
    return SettingsError(f"{key}: {value} ({origin}) {problem}")
