"""`json.patch` and `json.marshal_with_options`."""

from collections.abc import Iterator
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, items, string, type_name, within
from sark_pdp.engine.wasm.builtins.gojson import marshal
from sark_pdp.engine.wasm.builtins.patch import patched
from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.model import Json

_MAX_SPACE: Final = 1_000_000
"""Characters of prefixes and indents, about, that one call may put between the others."""


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
    if not pretty:
        return marshal(value)
    # An element is on a line of its own, and so is what closes it.
    within(
        sum(len(prefix) + depth * len(indent) for depth in _depths(value, 1)),
        _MAX_SPACE,
        "json.marshal_with_options: characters of prefixes and indents",
    )
    return prefix + marshal(value, indent).replace("\n", "\n" + prefix)


def _depths(value: Json, depth: int) -> Iterator[int]:
    """How deep each element is."""
    if type(value) in (dict, RegoObject):
        value = [below for _, below in items(value)]
    if type(value) in (list, RegoSet):
        for below in value:
            yield depth
            yield from _depths(below, depth + 1)
