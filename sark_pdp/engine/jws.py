"""Compact JSON Web Signatures (RFC 7515, RFC 7518) with one key: HS, RS, PS and ES with SHA-256, 384 and 512.

What the key is decides which algorithms count, never the token: a public key cannot be used as an HMAC secret, for
everybody knows it, and could sign with it.
`cryptography` is imported where a key is RSA or ECDSA.
"""

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from sark_pdp.errors import BundleSignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes

_PEM: Final = b"-----BEGIN "
_SSH: Final = (b"ssh-", b"ecdsa-", b"---- BEGIN ")
_ASN1_SEQUENCE: Final = 0x30
_SIZES: Final = ("256", "384", "512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Token(Struct, frozen=True):
    """A token taken apart, its signature not looked at yet."""

    algorithm: str
    key_id: str
    """Empty where the header has none."""
    payload: bytes
    signed: bytes
    """What the signature is over."""
    signature: bytes


class _Header(Struct, frozen=True):
    alg: str
    kid: str = ""
    crit: tuple[str, ...] = ()


def parse(token: str) -> Token:
    """Raises BundleSignatureError where it is no compact token, or asks for an extension."""
    try:
        head, payload, signature = token.encode("ascii").split(b".")
        header = msgspec.json.decode(_decoded(head), type=_Header)
        if header.crit:
            raise BundleSignatureError(f"the token asks for the extension {header.crit[0]}")
        return Token(header.alg, header.kid, _decoded(payload), head + b"." + payload, _decoded(signature))
    except (ValueError, msgspec.MsgspecError, binascii.Error, RecursionError):
        raise BundleSignatureError("the token is no compact JSON Web Signature") from None


def is_valid(token: Token, key: bytes) -> bool:
    """Whether `key` made the signature: a PEM public key or certificate, or a secret of at least one byte.

    Raises BundleSignatureError where the key is of no use for the token's algorithm.
    """
    family, size = token.algorithm[:2], token.algorithm[2:]
    if size not in _SIZES or family not in {"HS", "RS", "PS", "ES"}:
        raise BundleSignatureError(f"the algorithm {token.algorithm!r} is not one of HS, RS, PS and ES")
    if family == "HS":
        if _is_key_pair_part(key):
            raise BundleSignatureError(f"the key is public, and {token.algorithm} needs a secret")
        # Whoever wrote the file may have ended the line, or may have signed with the line end.
        return any(
            hmac.compare_digest(hmac.digest(secret, token.signed, f"sha{size}"), token.signature)
            for secret in {key, key.rstrip(b"\r\n")} - {b""}
        )
    if _PEM not in key:
        raise BundleSignatureError(f"{token.algorithm} needs a public key or certificate in PEM; the key is none")
    return _is_valid_public(token, family, _hash(size), _public_key(key))


def sign(payload: bytes, key: bytes, algorithm: str, key_id: str) -> str:
    """A compact token; `key` is a PEM private key without a password, or a secret."""
    head = {"alg": algorithm, "typ": "JWT"} | ({"kid": key_id} if key_id else {})
    signed = _encoded(msgspec.json.encode(head)) + b"." + _encoded(payload)
    return (signed + b"." + _encoded(_signature(signed, key, algorithm))).decode()


def _is_valid_public(token: Token, family: str, digest: "hashes.HashAlgorithm", public: Any) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    signature = token.signature
    arguments: tuple[Any, ...]
    if family == "ES" and isinstance(public, ec.EllipticCurvePublicKey):
        if _CURVES.get(public.curve.name) != token.algorithm:
            raise BundleSignatureError(f"the key is on the curve {public.curve.name}, not one of {token.algorithm}")
        half = (public.curve.key_size + 7) // 8
        if len(signature) != 2 * half:
            return False
        signature = utils.encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        arguments = (ec.ECDSA(digest),)
    elif family == "RS" and isinstance(public, rsa.RSAPublicKey):
        arguments = (padding.PKCS1v15(), digest)
    elif family == "PS" and isinstance(public, rsa.RSAPublicKey):
        arguments = (padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    else:
        raise BundleSignatureError(f"the key is of another kind than {token.algorithm} needs")
    try:
        public.verify(signature, token.signed, *arguments)
    except InvalidSignature:
        return False
    return True


def _signature(signed: bytes, key: bytes, algorithm: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    family, size = algorithm[:2], algorithm[2:]
    if family == "HS":
        if _is_key_pair_part(key) or not key.rstrip(b"\r\n"):
            raise BundleSignatureError(f"{algorithm} needs a secret; this key is one of a key pair, or empty")
        return hmac.digest(key.rstrip(b"\r\n"), signed, f"sha{size}")
    digest = _hash(size)
    private = _private_key(key)
    if family == "ES" and isinstance(private, ec.EllipticCurvePrivateKey):
        if _CURVES.get(private.curve.name) != algorithm:
            raise BundleSignatureError(f"a key on the curve {private.curve.name} does not sign {algorithm}")
        half = (private.curve.key_size + 7) // 8
        r, s = utils.decode_dss_signature(private.sign(signed, ec.ECDSA(digest)))
        return r.to_bytes(half) + s.to_bytes(half)
    if family == "RS" and isinstance(private, rsa.RSAPrivateKey):
        return private.sign(signed, padding.PKCS1v15(), digest)
    if family == "PS" and isinstance(private, rsa.RSAPrivateKey):
        return private.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    raise BundleSignatureError(f"the key is of another kind than {algorithm} needs")


def _hash(size: str) -> "hashes.HashAlgorithm":
    from cryptography.hazmat.primitives import hashes

    made: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
    return made[size]


def _public_key(pem: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    if b"PRIVATE KEY-----" in pem:
        raise BundleSignatureError("the verification key is private; whoever verifies needs only the public one")
    try:
        if _PEM + b"CERTIFICATE" in pem:
            return load_pem_x509_certificate(pem).public_key()
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BundleSignatureError("the verification key is no public key or certificate in PEM") from None


def _private_key(pem: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BundleSignatureError("the signing key is no private key in PEM without a password") from None


def _is_key_pair_part(key: bytes) -> bool:
    """Whether this is no secret, but half of a key pair or a certificate, in whatever form tools write them.

    The cases: PEM, which other text may precede; SSH's own formats; DER; and DER as bare base64.
    """
    if _PEM in key or key.lstrip().startswith(_SSH):
        return True
    try:
        inner = base64.b64decode(b"".join(key.split()), validate=True)
    except binascii.Error:
        inner = b""
    return any(_is_asn1_sequence(each) for each in (key, key.rstrip(b"\r\n"), inner))


def _is_asn1_sequence(content: bytes) -> bool:
    """Whether these bytes are one SEQUENCE and nothing else, as all keys and certificates in DER are (X.690)."""
    if len(content) < 2 or content[0] != _ASN1_SEQUENCE:
        return False
    length_of_length = content[1] & 0x7F if content[1] & 0x80 else 0
    length = int.from_bytes(content[2 : 2 + length_of_length]) if length_of_length else content[1]
    return len(content) == 2 + length_of_length + length


def _encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
