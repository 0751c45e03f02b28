"""`uuid.*`."""

import re
from typing import Final
from uuid import UUID

from sark_pdp.engine.wasm.builtins.base import UNDEFINED, Builtin, Context, string
from sark_pdp.engine.wasm.values import sort_key
from sark_pdp.model import Json

_UUID: Final = re.compile(r"(?:[uU][rR][nN]:[uU]{2}[iI][dD]:)?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")
_BARE_UUID: Final = re.compile(r"[0-9a-fA-F]{32}")
_UUID_EPOCH: Final = 0x01B21DD213814000
"""1 January 1970, in the 100 nanoseconds since 15 October 1582 that UUIDs count."""

_DOMAINS: Final = {0: "Person", 1: "Group", 2: "Org"}
_MAC_KINDS: Final = ("global:unicast", "global:multicast", "local:unicast", "local:multicast")


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"uuid.parse": _parse, "uuid.rfc4122": _rfc4122}


def _rfc4122(context: Context, name: Json) -> str:
    key = ("uuid.rfc4122", sort_key(name))
    if key not in context.cache:
        context.cache[key] = str(UUID(bytes=context.random.randbytes(16), version=4))
    text: str = context.cache[key]
    return text


def _parse(_: Context, text: Json) -> Json:
    text = string(text)
    # Of the form in braces, Go looks at the length and not at the braces.
    match = _UUID.fullmatch(text[1:-1] if len(text) == 38 else text)
    if match is None and not _BARE_UUID.fullmatch(text):
        return UNDEFINED
    uuid = UUID(match[1] if match else text)
    version = uuid.bytes[6] >> 4
    parsed: dict[str, Json] = {"version": version, "variant": _variant(uuid.bytes[8])}
    if version in (1, 2):
        node = uuid.bytes[10:]
        parsed |= {
            # Beyond the years 1677 to 2262 Go's 64 bits wrap around.
            "time": ((uuid.time - _UUID_EPOCH) * 100 + (1 << 63)) % (1 << 64) - (1 << 63),
            "nodeid": node.hex("-"),
            "macvariables": _MAC_KINDS[node[0] & 3],
            "clocksequence": int.from_bytes(uuid.bytes[8:10]) & 0x3FFF,
        }
    if version == 2:
        domain = uuid.bytes[9]
        parsed |= {"id": uuid.time_low, "domain": _DOMAINS.get(domain, f"Domain{domain}")}
    return parsed


def _variant(byte: int) -> str:
    if byte & 0xC0 == 0x80:
        return "RFC4122"
    if byte & 0xE0 == 0xC0:
        return "Microsoft"
    return "Future" if byte & 0xE0 == 0xE0 else "Reserved"
