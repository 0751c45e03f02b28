"""`numbers.range_step`."""

from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, whole_number
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

MAX_RANGE: Final = 100_000
"""Numbers that one call lists."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"numbers.range_step": _range_step}


def _range_step(_: Context, start: Json, end: Json, step: Json) -> list[int]:
    start, end, step = whole_number(start), whole_number(end), whole_number(step)
    if step <= 0:
        raise BuiltinError("numbers.range_step: the step must be a positive integer")
    if abs(end - start) // step >= MAX_RANGE:
        raise LimitError(f"numbers.range_step: a range may have {MAX_RANGE} numbers")
    return list(range(start, end + 1, step) if start <= end else range(start, end - 1, -step))
