"""`urlquery.*`: Go's query escapes, in which a space is a plus sign."""

import re
from typing import Final
from urllib.parse import quote_plus, unquote_to_bytes

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, items, string, strings, within
from sark_pdp.engine.wasm.terms import dumps, go_string
from sark_pdp.model import Json

_MAX_ESCAPES: Final = 50_000
"""Percent signs of one text."""

_MAX_PAIRS: Final = 20_000
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2})")


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "urlquery.decode": _decode,
        "urlquery.decode_object": _decode_object,
        "urlquery.encode": _encode,
        "urlquery.encode_object": _encode_object,
    }


def _encode(_: Context, text: Json) -> str:
    return quote_plus(string(text))


def _decode(_: Context, text: Json) -> str:
    return _unescaped(string(text))


def _encode_object(_: Context, values: Json) -> str:
    pairs = [
        (key if type(key) is str else dumps(key).decode(), [value] if type(value) is str else strings(value))
        for key, value in items(values)
    ]
    return "&".join([f"{quote_plus(key)}={quote_plus(text)}" for key, texts in sorted(pairs) for text in texts])


def _decode_object(_: Context, text: Json) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    text = string(text)
    within(text.count("&"), _MAX_PAIRS, "urlquery.decode_object: pairs")
    for pair in text.split("&"):
        if ";" in pair:
            raise BuiltinError("urlquery.decode_object: a semicolon separates nothing, and must be escaped")
        if pair:
            key, _equals, value = pair.partition("=")
            values.setdefault(_unescaped(key), []).append(_unescaped(value))
    return values


def _unescaped(text: str) -> str:
    within(text.count("%"), _MAX_ESCAPES, "urlquery: escapes in a text")
    if _BAD_ESCAPE.search(text):
        raise BuiltinError("a percent sign in a URL query must be followed by two hexadecimal digits")
    return go_string(unquote_to_bytes(text.replace("+", " ")))
