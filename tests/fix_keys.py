"""Keys and certificates for tests, made anew in each run."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import NameOID

_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@lru_cache
def private_key(kind: str, number: int = 0) -> Any:
    """A key of `RSA`, `Ed25519`, `X25519` or a curve as JWKs name it; another number is another key."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    return ed25519.Ed25519PrivateKey.generate() if kind == "Ed25519" else x25519.X25519PrivateKey.generate()


def jwk_of(key: Any) -> dict[str, Any]:
    """A private or public key as a JWK."""
    public = key if not hasattr(key, "public_key") else key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        jwk: dict[str, Any] = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        if public is not key:
            private = key.private_numbers()
            parts = {"d": "d", "p": "p", "q": "q", "dp": "dmp1", "dq": "dmq1", "qi": "iqmp"}
            jwk |= {name: _number(getattr(private, own)) for name, own in parts.items()}
        return jwk
    if isinstance(public, ec.EllipticCurvePublicKey):
        point, size = public.public_numbers(), -(-public.key_size // 8)
        jwk = {"kty": "EC", "crv": f"P-{public.key_size}", "x": _number(point.x, size), "y": _number(point.y, size)}
        return jwk if public is key else jwk | {"d": _number(key.private_numbers().private_value, size)}
    kind = "Ed25519" if isinstance(public, ed25519.Ed25519PublicKey) else "X25519"
    jwk = {"kty": "OKP", "crv": kind, "x": _text(public.public_bytes_raw())}
    return jwk if public is key else jwk | {"d": _text(key.private_bytes_raw())}


def certificate_of(key: Any) -> x509.Certificate:
    """A certificate for the key, signed with itself; valid for the next hours."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=24))
    )
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _number(value: int, size: int = 0) -> str:
    return _text(value.to_bytes(size or -(-value.bit_length() // 8)))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
