"""`units.*`: amounts with SI and binary prefixes."""

import re
from fractions import Fraction
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_MAX_EXPONENT: Final = 400
_LONGEST: Final = 1024
_AMOUNT: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_EXPONENT: Final = re.compile(r"[eE][+-]?([0-9]*)")
_DECIMALS: Final = 10**10

_SI: Final = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"units.parse": _parse, "units.parse_bytes": _parse_bytes}


def _parse(_: Context, text: Json) -> int | float:
    number, unit = _split(string(text).replace('"', ""))
    unit = unit[:1] + unit[1:].lower()
    # A thousandth is the float of that name, and the product is rounded to ten decimals.
    amount = _amount(number) * (Fraction(0.001) if unit == "m" else _factor(unit))
    if amount.denominator == 1:
        return amount.numerator
    rounded = (abs(amount) * _DECIMALS * 2 + 1) // 2
    return float(Fraction(rounded if amount > 0 else -rounded, _DECIMALS))


def _factor(unit: str) -> Fraction:
    if not unit:
        return Fraction(1)
    # `E` and `K` may be of either case, `M` is not `m`.
    if unit in {"k", "K", "M", "g", "G", "t", "T", "p", "P", "e", "E"}:
        return Fraction(1000) ** _SI[unit.lower()]
    if len(unit) == 2 and unit[1] == "i" and unit[0].lower() in _SI:
        return Fraction(1024) ** _SI[unit[0].lower()]
    raise BuiltinError(f"not a unit: {unit[:40]!r}")


def _parse_bytes(_: Context, text: Json) -> int:
    number, unit = _split(string(text).lower().replace('"', ""))
    return int(_rounded(_rounded(_amount(number)) * _byte_factor(unit)))


def _byte_factor(unit: str) -> Fraction:
    if not unit:
        return Fraction(1)
    power = _SI.get(unit[0])
    if power is not None and unit[1:] in {"", "b"}:
        return Fraction(1000) ** power
    if power is not None and unit[1:] in {"i", "ib"}:
        return Fraction(1024) ** power
    raise BuiltinError(f"not a unit of bytes: {unit[:40]!r}")


def _split(text: str) -> tuple[str, str]:
    """A number and what follows it; an `e` begins an exponent where a digit or a sign follows."""
    if len(text) > _LONGEST:
        raise LimitError(f"an amount may have {_LONGEST} characters, not {len(text)}")
    if " " in text:
        raise BuiltinError("an amount has no spaces")
    at = 0
    while at < len(text):
        character = text[at]
        if character in "eE":
            if text[at + 1 : at + 2] not in set("0123456789+-"):
                break
            exponent = _EXPONENT.match(text, at)
            if exponent and len(exponent[1]) > 6:
                raise BuiltinError("the exponent of an amount is too large")
            at += text[at + 1] in "+-"
        elif character not in "0123456789.+-":
            break
        at += 1
    if at == 0:
        raise BuiltinError("an amount begins with a number")
    return text[:at], text[at:]


def _amount(number: str) -> Fraction:
    match = _AMOUNT.fullmatch(number)
    if match is None or not (match[2] or match[3]):
        raise BuiltinError(f"not a number: {number[:40]!r}")
    exponent = int(match[4] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        raise LimitError(f"the exponent of an amount may be {_MAX_EXPONENT}")
    fraction = match[3] or ""
    value = Fraction(int((match[2] or "") + fraction or 0)) * Fraction(10) ** (exponent - len(fraction))
    return -value if match[1] == "-" else value


def _rounded(value: Fraction) -> Fraction:
    """To 64 binary digits, the precision in which OPA computes bytes."""
    if not value:
        return value
    shift = value.numerator.bit_length() - value.denominator.bit_length() - 64
    scaled = value / Fraction(2) ** shift
    if abs(scaled) >= 1 << 64:
        shift += 1
        scaled /= 2
    return round(scaled) * Fraction(2) ** shift
