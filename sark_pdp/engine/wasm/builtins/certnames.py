"""Names in certificates, as Go's structures show them: distinguished names, and what a certificate is for otherwise."""

import re
from base64 import b64encode
from ipaddress import ip_address
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.der import SET, ObjectId, Reader
from sark_pdp.engine.wasm.builtins.gourl import Url, parse_url
from sark_pdp.model import Json

_LISTS: Final = {
    6: "Country", 7: "Locality", 8: "Province", 9: "StreetAddress", 10: "Organization", 11: "OrganizationalUnit",
    17: "PostalCode",
}  # fmt: skip
"""By the last number of 2.5.4."""
_TEXTS: Final = {3: "CommonName", 5: "SerialNumber"}
_PRINTABLE: Final = re.compile(rb"[A-Za-z0-9 '()+,\-./:=?*&]*")
_NUMERIC: Final = re.compile(rb"[0-9 ]*")
_UNPAIRED: Final = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")
_LABEL: Final = re.compile("[!-,/-~-]+")

_EMAIL, _DNS, _URI, _IP = 0x81, 0x82, 0x86, 0x87


def distinguished_name(content: bytes) -> Json:
    """A `pkix.Name` of the content of a sequence."""
    name: dict[str, Json] = {**dict.fromkeys(_LISTS.values()), **dict.fromkeys(_TEXTS.values(), ""), "ExtraNames": None}
    names: list[Json] = []
    reader = Reader(content)
    while reader:
        attributes = reader.inner(SET)
        while attributes:
            attribute = attributes.inner()
            kind, (tag, value, _) = attribute.oid(), attribute.any()
            text = _text(tag, value)
            names.append({"Type": kind, "Value": text})
            if kind[:3] == [2, 5, 4] and len(kind) == 4:
                if kind[3] in _LISTS:
                    name[_LISTS[kind[3]]] = [*(name[_LISTS[kind[3]]] or []), text]
                elif kind[3] in _TEXTS:
                    name[_TEXTS[kind[3]]] = text
    return name | {"Names": names or None}


def _text(tag: int, value: bytes) -> str:
    """A string of any of the kinds that names have."""
    try:
        if tag == 0x0C:
            return value.decode()
        if tag == 0x13 and _PRINTABLE.fullmatch(value):
            return value.decode()
        if tag == 0x14:
            return value.decode("latin-1")
        if tag == 0x16:
            return value.decode("ascii")
        if tag == 0x12 and _NUMERIC.fullmatch(value):
            return value.decode()
        if tag == 0x1E:
            text = value.removesuffix(b"\0\0").decode("utf-16-be")
            if not _UNPAIRED.search(text) and max(text, default="") < "\U00010000":
                return text
    except UnicodeDecodeError:
        pass
    raise BuiltinError("a string in a name is none of its kind")


class AlternativeNames:
    """Subject alternative names; None where there are none of a kind."""

    def __init__(self, content: bytes | None) -> None:
        self.dns: list[str] = []
        self.emails: list[str] = []
        self.addresses: list[str] = []
        self.urls: list[Url] = []
        self._uris: list[str] = []
        reader = Reader(content).inner() if content is not None else Reader(b"")
        while reader:
            self._add(*reader.any())

    def _add(self, tag: int, value: bytes, _: bytes) -> None:
        if tag in (_EMAIL, _DNS, _URI) and not value.isascii():
            raise BuiltinError("an alternative name is no text")
        if tag == _EMAIL:
            self.emails.append(value.decode())
        elif tag == _DNS:
            self.dns.append(value.decode())
        elif tag == _IP:
            if len(value) not in (4, 16):
                raise BuiltinError("an alternative name is no address")
            self.addresses.append(_address(value))
        elif tag == _URI:
            url = parse_url(value.decode())
            if url.host and not is_domain(url.host):
                raise BuiltinError("the host of an alternative name is none")
            self.urls.append(url)
            self._uris.append(value.decode())

    def __bool__(self) -> bool:
        return bool(self.dns or self.emails or self.addresses or self.urls)

    def fields(self) -> dict[str, Json]:
        """As a certificate shows them."""
        return {
            "DNSNames": self.dns or None,
            "EmailAddresses": self.emails or None,
            "IPAddresses": self.addresses or None,
            "URIs": [_url_fields(url) for url in self.urls] or None,
        }

    def uri_texts(self) -> list[str] | None:
        """The URIs as text."""
        return self._uris or None


def _address(value: bytes) -> str:
    address = ip_address(value)
    # Go shows an IPv4 address in either notation as such.
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _url_fields(url: Url) -> Json:
    return {
        "Scheme": url.scheme,
        "Opaque": url.opaque,
        "User": None if url.user is None else {},
        "Host": url.host,
        "Path": url.path,
        "RawPath": url.raw_path,
        "OmitHost": url.omit_host,
        "ForceQuery": url.force_query,
        "RawQuery": url.raw_query,
        "Fragment": url.fragment,
        "RawFragment": url.raw_fragment,
    }


def is_domain(text: str, *, constraint: bool = False) -> bool:
    """Whether it is a domain to Go's x509; in a constraint it may begin with a dot or be empty."""
    if constraint:
        text = text.removeprefix(".")
        if not text:
            return True
    if text.endswith("."):
        return False
    return len(text) <= 253 and all(_LABEL.fullmatch(label) and len(label) < 64 for label in text.split("."))


def name_constraints(content: bytes, *, critical: bool) -> tuple[dict[str, Json], bool]:
    """The fields of a certificate for them, and whether there are some that Go does not know."""
    reader = Reader(content)
    inner = reader.inner()
    parts = {"Permitted": inner.optional(0xA0), "Excluded": inner.optional(0xA1)}
    if reader or inner or not any(parts.values()):
        raise BuiltinError("name constraints are none")
    fields: dict[str, Json] = {"PermittedDNSDomainsCritical": critical}
    unknown = False
    for name, part in parts.items():
        found: dict[int, list[Json]] = {_DNS: [], _IP: [], _EMAIL: [], _URI: []}
        subtrees = Reader(part or b"")
        while subtrees:
            tag, value, _ = subtrees.inner().any()
            if tag in found:
                found[tag].append(_network(value) if tag == _IP else _constraint(tag, value))
            else:
                unknown = True
        fields |= {
            f"{name}DNSDomains": found[_DNS] or None,
            f"{name}IPRanges": found[_IP] or None,
            f"{name}EmailAddresses": found[_EMAIL] or None,
            f"{name}URIDomains": found[_URI] or None,
        }
    return fields, unknown


def _constraint(tag: int, value: bytes) -> str:
    text = value.decode("latin-1")
    mailbox = tag == _EMAIL and "@" in text
    if not text.isascii() or not (mailbox or is_domain(text, constraint=True)):
        raise BuiltinError("a name constraint is no name")
    return text


def _network(value: bytes) -> Json:
    half = len(value) // 2
    hosts = int.from_bytes(value[half:]) ^ (1 << half * 8) - 1
    # A mask has no ones behind a zero.
    if len(value) not in (8, 32) or hosts & hosts + 1:
        raise BuiltinError("a name constraint is no network")
    return {"IP": _address(value[:half]), "Mask": b64encode(value[half:]).decode()}


def oid_text(oid: ObjectId) -> str:
    """With dots."""
    return ".".join(map(str, oid))
