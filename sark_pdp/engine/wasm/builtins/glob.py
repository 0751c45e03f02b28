"""`glob.quote_meta`."""

import re
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, Context, string
from sark_pdp.model import Json

_SPECIAL: Final = re.compile(r"[\\*?\[\]{}]")


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"glob.quote_meta": _quote_meta}


def _quote_meta(_: Context, pattern: Json) -> str:
    return _SPECIAL.sub(r"\\\g<0>", string(pattern))
