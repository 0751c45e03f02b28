"""JSON as Go's `encoding/json` reads and writes it."""

import json
import re
from typing import Final

import msgspec

from sark_pdp.engine.wasm.builtins.base import BuiltinError, items
from sark_pdp.engine.wasm.terms import dumps, go_string
from sark_pdp.engine.wasm.values import LimitError, RegoObject, RegoSet
from sark_pdp.model import Json

_ESCAPED: Final = re.compile("[<>&\\u2028\\u2029]")
"""Go writes JSON that is safe within HTML."""

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def loads(raw: bytes) -> Json:
    """One JSON value and nothing behind it; the last of equal keys counts. Raises BuiltinError, or LimitError."""
    text = go_string(raw)
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise LimitError("a JSON text is nested too deeply for a built-in") from None
    except msgspec.ValidationError:
        raise LimitError("a number is too large for a built-in") from None
    except msgspec.DecodeError as problem:
        if "\\ud" in text or "\\uD" in text:
            # Half of a surrogate pair is U+FFFD in Go, and an error to msgspec.
            return _loads_with_surrogates(text)
        raise BuiltinError(f"not JSON: {problem}") from None


def _loads_with_surrogates(text: str) -> Json:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise LimitError("a JSON text is nested too deeply for a built-in") from None
    except ValueError as problem:
        raise BuiltinError(f"not JSON: {problem}") from None
    return _without_surrogates(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _without_surrogates(value: Json) -> Json:
    kind = type(value)
    if kind is str:
        return _LONE_SURROGATE.sub("\ufffd", value)
    if kind is list:
        return [_without_surrogates(element) for element in value]
    if kind is dict:
        return {_without_surrogates(key): _without_surrogates(below) for key, below in value.items()}
    return value


def marshal(value: Json, indent: str | None = None) -> str:
    """The value as Go writes it: sets as arrays, keys as strings and in order, without spaces where not indented."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(plain(value), ensure_ascii=False, sort_keys=True, separators=separators, indent=indent)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain(value: Json) -> Json:
    """The value without sets, and with strings as keys."""
    kind = type(value)
    if kind is list or kind is RegoSet:
        return [plain(element) for element in value]
    if kind is dict or kind is RegoObject:
        return {key if type(key) is str else dumps(plain(key)).decode(): plain(below) for key, below in items(value)}
    return value
