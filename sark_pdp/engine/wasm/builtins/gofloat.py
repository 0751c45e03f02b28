"""Go's `strconv.FormatFloat` for 64 bits: what `%e %f %g %x %b` begin from. No infinities, no NaN: Rego has neither."""

import struct
from typing import Final

_SHORTEST_EXPONENT: Final = 6
"""Where no precision is given, `%g` turns to an exponent at 10 to the power of at least this."""


def float_text(value: float, verb: str, precision: int | None) -> str:
    """The value without flags or padding; no precision means the fewest digits that read back as the same value."""
    if verb in "xX":
        text = _hexadecimal(value, precision)
        return text.upper() if verb == "X" else text
    if verb == "b":
        return _binary(value)
    if precision is None:
        text = _shortest(value)
        return text.upper() if verb == "G" else text
    return f"{value:.{precision}{verb}}"


def _shortest(value: float) -> str:
    text = repr(value)
    sign, text = ("-", text[1:]) if text[0] == "-" else ("", text)
    mantissa, _, exponent_text = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0").rstrip("0")
    if not digits:
        return sign + "0"
    exponent = int(exponent_text or 0) + _leading_exponent(whole, fraction)
    if exponent < -4 or exponent >= _SHORTEST_EXPONENT:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    digits = digits.ljust(exponent + 1, "0")
    point = "." if len(digits) > exponent + 1 else ""
    return f"{sign}{digits[: exponent + 1]}{point}{digits[exponent + 1 :]}"


def _leading_exponent(whole: str, fraction: str) -> int:
    """The power of ten of the first digit that is not zero."""
    significant = whole.lstrip("0")
    if significant:
        return len(significant) - 1
    return len(fraction.lstrip("0")) - len(fraction) - 1


def _parts(value: float) -> tuple[str, int, int]:
    """Sign, mantissa below 2 to the 53, and exponent: value = mantissa * 2 ** exponent."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    sign = "-" if bits >> 63 else ""
    exponent = bits >> 52 & 0x7FF
    mantissa = bits & (1 << 52) - 1
    if exponent:
        return sign, mantissa | 1 << 52, exponent - 1075
    return sign, mantissa, -1074


def _binary(value: float) -> str:
    sign, mantissa, exponent = _parts(value)
    return f"{sign}{mantissa}p{exponent:+d}"


def _hexadecimal(value: float, precision: int | None) -> str:
    sign, mantissa, exponent = _parts(value)
    if not mantissa:
        return f"{sign}0x0{'.' + '0' * precision if precision else ''}p+00"
    # The leading digit is 1, subnormal values included; 60 bits behind it are 15 digits.
    exponent += mantissa.bit_length() - 1
    mantissa <<= 61 - mantissa.bit_length()
    if precision is not None and precision < 15:
        dropped = 60 - precision * 4
        kept, rest = mantissa >> dropped, mantissa & (1 << dropped) - 1
        half = 1 << dropped - 1
        kept += rest > half or (rest == half and kept & 1)
        mantissa = kept << dropped
        if mantissa >> 61:
            mantissa >>= 1
            exponent += 1
    digits = f"{mantissa & (1 << 60) - 1:015x}"
    digits = digits.rstrip("0") if precision is None else digits[:precision].ljust(precision, "0")
    return f"{sign}0x1{'.' + digits if digits else ''}p{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
