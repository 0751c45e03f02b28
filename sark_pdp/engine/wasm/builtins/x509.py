"""`crypto.x509.*` and `crypto.parse_private_keys`."""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, integer, items, string, strings
from sark_pdp.engine.wasm.builtins.certchains import Wanted, verified
from sark_pdp.engine.wasm.builtins.certificates import Certificate
from sark_pdp.engine.wasm.builtins.certkeys import private_fields
from sark_pdp.engine.wasm.builtins.certrequests import request_fields
from sark_pdp.engine.wasm.builtins.der import SEQUENCE, Reader
from sark_pdp.engine.wasm.builtins.gobase64 import decode
from sark_pdp.engine.wasm.builtins.jwk import MAX_MODULUS, PrivateKey
from sark_pdp.engine.wasm.builtins.pem import blocks, next_block
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_MAX_TEXT: Final = 256 * 1024
"""Characters of certificates or keys."""
_MAX_CERTIFICATES: Final = 64
_BEGIN: Final = b"-----BEGIN"
_USAGES: Final = {
    f"KeyUsage{name}": number
    for number, name in enumerate((
        "Any", "ServerAuth", "ClientAuth", "CodeSigning", "EmailProtection", "IPSECEndSystem", "IPSECTunnel",
        "IPSECUser", "TimeStamping", "OCSPSigning", "MicrosoftServerGatedCrypto", "NetscapeServerGatedCrypto",
        "MicrosoftCommercialCodeSigning", "MicrosoftKernelCodeSigning",
    ))
}  # fmt: skip


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "crypto.parse_private_keys": _parse_private_keys,
        "crypto.x509.parse_and_verify_certificates": _parse_and_verify,
        "crypto.x509.parse_and_verify_certificates_with_options": _parse_and_verify_with_options,
        "crypto.x509.parse_certificate_request": _parse_request,
        "crypto.x509.parse_certificates": _parse_certificates,
        "crypto.x509.parse_keypair": _parse_pair,
        "crypto.x509.parse_rsa_private_key": _parse_jwk,
    }


def _parse_certificates(_: Context, text: Json) -> Json:
    return [_with_uris(certificate) for certificate in _certificates(_limited(text))]


def _parse_and_verify(context: Context, text: Json) -> list[Json]:
    chain = _chain(_limited(text), Wanted(context.now_ns))
    return [False, []] if chain is None else [True, [_with_uris(certificate) for certificate in chain]]


def _parse_and_verify_with_options(context: Context, text: Json, options: Json) -> list[Json]:
    text, pairs = _limited(text), items(options)
    try:
        _certificates(text)
    except BuiltinError:
        return [False, []]
    chain = _chain(text, _wanted(context, pairs))
    return [False, []] if chain is None else [True, [certificate.fields() for certificate in chain]]


def _with_uris(certificate: Certificate) -> Json:
    return certificate.fields() | {"URIStrings": certificate.alternatives.uri_texts()}


def _chain(text: str, wanted: Wanted) -> list[Certificate] | None:
    try:
        return verified(_certificates(text), wanted)
    except BuiltinError:
        return None


def _wanted(context: Context, pairs: list[tuple[Json, Json]]) -> Wanted:
    now_ns, name = context.now_ns, ""
    usages: tuple[int, ...] = ()
    for key, value in pairs:
        if type(key) is not str:
            continue
        if key == "DNSName":
            name = string(value).strip('"')
        elif key == "CurrentTime":
            now_ns = integer(value)
        elif key == "MaxConstraintComparisons":
            # Name constraints are not compared here at all.
            integer(value)
        elif key == "KeyUsages":
            usages = _usages(value)
        else:
            raise BuiltinError("an option that is none")
    return Wanted(now_ns, name, usages)


def _usages(value: Json) -> tuple[int, ...]:
    try:
        return tuple(_USAGES[name.strip('"')] for name in strings(value))
    except KeyError:
        raise BuiltinError("a key usage that is none") from None


def _parse_request(_: Context, text: Json) -> Json:
    raw = _limited(text).encode()
    if not raw.startswith(b"-----BEGIN CERTIFICATE REQUEST-----"):
        raw = decode(text)
    block = next_block(raw, 0)
    if block is not None and block.kind != "CERTIFICATE REQUEST":
        raise BuiltinError("a PEM block that is no certificate request")
    return request_fields(raw if block is None else block.content)


def _parse_private_keys(_: Context, text: Json) -> Json:
    text = _limited(text)
    return [private_fields(key) for key in _private_keys(text)] if text else None


def _parse_jwk(_: Context, text: Json) -> Json:
    text = _limited(text)
    if not text:
        raise BuiltinError("a text without keys")
    if not text.startswith("-----BEGIN"):
        text = decode(text).decode("latin-1")
    key = next(iter(list(_private_keys(text))), None)
    return None if key is None else _jwk(key)


def _parse_pair(_: Context, certificates: Json, key: Json) -> Json:
    found = [
        block.content for block in blocks(_pem(_limited(certificates), "CERTIFICATE")) if block.kind == "CERTIFICATE"
    ]
    keys = (block for block in blocks(_pem(_limited(key), "PRIVATE KEY")) if block.kind.endswith("PRIVATE KEY"))
    block = next(keys, None)
    if not found or block is None:
        raise BuiltinError("a key pair without a certificate or a key")
    leaf = _one_certificate(found[0])
    private = _private_key(block.content, ("pkcs1", "pkcs8", "ec"))
    if private.public_key() != leaf.key.material:
        raise BuiltinError("a private key that does not belong to its certificate")
    return {
        "Certificate": [_standard(raw) for raw in found],
        "PrivateKey": private_fields(private),
        "SupportedSignatureAlgorithms": None,
        "OCSPStaple": None,
        "SignedCertificateTimestamps": None,
        "Leaf": leaf.fields(),
    }


def _limited(operand: Json) -> str:
    text = string(operand)
    if len(text) > _MAX_TEXT:
        raise LimitError(f"keys of {len(text)} characters are too large for a built-in; the limit is {_MAX_TEXT}")
    return text


def _certificates(text: str) -> list[Certificate]:
    raw = text.encode() if text.startswith("-----BEGIN") else decode(text)
    if raw.startswith(_BEGIN):
        found = list(blocks(raw))
        if any(block.kind != "CERTIFICATE" for block in found):
            raise BuiltinError("a PEM block that is no certificate")
        raw = b"".join([block.content for block in found])
    reader = Reader(raw)
    certificates: list[Certificate] = []
    while reader:
        if len(certificates) >= _MAX_CERTIFICATES:
            raise LimitError(f"more than {_MAX_CERTIFICATES} certificates are too many for a built-in")
        certificates.append(Certificate(reader.element(SEQUENCE)))
    return certificates


def _one_certificate(raw: bytes) -> Certificate:
    reader = Reader(raw)
    certificate = Certificate(reader.element(SEQUENCE))
    if reader:
        raise BuiltinError("a certificate with more behind it")
    return certificate


def _private_keys(text: str) -> Iterator[PrivateKey]:
    """Those of all blocks that are of a kind which OPA reads."""
    try:
        raw = decode(text)
    except BuiltinError:
        raw = text.encode()
    formats = {"RSA PRIVATE KEY": "pkcs1", "PRIVATE KEY": "pkcs8", "EC PRIVATE KEY": "ec"}
    for block in blocks(raw):
        if block.kind in formats:
            yield _private_key(block.content, (formats[block.kind],))


def _private_key(raw: bytes, formats: tuple[str, ...]) -> PrivateKey:
    reader = Reader(raw).inner()
    version, tag = reader.integer(), reader.peek()
    if {(0, 0x02): "pkcs1", (1, 0x02): "pkcs1", (0, SEQUENCE): "pkcs8", (1, 0x04): "ec"}.get(
        (version, tag)
    ) not in formats:
        raise BuiltinError("a private key of another kind than its block says")
    try:
        key = load_der_private_key(raw, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise BuiltinError(f"not a private key: {problem}") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size > MAX_MODULUS:
            raise LimitError(f"an RSA key of more than {MAX_MODULUS} bits is too large for a built-in")
        numbers = key.private_numbers()
        # What Go checks; whether they are prime takes 100 ms.
        if numbers.p * numbers.q != numbers.public_numbers.n:
            raise BuiltinError("an RSA key of which the numbers do not belong together")
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise BuiltinError("a private key of a kind that is not read here")


def _pem(text: str, kind: str) -> bytes:
    """As PEM, which the text is, or in Base64 of it, or of what a block of this kind holds."""
    raw = text.encode()
    if not raw.startswith(b"-----BEGIN "):
        raw = decode(text)
    if raw.startswith(_BEGIN):
        return raw
    return f"-----BEGIN {kind}-----\n{_standard(raw)}\n-----END {kind}-----\n".encode()


def _standard(raw: bytes) -> str:
    return b64encode(raw).decode()


def _jwk(key: PrivateKey) -> Json:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        public, private = key.public_key().public_bytes_raw(), key.private_bytes_raw()
        return {"kty": "OKP", "crv": "Ed25519", "x": _url(public), "d": _url(private)}
    if isinstance(key, rsa.RSAPrivateKey):
        own = key.private_numbers()
        parts = {"n": own.public_numbers.n, "e": own.public_numbers.e, "d": own.d, "p": own.p, "q": own.q}
        parts |= {"dp": own.dmp1, "dq": own.dmq1, "qi": own.iqmp}
        return {"kty": "RSA", **{name: _url(part.to_bytes(-(-part.bit_length() // 8))) for name, part in parts.items()}}
    numbers, size = key.private_numbers(), -(-key.key_size // 8)
    point = numbers.public_numbers
    parts = {"x": point.x, "y": point.y, "d": numbers.private_value}
    if key.key_size not in (256, 384, 521):
        raise BuiltinError("an elliptic curve that JWKs do not have")
    return {
        "kty": "EC",
        "crv": f"P-{key.key_size}",
        **{name: _url(part.to_bytes(size)) for name, part in parts.items()},
    }


def _url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
