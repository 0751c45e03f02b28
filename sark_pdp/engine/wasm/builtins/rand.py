"""`rand.intn`."""

from sark_pdp.engine.wasm.builtins.base import Builtin, Context, integer, string
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"rand.intn": _intn}


def _intn(context: Context, name: Json, limit: Json) -> int:
    name, limit = string(name), abs(integer(limit))
    if limit == 0:
        return 0
    key = ("rand.intn", name, limit)
    if key not in context.cache:
        context.cache[key] = context.random.randrange(limit)
    number: int = context.cache[key]
    return number
