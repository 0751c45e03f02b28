"""`json.patch` and `json.marshal_with_options`."""

import json
import re
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, items, string, type_name
from sark_pdp.engine.wasm.builtins.patch import patched
from sark_pdp.engine.wasm.terms import dumps
from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.model import Json

_ESCAPED: Final = re.compile("[<>&\\u2028\\u2029]")
"""Go writes JSON that is safe within HTML."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"json.marshal_with_options": _marshal_with_options, "json.patch": _patch}


def _patch(_: Context, document: Json, operations: Json) -> Json:
    return patched(document, array(operations))


def _marshal_with_options(_: Context, value: Json, options: Json) -> str:
    prefix, indent, pretty = "", "\t", None
    for key, option in items(options):
        if key == "prefix":
            prefix = string(option)
        elif key == "indent":
            indent = string(option)
        elif key == "pretty" and type(option) is bool:
            pretty = option
        else:
            raise BuiltinError(f"json.marshal_with_options: not an option: {type_name(key)} {str(key)[:40]!r}")
    if pretty is None:
        pretty = len(items(options)) > 0
    plain = _plain(value)
    if not pretty:
        return _written(plain, None)
    return prefix + _written(plain, indent).replace("\n", "\n" + prefix)


def _written(value: Json, indent: str | None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=separators, indent=indent)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _plain(value: Json) -> Json:
    """Without sets, and with strings as keys."""
    kind = type(value)
    if kind is list or kind is RegoSet:
        return [_plain(element) for element in value]
    if kind is dict or kind is RegoObject:
        return {key if type(key) is str else dumps(_plain(key)).decode(): _plain(below) for key, below in items(value)}
    return value
