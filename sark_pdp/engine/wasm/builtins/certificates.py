"""Certificates (RFC 5280) with the fields of Go's `x509.Certificate`."""

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.certkeys import SubjectKey, signature_algorithm
from sark_pdp.engine.wasm.builtins.certnames import AlternativeNames, distinguished_name, name_constraints, oid_text
from sark_pdp.engine.wasm.builtins.der import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    ObjectId,
    Reader,
    bit_string,
    oid_of,
)
from sark_pdp.model import Json

_USAGE: Final = "1.3.6.1.5.5.7.3"
USAGES: Final = {
    "2.5.29.37.0": 0, f"{_USAGE}.1": 1, f"{_USAGE}.2": 2, f"{_USAGE}.3": 3, f"{_USAGE}.4": 4, f"{_USAGE}.5": 5,
    f"{_USAGE}.6": 6, f"{_USAGE}.7": 7, f"{_USAGE}.8": 8, f"{_USAGE}.9": 9, "1.3.6.1.4.1.311.10.3.3": 10,
    "2.16.840.1.113730.4.1": 11, "1.3.6.1.4.1.311.2.1.22": 12, "1.3.6.1.4.1.311.61.1.1": 13,
}  # fmt: skip
"""Go's numbers of the extended key usages."""
_ACCESS: Final = "1.3.6.1.5.5.7.1.1"
_DEFAULTS: Final[dict[str, Json]] = {
    **dict.fromkeys((
        "DNSNames", "EmailAddresses", "IPAddresses", "URIs", "PermittedDNSDomains", "ExcludedDNSDomains",
        "PermittedIPRanges", "ExcludedIPRanges", "PermittedEmailAddresses", "ExcludedEmailAddresses",
        "PermittedURIDomains", "ExcludedURIDomains", "CRLDistributionPoints", "PolicyIdentifiers", "Policies",
        "PolicyMappings", "ExtKeyUsage", "UnknownExtKeyUsage", "SubjectKeyId", "AuthorityKeyId", "OCSPServer",
        "IssuingCertificateURL", "Extensions", "ExtraExtensions", "UnhandledCriticalExtensions",
    )),
    **dict.fromkeys((
        "BasicConstraintsValid", "IsCA", "MaxPathLenZero", "PermittedDNSDomainsCritical", "InhibitAnyPolicyZero",
        "InhibitPolicyMappingZero", "RequireExplicitPolicyZero",
    ), False),
    **dict.fromkeys(
        ("MaxPathLen", "KeyUsage", "InhibitAnyPolicy", "InhibitPolicyMapping", "RequireExplicitPolicy"), 0
    ),
}  # fmt: skip
"""What a certificate without extensions says."""


class Extension:
    """One extension of a certificate or a request."""

    def __init__(self, reader: Reader) -> None:
        self.oid = reader.oid()
        self.critical = reader.optional(BOOLEAN) == b"\xff"
        self.value = reader.content(OCTET_STRING)

    def fields(self) -> Json:
        """As Go shows it."""
        return {"Id": self.oid, "Critical": self.critical, "Value": base64_text(self.value)}


class Certificate:
    """One certificate; raises BuiltinError where Go would not take it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        outer = Reader(raw).inner()
        self.signed = outer.element(SEQUENCE)
        algorithm = outer.content(SEQUENCE)
        self.signature = outer.bits()
        inner = Reader(self.signed).inner()
        version = inner.optional(0xA0)
        self.version = 1 if version is None else Reader(version).integer() + 1
        self._serial = inner.integer()
        if not 1 <= self.version <= 3 or self._serial < 0 or inner.content(SEQUENCE) != algorithm:
            raise BuiltinError("a certificate of a version, a number or an algorithm that it cannot have")
        self.algorithm = signature_algorithm(algorithm)
        self.issuer = inner.element(SEQUENCE)
        validity = inner.inner()
        self.not_before, self.not_after = validity.time(), validity.time()
        self.subject = inner.element(SEQUENCE)
        self.raw_key = inner.element(SEQUENCE)
        self.key = SubjectKey(self.raw_key)
        self._names = [distinguished_name(Reader(name).content(SEQUENCE)) for name in (self.issuer, self.subject)]
        self.extensions = self._read_extensions(inner)
        self.alternatives = AlternativeNames(None)
        self.found = dict(_DEFAULTS)
        """The fields that extensions fill."""
        for extension in self.extensions:
            if self._is_unhandled(extension) and extension.critical:
                unhandled = self.found["UnhandledCriticalExtensions"] or []
                self.found["UnhandledCriticalExtensions"] = [*unhandled, extension.oid]

    def _read_extensions(self, inner: Reader) -> list[Extension]:
        if self.version > 1:
            inner.optional(0x81)
            inner.optional(0x82)
        content = inner.optional(0xA3) if self.version == 3 else None
        extensions: list[Extension] = []
        reader = Reader(b"") if content is None else Reader(content).inner()
        while reader:
            extension = Extension(reader.inner())
            if any(extension.oid == other.oid for other in extensions):
                raise BuiltinError("a certificate with an extension twice")
            extensions.append(extension)
        return extensions

    def _is_unhandled(self, extension: Extension) -> bool:
        name = oid_text(extension.oid)
        if name == "2.5.29.17":
            self.alternatives = AlternativeNames(extension.value)
            self.found |= self.alternatives.fields()
            return not self.alternatives
        if name == "2.5.29.30":
            fields, unknown = name_constraints(extension.value, critical=extension.critical)
            self.found |= fields
            return unknown
        if extension.critical and name in ("2.5.29.35", "2.5.29.14", _ACCESS):
            raise BuiltinError("a certificate with an extension that must not be critical")
        read = _READERS.get(name)
        if read is not None:
            self.found |= read(extension.value)
        return read is None

    def fields(self) -> dict[str, Json]:
        """All that Go shows of it."""
        return self.found | {
            "Raw": base64_text(self.raw),
            "RawTBSCertificate": base64_text(self.signed),
            "RawSubjectPublicKeyInfo": base64_text(self.raw_key),
            "RawSubject": base64_text(self.subject),
            "RawIssuer": base64_text(self.issuer),
            "Signature": base64_text(self.signature),
            "SignatureAlgorithm": self.algorithm,
            "PublicKeyAlgorithm": self.key.algorithm,
            "PublicKey": self.key.fields,
            "Version": self.version,
            "SerialNumber": self._serial,
            "Issuer": self._names[0],
            "Subject": self._names[1],
            "NotBefore": _time(self.not_before),
            "NotAfter": _time(self.not_after),
            "Extensions": [extension.fields() for extension in self.extensions] or None,
        }


def base64_text(raw: bytes) -> str:
    """Bytes as Go's JSON has them."""
    return b64encode(raw).decode()


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _key_usage(value: bytes) -> dict[str, Json]:
    _, bits = bit_string(Reader(value).content(BIT_STRING))
    usage = sum(1 << at for at in range(min(9, len(bits) * 8)) if bits[at // 8] >> 7 - at % 8 & 1)
    return {"KeyUsage": usage}


def _basic_constraints(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    authority = reader.optional(BOOLEAN)
    length = reader.integer() if reader.peek() == INTEGER else -1
    if authority not in (None, b"\0", b"\xff") or length < -1:
        raise BuiltinError("basic constraints are none")
    return {
        "IsCA": authority == b"\xff",
        "MaxPathLen": length,
        "MaxPathLenZero": length == 0,
        "BasicConstraintsValid": True,
    }


def _usages(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    known: list[Json] = []
    unknown: list[Json] = []
    while reader:
        oid = reader.oid()
        usage = USAGES.get(oid_text(oid))
        if usage is None:
            unknown.append(oid)
        else:
            known.append(usage)
    return {"ExtKeyUsage": known or None, "UnknownExtKeyUsage": unknown or None}


def _distribution_points(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    found: list[Json] = []
    while reader:
        name = reader.inner().optional(0xA0)
        uris = Reader(b"") if name is None else Reader(name).inner(0xA0)
        while uris.peek() == 0x86:
            found.append(uris.content(0x86).decode(errors="replace"))
    return {"CRLDistributionPoints": found or None}


def _authority_key(value: bytes) -> dict[str, Json]:
    key = Reader(value).inner().optional(0x80)
    return {"AuthorityKeyId": None if key is None else base64_text(key)}


def _subject_key(value: bytes) -> dict[str, Json]:
    return {"SubjectKeyId": base64_text(Reader(value).content(OCTET_STRING))}


def _policy_constraints(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    fields: dict[str, Json] = {}
    for tag, name in ((0x80, "RequireExplicitPolicy"), (0x81, "InhibitPolicyMapping")):
        if reader.peek() == tag:
            number = reader.integer(tag)
            fields |= {name: number, f"{name}Zero": number == 0}
    return fields


def _policies(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    found: list[ObjectId] = []
    while reader:
        oid = reader.inner().oid()
        if oid in found:
            raise BuiltinError("a certificate with a policy twice")
        found.append(oid)
    return {"Policies": [oid_text(oid) for oid in found] or None, "PolicyIdentifiers": found}


def _policy_mappings(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    found: list[Json] = []
    while reader:
        pair = reader.inner()
        issuer, subject = oid_of(pair.content(OID)), oid_of(pair.content(OID))
        found.append({"IssuerDomainPolicy": oid_text(issuer), "SubjectDomainPolicy": oid_text(subject)})
    return {"PolicyMappings": found or None}


def _any_policy(value: bytes) -> dict[str, Json]:
    number = Reader(value).integer()
    return {"InhibitAnyPolicy": number, "InhibitAnyPolicyZero": number == 0}


def _access(value: bytes) -> dict[str, Json]:
    reader = Reader(value).inner()
    found: dict[str, list[Json]] = {f"{_OCSP}.1": [], f"{_OCSP}.2": []}
    while reader:
        pair = reader.inner()
        method = oid_text(pair.oid())
        if pair.peek() == 0x86:
            found.setdefault(method, []).append(pair.content(0x86).decode(errors="replace"))
    return {"OCSPServer": found[f"{_OCSP}.1"] or None, "IssuingCertificateURL": found[f"{_OCSP}.2"] or None}


_OCSP: Final = "1.3.6.1.5.5.7.48"
_READERS: Final[dict[str, Callable[[bytes], dict[str, Json]]]] = {
    "2.5.29.14": _subject_key,
    "2.5.29.15": _key_usage,
    "2.5.29.19": _basic_constraints,
    "2.5.29.31": _distribution_points,
    "2.5.29.32": _policies,
    "2.5.29.33": _policy_mappings,
    "2.5.29.35": _authority_key,
    "2.5.29.36": _policy_constraints,
    "2.5.29.37": _usages,
    "2.5.29.54": _any_policy,
    _ACCESS: _access,
}
