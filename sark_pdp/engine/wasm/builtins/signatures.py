"""Signatures of JWTs (RFC 7518, RFC 8037) made and checked with the keys of `jwk`.

OPA checks in two ways. `io.jwt.verify_*` names family and hash, takes public keys only, elliptic curves of any size and
PSS with salts of any length; `io.jwt.decode_verify` goes by the algorithm of the token, as strictly as RFC 7518.
A JOSE library knows only the second way, and none chooses keys as OPA does.
"""

import hmac
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.jwk import KeyMaterial

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_SHORTEST_MODULUS: Final = 1024
"""Bits: Go takes no shorter RSA key for a signature."""


def is_signed_by(key: KeyMaterial, algorithm: str, message: bytes, signature: bytes) -> bool:
    """Whether a public key made the signature; `algorithm` as in `io.jwt.verify_…`."""
    if algorithm == "eddsa":
        return isinstance(key, ed25519.Ed25519PublicKey) and _is_ed25519(key, message, signature)
    family, chosen = algorithm[:2], _HASHES[algorithm[2:]]
    if family == "es":
        # Each half is a number, whatever the curve.
        half = len(signature) // 2
        return isinstance(key, ec.EllipticCurvePublicKey) and _is_ecdsa(key, message, signature, half, chosen)
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    scheme = _pss(chosen, padding.PSS.AUTO) if family == "ps" else padding.PKCS1v15()
    return _is_rsa(key, message, signature, scheme, chosen)


def is_signed_as_stated(key: KeyMaterial, algorithm: str, message: bytes, signature: bytes) -> bool:
    """Whether the key made the signature with the algorithm that the token states, one of RFC 7518 or `Ed25519`."""
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        key = key.public_key()
    if algorithm in ("EdDSA", "Ed25519"):
        return isinstance(key, ed25519.Ed25519PublicKey) and _is_ed25519(key, message, signature)
    family, chosen = algorithm[:2], _HASHES.get(algorithm[2:])
    if chosen is None:
        return False
    if family == "HS":
        return isinstance(key, bytes) and hmac.compare_digest(_mac(key, chosen, message), signature)
    if family == "ES" and isinstance(key, ec.EllipticCurvePublicKey):
        size = -(-key.curve.key_size // 8)
        return len(signature) == 2 * size and _is_ecdsa(key, message, signature, size, chosen)
    if family not in ("RS", "PS") or not isinstance(key, rsa.RSAPublicKey):
        return False
    scheme = _pss(chosen, padding.PSS.DIGEST_LENGTH) if family == "PS" else padding.PKCS1v15()
    return _is_rsa(key, message, signature, scheme, chosen)


def sign(key: KeyMaterial, algorithm: str, message: bytes) -> bytes:
    """The signature; `algorithm` is one of `jwk.ALGORITHMS`. Raises BuiltinError where the key is not for it."""
    if algorithm == "EdDSA":
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(message)
        raise _not_for(algorithm)
    family, chosen = algorithm[:2], _HASHES[algorithm[2:]]
    if family == "HS" and isinstance(key, bytes):
        return _mac(key, chosen, message)
    if family == "ES" and isinstance(key, ec.EllipticCurvePrivateKey):
        size = -(-key.curve.key_size // 8)
        numbers = decode_dss_signature(key.sign(message, ec.ECDSA(chosen)))
        return b"".join(number.to_bytes(size) for number in numbers)
    if family in ("RS", "PS") and isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SHORTEST_MODULUS:
        scheme = _pss(chosen, padding.PSS.DIGEST_LENGTH) if family == "PS" else padding.PKCS1v15()
        try:
            return key.sign(message, scheme, chosen)
        except ValueError:
            raise BuiltinError("the RSA key is too short for this signature") from None
    raise _not_for(algorithm)


def _mac(key: bytes, chosen: hashes.HashAlgorithm, message: bytes) -> bytes:
    return hmac.digest(key, message, chosen.name)


def _pss(chosen: hashes.HashAlgorithm, salt_length: object) -> padding.PSS:
    return padding.PSS(padding.MGF1(chosen), salt_length)  # type: ignore[arg-type]


def _is_rsa(
    key: rsa.RSAPublicKey,
    message: bytes,
    signature: bytes,
    scheme: padding.PSS | padding.PKCS1v15,
    chosen: hashes.HashAlgorithm,
) -> bool:
    if key.key_size < _SHORTEST_MODULUS:
        return False
    try:
        key.verify(signature, message, scheme, chosen)
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_ecdsa(
    key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes, half: int, chosen: hashes.HashAlgorithm
) -> bool:
    encoded = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    try:
        key.verify(encoded, message, ec.ECDSA(chosen))
    except InvalidSignature:
        return False
    return True


def _is_ed25519(key: ed25519.Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _not_for(algorithm: str) -> BuiltinError:
    return BuiltinError(f"the key is not one to sign {algorithm} with")
