"""`hex.*`."""

from binascii import Error, unhexlify

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.terms import go_string
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"hex.decode": _decode, "hex.encode": _encode}


def _encode(_: Context, text: Json) -> str:
    return string(text).encode().hex()


def _decode(_: Context, text: Json) -> str:
    try:
        return go_string(unhexlify(string(text)))
    except (Error, ValueError):
        raise BuiltinError("hex.decode: not pairs of hexadecimal digits") from None
