"""The formats of JSON schemas, as github.com/xeipuuv/gojsonschema checks them with Go's own parsers."""

import re
from collections.abc import Callable
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gocalendar import days_in
from sark_pdp.engine.wasm.builtins.goip import parse_address
from sark_pdp.engine.wasm.builtins.gourl import Url, parse_url

_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME: Final = re.compile(
    r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.,][0-9]+)?(Z|[+-](?:[01][0-9]|2[0-4]):(?:[0-5][0-9]|60))?"
)
_LABEL: Final = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_UUID: Final = re.compile("[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}")
_POINTER: Final = re.compile("(?:/(?:[^~/]|~[01])*)*")
_RELATIVE_POINTER: Final = re.compile("(?:0|[1-9][0-9]*)(?:#|(?:/(?:[^~/]|~[01])*)*)")
# Quantifiers of characters are possessive, so that hardly anything is tried twice, whatever the text. Those of groups
# are not: before 3.11.5 Python goes on behind the part of a group that matched (issue 106052 of CPython).
_ATOM: Final = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~\\-\\x80-\U0010ffff]++"
_DOT_ATOM: Final = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED: Final = r'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*"'
_ADDRESS: Final = rf"(?:{_DOT_ATOM}|{_QUOTED})@(?:{_DOT_ATOM}|\[([0-9a-fA-F.:]++)\])"
_EMAIL: Final = re.compile(
    rf"[ \t]*+(?:{_ADDRESS}|(?:(?:{_ATOM}|\.|{_QUOTED})[ \t]*+)*<[ \t]*+{_ADDRESS}>)[ \t]*+(?:\([^()\\]*+\)[ \t]*+)?"
)
_LONGEST_EMAIL: Final = 1024
"""Characters."""


def is_format(name: str, text: str, is_expression: Callable[[str], bool]) -> bool:
    """Whether the text is of the format; of one that is not known, everything is."""
    if name == "regex":
        return not text or is_expression(text)
    check = _CHECKS.get(name)
    return check is None or check(text)


def _is_date(text: str) -> bool:
    match = _DATE.fullmatch(text)
    if match is None:
        return False
    year, month, day = (int(group) for group in match.groups())
    return 1 <= month <= 12 and 1 <= day <= days_in(year, month)


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None


def _is_date_time(text: str) -> bool:
    if _is_date(text) or _is_time(text):
        return True
    date, _, time = text.partition("T")
    match = _TIME.fullmatch(time)
    return match is not None and match[1] is not None and _is_date(date)


def _is_email(text: str) -> bool:
    match = _EMAIL.fullmatch(text) if len(text) <= _LONGEST_EMAIL else None
    return match is not None and all(literal is None or parse_address(literal) for literal in match.groups())


def _is_ipv4(text: str) -> bool:
    return "." in text and parse_address(text) is not None


def _is_ipv6(text: str) -> bool:
    return ":" in text and parse_address(text) is not None


def _url(text: str) -> Url | None:
    if "\\" in text:
        return None
    try:
        return parse_url(text)
    except BuiltinError:
        return None


def _is_uri(text: str) -> bool:
    url = _url(text)
    return url is not None and url.scheme != ""


def _is_uri_reference(text: str) -> bool:
    return _url(text) is not None


def _is_uri_template(text: str) -> bool:
    url = _url(text)
    if url is None:
        return False
    rest = url.path
    while "{" in rest:
        _, closed, rest = rest.partition("{")[2].partition("}")
        if not closed:
            return False
    return True


def _is_hostname(text: str) -> bool:
    return len(text.encode()) < 256 and _HOSTNAME.fullmatch(text) is not None


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def _is_pointer(text: str) -> bool:
    return _POINTER.fullmatch(text) is not None


def _is_relative_pointer(text: str) -> bool:
    return _RELATIVE_POINTER.fullmatch(text) is not None


_CHECKS: Final[dict[str, Callable[[str], bool]]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "hostname": _is_hostname,
    "email": _is_email,
    "idn-email": _is_email,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "uri": _is_uri,
    "uri-reference": _is_uri_reference,
    "iri": _is_uri,
    "iri-reference": _is_uri_reference,
    "uri-template": _is_uri_template,
    "uuid": _is_uuid,
    "json-pointer": _is_pointer,
    "relative-json-pointer": _is_relative_pointer,
}
