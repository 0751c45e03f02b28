"""The keys that `io.jwt.*` takes: a certificate or public key as PEM, or a JSON Web Key or set of them (RFC 7517).

JWKs are refused and accepted as github.com/lestrrat-go/jwx does it, which OPA uses: one bad key spoils the set.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_der_x509_certificate

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gobase64 import decode_any
from sark_pdp.engine.wasm.builtins.gojson import loads
from sark_pdp.engine.wasm.builtins.pem import next_block
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

MAX_TEXT: Final = 256 * 1024
"""Bytes of a certificate, a key or a set of keys."""
MAX_KEYS: Final = 1000
"""Keys of one set: what jwx takes."""
MAX_MODULUS: Final = 16384
"""Bits of an RSA key: longer ones take milliseconds to verify with."""
_REMEMBERED: Final = 100
_LONGEST_REMEMBERED: Final = 16 * 1024

ALGORITHMS: Final = frozenset({
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA",
})  # fmt: skip
_OTHER_ALGORITHMS: Final = frozenset({
    "none", "Ed25519", "RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512", "A128KW", "A192KW",
    "A256KW", "dir", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW", "A128GCMKW", "A192GCMKW",
    "A256GCMKW", "PBES2-HS256+A128KW", "PBES2-HS384+A192KW", "PBES2-HS512+A256KW", "A128CBC-HS256", "A192CBC-HS384",
    "A256CBC-HS512", "A128GCM", "A192GCM", "A256GCM",
})  # fmt: skip
"""Keys for these are no error: they are left out."""

_CURVES: Final[dict[str, Callable[[], ec.EllipticCurve]]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}
_OKP_SIZE: Final = 32
"""Bytes of Ed25519 and X25519 keys, private and public."""
_MAX_INT: Final = (1 << 63) - 1


class Unusable:
    """A key that parses, and with which nothing verifies."""


PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
KeyMaterial: TypeAlias = PrivateKey | PublicKey | bytes | Unusable


class Key(NamedTuple):
    """A key with what it says about itself; an empty string where it says nothing."""

    algorithm: str
    id: str
    material: KeyMaterial


class Keys:
    """Remembers keys by the text that they were read from: policies verify many tokens with few keys."""

    def __init__(self) -> None:
        self._remembered: Callable[[str], tuple[Key, ...]] = lru_cache(_REMEMBERED)(_verification_keys)

    def parsed(self, text: str) -> tuple[Key, ...]:
        """The keys in a certificate, a public key (both PEM) or a JWK or set of them."""
        return self._remembered(text) if len(text) <= _LONGEST_REMEMBERED else _verification_keys(text)


def _verification_keys(text: str) -> tuple[Key, ...]:
    raw = text.encode()
    block = next_block(raw, 0)
    if block is None:
        return tuple(key for key in jwk_set(raw) if key.algorithm in ALGORITHMS or not key.algorithm)
    _limited(raw)
    if block.end < len(raw):
        raise BuiltinError("there is more behind the PEM block")
    try:
        if block.kind == "CERTIFICATE":
            return (Key("", "", _public_key(load_der_x509_certificate(block.content).public_key())),)
        if block.kind == "PUBLIC KEY":
            return (Key("", "", _public_key(load_der_public_key(block.content))),)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise BuiltinError(f"not a {block.kind.lower()}: {problem}") from None
    raise BuiltinError("a PEM block that is neither a certificate nor a public key")


def _public_key(key: object) -> KeyMaterial:
    if isinstance(key, rsa.RSAPublicKey):
        return _checked_size(key)
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, x25519.X25519PublicKey | dsa.DSAPublicKey):
        return Unusable()
    if isinstance(key, ed448.Ed448PublicKey | x448.X448PublicKey):
        raise BuiltinError("a public key of a kind that Go does not have")
    raise BuiltinError("an unknown kind of public key")


def jwk_set(raw: bytes) -> list[Key]:
    """All keys of a JWK or a set of them. Raises BuiltinError, or LimitError."""
    _limited(raw)
    document = loads(raw)
    if type(document) is not dict:
        raise BuiltinError("a JWK must be an object")
    if "keys" not in document:
        return [_jwk(document)]
    if type(document["keys"]) is not list:
        raise BuiltinError("the keys of a JWK set must be an array")
    if len(document["keys"]) > MAX_KEYS:
        raise BuiltinError(f"a JWK set of more than {MAX_KEYS} keys")
    return [_jwk(key) for key in document["keys"]]


def _limited(raw: bytes) -> None:
    if len(raw) > MAX_TEXT:
        raise LimitError(f"a key of {len(raw)} bytes is too large for a built-in; the limit is {MAX_TEXT}")


def _jwk(key: Json) -> Key:
    if type(key) is not dict:
        raise BuiltinError("a JWK must be an object")
    for name in ("kid", "use", "x5t", "x5t#S256", "x5u", "kty", "crv"):
        if type(key.get(name)) not in (str, type(None)):
            raise BuiltinError(f"{name} of a JWK must be a string")
    algorithm = key.get("alg", "")
    if "alg" in key and algorithm not in ALGORITHMS and algorithm not in _OTHER_ALGORITHMS:
        raise BuiltinError("alg of a JWK is none that is known")
    material: KeyMaterial
    kind = key.get("kty")
    if kind == "RSA":
        material = _rsa(key)
    elif kind == "EC":
        material = _elliptic(key)
    elif kind == "OKP":
        material = _okp(key)
    elif kind == "oct":
        material = _octets(key, "k")
        if not material:
            raise BuiltinError("k of a JWK is empty")
    else:
        raise BuiltinError("kty of a JWK is none that is known")
    return Key(algorithm, key.get("kid") or "", material)


def _octets(key: dict[str, Json], name: str) -> bytes:
    text = key.get(name)
    if type(text) is not str:
        raise BuiltinError(f"{name} of a JWK must be a string")
    return decode_any(text)


def _rsa(key: dict[str, Json]) -> KeyMaterial:
    modulus, exponent = (int.from_bytes(_octets(key, name)) for name in ("n", "e"))
    if not modulus or not exponent & 1 or exponent > _MAX_INT:
        raise BuiltinError("n or e of a JWK is no part of an RSA key")
    if modulus.bit_length() > MAX_MODULUS:
        raise LimitError(f"an RSA key of more than {MAX_MODULUS} bits is too large for a built-in")
    public = rsa.RSAPublicNumbers(exponent, modulus)
    if key.get("d") is not None:
        return _rsa_private(key, public)
    try:
        return public.public_key()
    except ValueError:
        return Unusable()


def _rsa_private(key: dict[str, Json], public: rsa.RSAPublicNumbers) -> KeyMaterial:
    private, p, q = (int.from_bytes(_octets(key, name)) for name in ("d", "p", "q"))
    if not private:
        raise BuiltinError("d of a JWK is no part of an RSA key")
    # What Go checks. To look whether p and q are prime, as cryptography would, takes 100 ms.
    if p <= 1 or q <= 1 or p * q != public.n or any((private * public.e - 1) % (prime - 1) for prime in (p, q)):
        return Unusable()
    try:
        # The rest can be computed, and is optional.
        first, second, inverse = private % (p - 1), private % (q - 1), pow(q, -1, p)
        numbers = rsa.RSAPrivateNumbers(p, q, private, first, second, inverse, public)
        return numbers.private_key(unsafe_skip_rsa_key_validation=True)
    except ValueError:
        return Unusable()


def _checked_size(key: rsa.RSAPublicKey) -> rsa.RSAPublicKey:
    if key.key_size > MAX_MODULUS:
        raise LimitError(f"an RSA key of more than {MAX_MODULUS} bits is too large for a built-in")
    return key


def _elliptic(key: dict[str, Json]) -> KeyMaterial:
    if key.get("crv") not in _CURVES:
        raise BuiltinError("crv of a JWK is none that is known")
    curve = _CURVES[key["crv"]]()
    size = -(-curve.key_size // 8)
    coordinates = [_octets(key, name) for name in ("x", "y")]
    secret = _octets(key, "d") if key.get("d") is not None else None
    if any(len(part) != size for part in (*coordinates, *([secret] if secret is not None else []))):
        raise BuiltinError(f"x, y and d of a JWK must be of {size} bytes for this curve")
    x, y = map(int.from_bytes, coordinates)
    numbers = ec.EllipticCurvePublicNumbers(x, y, curve)
    try:
        public = numbers.public_key()
    except ValueError:
        raise BuiltinError("x and y of a JWK are no point of its curve") from None
    if secret is None:
        return public
    try:
        return ec.EllipticCurvePrivateNumbers(int.from_bytes(secret), numbers).private_key()
    except ValueError:
        return Unusable()


def _okp(key: dict[str, Json]) -> KeyMaterial:
    public = _octets(key, "x")
    secret = _octets(key, "d") if key.get("d") is not None else None
    if len(public) != _OKP_SIZE or (secret is not None and len(secret) != _OKP_SIZE):
        raise BuiltinError(f"x and d of a JWK must be of {_OKP_SIZE} bytes for this curve")
    if key.get("crv") == "X25519":
        return Unusable()
    if key.get("crv") != "Ed25519":
        raise BuiltinError("crv of a JWK is none that is known")
    if secret is None:
        return ed25519.Ed25519PublicKey.from_public_bytes(public)
    private = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    if private.public_key().public_bytes_raw() != public:
        raise BuiltinError("x of a JWK does not belong to its d")
    return private
