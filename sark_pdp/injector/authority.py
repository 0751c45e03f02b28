"""Certificates of the chart's own: an authority, and what it signs, kept in Secrets of the cluster.

Run again and again, it changes only what is due. Whoever trusts the authority is told of a new one before anything is
signed with it: the webhook first, the Secrets of the servers last.
"""

import base64
import http.client
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from sark_pdp.errors import StartError
from sark_pdp.injector.api import Api, RefusedError, ask

_AUTHORITY_DAYS: Final = 3650
_AUTHORITY_LEFT: Final = 366
"""Days before the end of an authority from which on another one signs."""
_ATTEMPTS: Final = 5
"""Somebody else may change an object at the same time."""
_EARLIER: Final = timedelta(minutes=5)
"""By which clocks of nodes may differ."""


class Plan(Struct, frozen=True):
    """What there is to keep valid."""

    namespace: str
    authority: str
    """The Secret of the authority: `ca.crt`, newest first, and `ca.key` of the newest."""
    issued: Mapping[str, tuple[str, ...]]
    """DNS names of a certificate, by the Secret that holds it: `tls.crt`, `tls.key`, and `ca.crt` to verify it with."""
    webhook: str | None
    """A MutatingWebhookConfiguration that must trust the authority."""
    days: int
    """How long a certificate is valid."""


def keep_valid(api: Api, plan: Plan, now: datetime, tell: Callable[[str], None]) -> None:
    """Makes what is missing, due or for other names. The Secrets must be there, maybe empty. Raises StartError."""
    secrets = f"/api/v1/namespaces/{quote(plan.namespace)}/secrets"
    authority = _change(api, f"{secrets}/{quote(plan.authority)}", lambda held: _authority(held, now), tell)
    trusted = _text(authority, "ca.crt")
    if plan.webhook is not None:
        path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{quote(plan.webhook)}"
        _change(api, path, lambda webhook: _trust(webhook, trusted), tell)
    for name, names in plan.issued.items():

        def issue(held: dict[str, Any], names: tuple[str, ...] = names) -> str:
            return _certificate(held, authority, names, timedelta(days=plan.days), now)

        _change(api, f"{secrets}/{quote(name)}", issue, tell)


def _change(
    api: Api, path: str, change: Callable[[dict[str, Any]], str], tell: Callable[[str], None]
) -> dict[str, Any]:
    """The object at `path`, after `change`, which says what it did, or nothing. Raises StartError."""
    try:
        for _ in range(_ATTEMPTS):
            found = ask(api, "GET", path)
            done = change(found)
            name = path.rpartition("/")[2]
            if not done:
                tell(f"{name}: nothing to do")
                return found
            try:
                changed = ask(api, "PUT", path, found)
            except RefusedError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                continue
            tell(f"{name}: {done}")
            return changed
    except (OSError, http.client.HTTPException, ValueError, RefusedError) as error:
        raise StartError(f"{path}: cannot be brought up to date: {error}") from error
    raise StartError(f"{path}: was changed by others {_ATTEMPTS} times meanwhile; try again")


def _authority(secret: dict[str, Any], now: datetime) -> str:
    """Leaves in it an authority that is valid for long enough, and the former ones that are still valid."""
    held = _certificates(secret, "ca.crt")
    known = [each for each in held if each.not_valid_after_utc > now]
    lasts = known and known[0].not_valid_after_utc > now + timedelta(days=_AUTHORITY_LEFT)
    if lasts and _is_key_of(_text(secret, "ca.key"), known[0]):
        if known == held:
            return ""
        _put(secret, "ca.crt", _pem(known))
        return "an authority that has ended was taken out"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"sark-pdp {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _builder(name, name, key.public_key(), now, timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _put(secret, "ca.crt", _pem([made, *known]))
    _put(secret, "ca.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return "another authority signs from now on" if known else "an authority was made"


def _trust(webhook: dict[str, Any], authorities: bytes) -> str:
    bundle = base64.b64encode(authorities).decode()
    configs = [each["clientConfig"] for each in webhook.get("webhooks", ())]
    if all(config.get("caBundle") == bundle for config in configs):
        return ""
    for config in configs:
        config["caBundle"] = bundle
    return "trusts the authority"


def _certificate(
    secret: dict[str, Any], authority: dict[str, Any], names: tuple[str, ...], lifetime: timedelta, now: datetime
) -> str:
    """Leaves in it a certificate for these names by the present authority, of which a third is left."""
    signer = _certificates(authority, "ca.crt")[0]
    trusted = _text(authority, "ca.crt")
    held = _certificates(secret, "tls.crt")
    good = held and _fits(held[0], signer, names, now) and _is_key_of(_text(secret, "tls.key"), held[0])
    if good and _text(secret, "ca.crt") == trusted:
        return ""
    _put(secret, "ca.crt", trusted)
    if good:
        return "tells of another authority"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    loaded = load_pem_private_key(_text(authority, "ca.key"), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)  # noqa: S101 (it was made here)
    made = (
        _builder(subject, signer.subject, key.public_key(), now, lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(loaded.public_key()), critical=False)
        .sign(loaded, hashes.SHA256())
    )
    _put(secret, "tls.crt", made.public_bytes(Encoding.PEM))
    _put(secret, "tls.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return f"a certificate for {', '.join(names)}, valid until {made.not_valid_after_utc:%Y-%m-%d}"


def _fits(held: x509.Certificate, signer: x509.Certificate, names: tuple[str, ...], now: datetime) -> bool:
    lifetime = held.not_valid_after_utc - held.not_valid_before_utc
    try:
        subject = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = subject.get_values_for_type(x509.DNSName)
        held.verify_directly_issued_by(signer)
    except Exception:  # noqa: BLE001 (cryptography raises several, all of which say no)
        return False
    return tuple(found) == names and held.not_valid_after_utc - now > lifetime / 3


def _is_key_of(pem: bytes, certificate: x509.Certificate) -> bool:
    """Somebody may have put one half of another pair there."""
    try:
        return load_pem_private_key(pem, None).public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + lifetime)
    )


def _certificates(secret: dict[str, Any], key: str) -> list[x509.Certificate]:
    """None where it cannot be read: it is made anew then."""
    try:
        return x509.load_pem_x509_certificates(_text(secret, key))
    except ValueError:
        return []


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _text(secret: dict[str, Any], key: str) -> bytes:
    return base64.b64decode((secret.get("data") or {}).get(key, ""))


def _put(secret: dict[str, Any], key: str, value: bytes) -> None:
    if not secret.get("data"):
        secret["data"] = {}
    secret["data"][key] = base64.b64encode(value).decode()


def utc_now() -> datetime:
    """The clock that certificates are made by."""
    return datetime.now(UTC)
