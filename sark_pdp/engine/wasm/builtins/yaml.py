"""`yaml.*`."""

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.builtins.gojson import marshal
from sark_pdp.engine.wasm.builtins.goyaml import load as read
from sark_pdp.engine.wasm.builtins.goyamlwriter import dump
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"yaml.is_valid": _is_valid, "yaml.marshal": _marshal, "yaml.unmarshal": _unmarshal}


def _marshal(_: Context, value: Json) -> str:
    # OPA reads the JSON of the value as YAML, too: what that does to it belongs to the result.
    return dump(read(marshal(value), as_json=False))


def _unmarshal(_: Context, text: Json) -> Json:
    return read(string(text), as_json=True)


def _is_valid(_: Context, text: Json) -> bool:
    if type(text) is not str:
        return False
    try:
        read(text, as_json=True)
    except BuiltinError:
        return False
    return True
