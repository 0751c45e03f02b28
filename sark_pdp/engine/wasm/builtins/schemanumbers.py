"""Numbers of JSON schemas and their documents: compared exactly as they are written, and written as Go does."""

from decimal import Decimal
from fractions import Fraction
from typing import Final

from sark_pdp.engine.wasm.builtins.gofloat import float_text
from sark_pdp.engine.wasm.builtins.gojson import marshal
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_DIGITS: Final = 15
"""What a float keeps of an integer."""


def is_number(value: Json) -> bool:
    """Whether it is one; booleans are none."""
    return type(value) is int or type(value) is float


def is_whole(value: float) -> bool:
    """Whether a number is an integer, 1.0 too."""
    return type(value) is int or value.is_integer()


def exact(value: float) -> Fraction:
    """The number that its digits say."""
    return Fraction(value) if type(value) is int else Fraction(repr(value))


def big_text(value: float) -> str:
    """A limit as Go's `big.Float` writes it: with an exponent from a million on."""
    text = str(abs(value))
    digits = text.rstrip("0")
    if type(value) is float or len(digits) <= _DIGITS:
        return float_text(float(value), "g", None)
    return f"{'-' if value < 0 else ''}{digits[0]}.{digits[1:]}e+{len(text) - 1:02d}"


def canonical(value: Json) -> str:
    """JSON that is the same for equal values: all numbers are floats of 64 bits."""
    kind = type(value)
    if kind is list:
        return f"[{','.join([canonical(element) for element in value])}]"
    if kind is dict:
        return f"{{{','.join([f'{marshal(key)}:{canonical(value[key])}' for key in sorted(value)])}}}"
    return _float_text(value) if is_number(value) else marshal(value)


def _float_text(value: float) -> str:
    try:
        number = float(value)
    except OverflowError:
        raise LimitError("a number is too large for a JSON schema") from None
    if number == 0:
        # Go writes a negative zero as such.
        return "-0" if str(number)[0] == "-" else "0"
    if 1e-6 <= abs(number) < 1e21:
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    mantissa, _, exponent = float_text(number, "g", None).partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}"
