"""`glob.quote_meta`."""

from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, Context, string
from sark_pdp.model import Json

_ESCAPES: Final = str.maketrans({character: f"\\{character}" for character in "\\*?[]{}"})


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"glob.quote_meta": _quote_meta}


def _quote_meta(_: Context, pattern: Json) -> str:
    return string(pattern).translate(_ESCAPES)
