"""Keys as Go's structures show them, and the algorithms of certificates."""

from base64 import b64encode
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.certnames import oid_text
from sark_pdp.engine.wasm.builtins.der import SEQUENCE, Reader
from sark_pdp.engine.wasm.builtins.jwk import MAX_MODULUS, PrivateKey, PublicKey, Unusable
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_RSA, _DSA, _ECDSA, _ED25519 = 1, 2, 3, 4
_KEY_ALGORITHMS: Final = {
    "1.2.840.113549.1.1.1": _RSA,
    "1.2.840.10040.4.1": _DSA,
    "1.2.840.10045.2.1": _ECDSA,
    "1.3.101.112": _ED25519,
}
_HASHES: Final[dict[int, hashes.HashAlgorithm]] = {
    4: hashes.SHA256(), 5: hashes.SHA384(), 6: hashes.SHA512(), 10: hashes.SHA256(), 11: hashes.SHA384(),
    12: hashes.SHA512(), 13: hashes.SHA256(), 14: hashes.SHA384(), 15: hashes.SHA512(),
}  # fmt: skip
"""By Go's number of the signature algorithm: those that it verifies with, Ed25519 (16) aside."""
_SIGNATURE_ALGORITHMS: Final = {
    "1.2.840.113549.1.1.4": 2, "1.2.840.113549.1.1.5": 3, "1.3.14.3.2.29": 3, "1.2.840.113549.1.1.11": 4,
    "1.2.840.113549.1.1.12": 5, "1.2.840.113549.1.1.13": 6, "1.2.840.10040.4.3": 7, "2.16.840.1.101.3.4.3.2": 8,
    "1.2.840.10045.4.1": 9, "1.2.840.10045.4.3.2": 10, "1.2.840.10045.4.3.3": 11, "1.2.840.10045.4.3.4": 12,
}  # fmt: skip
_ED25519_SIGNATURE: Final = 16
_PSS: Final = "1.2.840.113549.1.1.10"
_PSS_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": (13, 32),
    "2.16.840.1.101.3.4.2.2": (14, 48),
    "2.16.840.1.101.3.4.2.3": (15, 64),
}
_NULL: Final = b"\x05\0"
_SHORTEST_MODULUS: Final = 1024


def signature_algorithm(content: bytes) -> int:
    """Go's number for an algorithm identifier; 0 where it knows none."""
    reader = Reader(content)
    name = oid_text(reader.oid())
    if name == "1.3.101.112":
        return 0 if reader else _ED25519_SIGNATURE
    if name != _PSS:
        return _SIGNATURE_ALGORITHMS.get(name, 0)
    try:
        return _pss(reader.inner())
    except BuiltinError:
        return 0


def _pss(parameters: Reader) -> int:
    chosen, mask, salt = (Reader(parameters.content(tag)) for tag in (0xA0, 0xA1, 0xA2))
    hashed = chosen.inner()
    name = oid_text(hashed.oid())
    generator = mask.inner()
    is_mgf1, same = oid_text(generator.oid()) == "1.2.840.113549.1.1.8", generator.inner()
    number, size = _PSS_HASHES.get(name, (0, 0))
    plain = all(not reader or reader.element(5) == _NULL for reader in (hashed,))
    return number if plain and is_mgf1 and oid_text(same.oid()) == name and salt.integer() == size else 0


class SubjectKey:
    """The public key of a certificate or request."""

    def __init__(self, whole: bytes) -> None:
        reader = Reader(whole).inner()
        algorithm = Reader(reader.content(SEQUENCE))
        self.algorithm = _KEY_ALGORITHMS.get(oid_text(algorithm.oid()), 0)
        """Go's number of it; 0 where it knows none."""
        self.material: PublicKey | dsa.DSAPublicKey | Unusable | None = None
        self.fields: Json = None
        bits = reader.bits()
        if self.algorithm == _RSA:
            if algorithm.element(5) != _NULL:
                raise BuiltinError("an RSA key with parameters")
            self._rsa(Reader(bits).inner())
        elif self.algorithm:
            self._other(whole)

    def _rsa(self, numbers: Reader) -> None:
        modulus, exponent = numbers.integer(), numbers.integer()
        if modulus <= 0 or not 0 < exponent < 1 << 63:
            raise BuiltinError("an RSA key of numbers that are not positive")
        if modulus.bit_length() > MAX_MODULUS:
            raise LimitError(f"an RSA key of more than {MAX_MODULUS} bits is too large for a built-in")
        self.fields = {"N": modulus, "E": exponent}
        try:
            self.material = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        except ValueError:
            self.material = Unusable()

    def _other(self, whole: bytes) -> None:
        try:
            key = load_der_public_key(whole)
        except (ValueError, UnsupportedAlgorithm) as problem:
            raise BuiltinError(f"not a public key: {problem}") from None
        if isinstance(key, ec.EllipticCurvePublicKey):
            self.material, self.fields = key, point_fields(key)
        elif isinstance(key, ed25519.Ed25519PublicKey):
            self.material, self.fields = key, b64encode(key.public_bytes_raw()).decode()
        elif isinstance(key, dsa.DSAPublicKey):
            numbers = key.public_numbers()
            group = numbers.parameter_numbers
            self.material, self.fields = key, {"P": group.p, "Q": group.q, "G": group.g, "Y": numbers.y}


def point_fields(key: ec.EllipticCurvePublicKey) -> dict[str, Json]:
    """A public key on one of the curves that Go has."""
    if not isinstance(key.curve, ec.SECP224R1 | ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        raise BuiltinError("an elliptic curve that Go does not have")
    point = key.public_numbers()
    return {"Curve": {}, "X": point.x, "Y": point.y}


def private_fields(key: PrivateKey) -> Json:
    """A private key."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return point_fields(key.public_key()) | {"D": key.private_numbers().private_value}
    numbers = key.private_numbers()
    return {
        "N": numbers.public_numbers.n,
        "E": numbers.public_numbers.e,
        "D": numbers.d,
        "Primes": [numbers.p, numbers.q],
        "Precomputed": {"Dp": numbers.dmp1, "Dq": numbers.dmq1, "Qinv": numbers.iqmp, "CRTValues": []},
    }


def is_signed(key: SubjectKey, algorithm: int, message: bytes, signature: bytes) -> bool:
    """Whether the key made a signature of a certificate; never with SHA-1 or MD5."""
    material, chosen = key.material, _HASHES.get(algorithm)
    try:
        if isinstance(material, ed25519.Ed25519PublicKey) and algorithm == _ED25519_SIGNATURE:
            material.verify(signature, message)
        elif chosen is None:
            return False
        elif isinstance(material, ec.EllipticCurvePublicKey) and algorithm in (10, 11, 12):
            material.verify(signature, message, ec.ECDSA(chosen))
        elif isinstance(material, rsa.RSAPublicKey) and algorithm not in (10, 11, 12):
            if material.key_size < _SHORTEST_MODULUS:
                return False
            pss = padding.PSS(padding.MGF1(chosen), padding.PSS.DIGEST_LENGTH)
            material.verify(signature, message, pss if algorithm >= 13 else padding.PKCS1v15(), chosen)
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True
