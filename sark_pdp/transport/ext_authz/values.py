"""The parts of a policy's result that Envoy acts on, checked: whatever is returned here can be sent over HTTP."""

import math
import re
from collections.abc import Iterator
from typing import Final

from envoy.config.core.v3.base_pb2 import QueryParameter
from google.protobuf.struct_pb2 import Struct, Value

from sark_pdp.errors import SarkError
from sark_pdp.model import Json

# RFC 9110: a field name is a token; a value is visible characters, spaces and tabs, beyond ASCII anything.
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# They frame a message or say where it goes: with another value it is not the request that was decided on.
_RESERVED: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# RFC 3986: what a query may hold unescaped, without what ends a key or a value.
_NOT_IN_KEY: Final = re.compile(r"[^A-Za-z0-9\-._~!$'()*+,;:@/?%]|%(?![0-9A-Fa-f]{2})")
_NOT_IN_VALUE: Final = re.compile(r"[^A-Za-z0-9\-._~!$'()*+,;:@/?=%]|%(?![0-9A-Fa-f]{2})")

# Each level of objects takes three levels of messages, and protobuf's readers stop at 100.
_METADATA_DEPTH: Final = 30


class UnusableResultError(SarkError):
    """A policy's result has a field that cannot be carried out; the message names it, never its value."""


def headers(result: dict[str, Json], field: str) -> Iterator[tuple[str, str]]:
    """Names, as the policy writes them, and values.

    From an object of strings or lists of strings, or a list of such objects.
    """
    stated = result.get(field, {})
    for group in stated if type(stated) is list else [stated]:
        if type(group) is not dict:
            raise UnusableResultError(f"{field} is neither an object nor a list of objects")
        for name, value in _pairs(group, field):
            if _NO_VALUE.search(value):
                raise UnusableResultError(f"{field}: the value of {name!r} has a control character")
            if name.lower() in _RESERVED:
                raise UnusableResultError(f"{field}: {name!r} is not for a policy to set")
            yield _header_name(name, field), value.strip(" \t")


def header_names(result: dict[str, Json], field: str) -> list[str]:
    """In lower case, which Envoy insists on where it validates mutations, from a list of strings."""
    return [_header_name(name, field).lower() for name in _strings(result.get(field, []), field)]


def query_parameters(result: dict[str, Json], field: str) -> list[QueryParameter]:
    """From an object of strings or lists of strings; what no query may hold of them is percent-encoded here.

    Escapes stay, so a value may also be encoded already.
    """
    stated = result.get(field, {})
    if type(stated) is not dict:
        raise UnusableResultError(f"{field} is not an object")
    parameters = []
    for key, value in _pairs(stated, field):
        parameters.append(QueryParameter(key=_query_key(key, field), value=_NOT_IN_VALUE.sub(_escaped, value)))
    return parameters


def query_keys(result: dict[str, Json], field: str) -> list[str]:
    """From a list of strings."""
    return [_query_key(key, field) for key in _strings(result.get(field, []), field)]


def metadata(stated: Json) -> Struct:
    """The policy's `dynamic_metadata`."""
    if type(stated) is not dict:
        raise UnusableResultError("dynamic_metadata is not an object")
    struct = Struct()
    for key, value in stated.items():
        _fill(struct.fields[key], value, _METADATA_DEPTH)
    return struct


def _fill(into: Value, value: Json, depth: int) -> None:
    if depth == 0:
        raise UnusableResultError(f"dynamic_metadata is nested deeper than {_METADATA_DEPTH}")
    if value is None:
        into.null_value = 0  # type: ignore[assignment]
    elif type(value) is bool:
        into.bool_value = value
    elif type(value) is str:
        into.string_value = value
    elif type(value) is dict:
        into.struct_value.SetInParent()
        for key, below in value.items():
            _fill(into.struct_value.fields[key], below, depth - 1)
    elif type(value) is list:
        into.list_value.SetInParent()
        for below in value:
            _fill(into.list_value.values.add(), below, depth - 1)
    else:
        into.number_value = _double(value)


def _double(number: int | float) -> float:
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise UnusableResultError("dynamic_metadata has a number beyond the range of a double")
    return double


def _pairs(group: dict[str, Json], field: str) -> Iterator[tuple[str, str]]:
    for name, stated in group.items():
        for value in _strings([stated] if type(stated) is str else stated, f"{field}: the value of {name!r}"):
            yield name, value


def _strings(stated: Json, what: str) -> list[str]:
    if type(stated) is not list or not all(type(item) is str for item in stated):
        raise UnusableResultError(f"{what} is not a list of strings")
    return stated


def _header_name(name: str, field: str) -> str:
    if not _NAME.fullmatch(name):
        raise UnusableResultError(f"{field}: {name!r} is not the name of a header")
    return name


def _query_key(key: str, field: str) -> str:
    if not key:
        raise UnusableResultError(f"{field}: a key is empty")
    return _NOT_IN_KEY.sub(_escaped, key)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="replace"))
