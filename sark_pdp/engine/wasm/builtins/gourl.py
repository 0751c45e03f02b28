"""URLs as Go's `net/url` parses them: each byte counts, and what is escaped where it need not be is remembered.

Text is handled as one character for each byte (Latin-1), and becomes UTF-8 again in the fields of URL.
"""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.terms import go_string
from sark_pdp.engine.wasm.values import LimitError

LONGEST: Final = 64 * 1024
"""Bytes of a URL."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_PORT: Final = re.compile("(?::[0-9]*)?")
_USER: Final = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_HOST: Final = re.compile(r"""(?:[A-Za-z0-9._~!$&'()*+,;=:\[\]<>"-]|[\x80-\xff]|%25|%[89A-Fa-f][0-9A-Fa-f])*""")
_ZONE: Final = re.compile(
    r"""(?:[A-Za-z0-9._~!$&'()*+,;=:\[\]<>"-]|[\x80-\xff]
    |%(?:2[0-24-9A-CEa-ce5]|2[dD]|3[0-9A-Ea-e]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[BDFbdf]|7[eE]))*""",
    re.VERBOSE,
)
"""What a zone may have escaped: what a host may have as it is, the space, and the percent sign."""
_ESCAPED_PATH: Final = re.compile(r"[A-Za-z0-9._~/!$&'()*+,;=:@\[\]%-]*")
_PATH_SAFE: Final = "$&+,/:;=@-_.~"
_FRAGMENT_SAFE: Final = "$&+,/:;=?@-_.~!()*"


class Url(Struct, frozen=True):
    """The parts of a URL, empty where there are none.

    `raw_path` and `raw_fragment` are there only where escaping the other one would not give them.
    """

    scheme: str = ""
    opaque: str = ""
    user: str | None = None
    """As written, with a password behind a colon."""
    host: str = ""
    """With its port."""
    path: str = ""
    raw_path: str = ""
    escaped_path: str = ""
    """As Go writes the path: as it was where that was right."""
    omit_host: bool = False
    force_query: bool = False
    raw_query: str = ""
    fragment: str = ""
    raw_fragment: str = ""

    @property
    def hostname(self) -> str:
        """The host without its port, and without brackets."""
        name = self.host.removesuffix(self._colon_port())
        return name[1:-1] if name.startswith("[") and name.endswith("]") else name

    @property
    def port(self) -> str:
        """Digits, or nothing."""
        return self._colon_port()[1:]

    def _colon_port(self) -> str:
        at = self.host.rfind(":")
        return self.host[at:] if at >= 0 and _PORT.fullmatch(self.host, at) else ""


def parse_url(text: str) -> Url:
    """The parts of a URL or a relative reference. Raises BuiltinError, or LimitError."""
    raw = text.encode()
    if len(raw) > LONGEST:
        raise LimitError(f"a URL of {len(raw)} bytes is too large for a built-in; the limit is {LONGEST}")
    rest, _, raw_fragment = raw.decode("latin-1").partition("#")
    if _CONTROL.search(rest):
        raise BuiltinError("a URL with a control character")
    fields = {"path": "*", "escaped_path": "*"} if rest == "*" else _parsed(rest)
    if raw_fragment:
        fields |= _unescaped_and_raw("fragment", raw_fragment, _FRAGMENT_SAFE)
    return Url(**{name: _utf8(value) if type(value) is str else value for name, value in fields.items()})  # type: ignore[arg-type]


def _parsed(rest: str) -> dict[str, str | bool | None]:
    if rest.startswith(":"):
        raise BuiltinError("a URL without a scheme before its colon")
    match = _SCHEME.match(rest)
    scheme = match[1].lower() if match else ""
    fields: dict[str, str | bool | None] = {"scheme": scheme}
    rest = rest[match.end() :] if match else rest
    if rest.endswith("?") and rest.count("?") == 1:
        fields["force_query"], rest = True, rest[:-1]
    else:
        rest, _, fields["raw_query"] = rest.partition("?")
    if not rest.startswith("/"):
        if scheme:
            return fields | {"opaque": rest}
        if ":" in rest.partition("/")[0]:
            raise BuiltinError("the first segment of a relative URL has a colon")
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        fields |= _authority(scheme, authority)
    elif scheme and rest.startswith("/"):
        fields["omit_host"] = True
    fields |= _unescaped_and_raw("path", rest, _PATH_SAFE)
    right = _ESCAPED_PATH.fullmatch(rest) is not None
    return fields | {
        "escaped_path": rest if right else quote_from_bytes(str(fields["path"]).encode("latin-1"), _PATH_SAFE)
    }


def _unescaped_and_raw(name: str, raw: str, safe: str) -> dict[str, str | bool | None]:
    unescaped = _unescaped(raw)
    same = quote_from_bytes(unescaped.encode("latin-1"), safe) == raw
    return {name: unescaped, f"raw_{name}": "" if same else raw}


def _unescaped(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise BuiltinError("a percent sign in a URL must be followed by two hexadecimal digits")
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1")


def _authority(scheme: str, authority: str) -> dict[str, str | bool | None]:
    user, at, host = authority.rpartition("@")
    fields: dict[str, str | bool | None] = {"host": _host(scheme, host)}
    if at:
        if not _USER.fullmatch(user) or _BAD_ESCAPE.search(user):
            raise BuiltinError("the user of a URL has a character that it must not have")
        fields["user"] = user
    return fields


def _host(scheme: str, host: str) -> str:
    if "[" in host:
        return _bracketed(host)
    if ":" in host:
        # The first colon ends a host of the web; other schemes have lists of hosts, with ports each.
        at = host.index(":") if scheme in ("http", "https") else host.rindex(":")
        if not _PORT.fullmatch(host, at):
            raise BuiltinError("the port of a URL is no number")
    return _allowed(_HOST, host)


def _bracketed(host: str) -> str:
    end = host.rfind("]")
    if host.rfind("[") != 0 or end < 0 or not _PORT.fullmatch(host, end + 1):
        raise BuiltinError("the host of a URL is no address in brackets")
    name, percent, zone = host[1:end].partition("%25")
    address = _allowed(_HOST, name) + (_allowed(_ZONE, percent + zone) if percent else "")
    try:
        IPv6Address(address)
    except AddressValueError:
        raise BuiltinError("the host of a URL is no address in brackets") from None
    return f"[{address}]{host[end + 1 :]}"


def _allowed(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise BuiltinError("the host of a URL has a character that it must not have")
    return _unescaped(text)


def _utf8(text: str) -> str:
    return go_string(text.encode("latin-1"))
