"""Requests for certificates (RFC 2986) with the fields of Go's `x509.CertificateRequest`."""

from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.certificates import Extension, base64_text
from sark_pdp.engine.wasm.builtins.certkeys import SubjectKey, signature_algorithm
from sark_pdp.engine.wasm.builtins.certnames import AlternativeNames, distinguished_name
from sark_pdp.engine.wasm.builtins.der import SEQUENCE, SET, Reader
from sark_pdp.model import Json

_REQUESTED: Final = [1, 2, 840, 113549, 1, 9, 14]


def request_fields(raw: bytes) -> dict[str, Json]:
    """All that Go shows of a certificate request. Raises BuiltinError."""
    whole = Reader(raw)
    outer = whole.inner()
    signed = outer.element(SEQUENCE)
    algorithm, signature = outer.content(SEQUENCE), outer.bits()
    inner = Reader(signed).inner()
    version, subject, key = inner.integer(), inner.element(SEQUENCE), inner.element(SEQUENCE)
    attributes = inner.optional(0xA0)
    if whole or attributes is None:
        raise BuiltinError("a certificate request without attributes, or with more behind it")
    shown, extensions = _attributes(Reader(attributes))
    names = next((extension.value for extension in extensions if extension.oid == [2, 5, 29, 17]), None)
    return {
        "Raw": base64_text(raw),
        "RawTBSCertificateRequest": base64_text(signed),
        "RawSubjectPublicKeyInfo": base64_text(key),
        "RawSubject": base64_text(subject),
        "Version": version,
        "Signature": base64_text(signature),
        "SignatureAlgorithm": signature_algorithm(algorithm),
        "PublicKeyAlgorithm": SubjectKey(key).algorithm,
        "PublicKey": SubjectKey(key).fields,
        "Subject": distinguished_name(Reader(subject).content(SEQUENCE)),
        "Attributes": shown or None,
        "Extensions": [extension.fields() for extension in extensions] or None,
        "ExtraExtensions": None,
        **AlternativeNames(names).fields(),
    }


def _attributes(reader: Reader) -> tuple[list[Json], list[Extension]]:
    """Those that are sets of pairs, which Go shows, and the extensions that are asked for."""
    shown: list[Json] = []
    extensions: list[Extension] = []
    while reader:
        attribute = reader.inner()
        oid, values = attribute.oid(), attribute.inner(SET)
        if oid != _REQUESTED:
            continue
        inner = values.inner()
        pairs: list[Json] = []
        while inner:
            extension = Extension(inner.inner())
            if any(extension.oid == other.oid for other in extensions):
                raise BuiltinError("a certificate request with an extension twice")
            extensions.append(extension)
            pairs.append({"Type": extension.oid, "Value": extension.critical or base64_text(extension.value)})
        shown.append({"Type": oid, "Value": [pairs]})
    return shown, extensions
