"""`json.patch` and `json.marshal_with_options`."""

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, items, string, type_name
from sark_pdp.engine.wasm.builtins.gojson import marshal
from sark_pdp.engine.wasm.builtins.patch import patched
from sark_pdp.model import Json


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
    return prefix + marshal(value, indent).replace("\n", "\n" + prefix)
