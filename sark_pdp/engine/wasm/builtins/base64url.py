"""`base64url.encode_no_pad`."""

from base64 import urlsafe_b64encode

from sark_pdp.engine.wasm.builtins.base import Builtin, Context, string
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"base64url.encode_no_pad": _encode_no_pad}


def _encode_no_pad(_: Context, text: Json) -> str:
    return urlsafe_b64encode(string(text).encode()).rstrip(b"=").decode()
