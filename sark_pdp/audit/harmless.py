"""Makes of any value one that JSON and UTF-8 can carry."""

from typing import Final

import msgspec
from msgspec import UNSET, Struct

from sark_pdp.model import Json

_DEEPEST: Final = 100


def harmless(value: Json, depth: int = 0) -> Json:
    """The same value with everything replaced that JSON or UTF-8 cannot carry, or that is nested too deeply."""
    if depth > _DEEPEST:
        return "(nested too deeply)"
    if isinstance(value, Struct):
        value = {name: below for name, below in msgspec.structs.asdict(value).items() if below is not UNSET}
    if type(value) is str:
        return value.encode("utf-8", "replace").decode("utf-8")
    if type(value) is dict:
        return {harmless(str(key), depth): harmless(below, depth + 1) for key, below in value.items()}
    if type(value) in {list, tuple}:
        return [harmless(below, depth + 1) for below in value]
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):
        return f"(a value of type {type(value).__name__})"
    return value
