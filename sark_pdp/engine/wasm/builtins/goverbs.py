"""How Go's package fmt writes one argument: an integer, a float or a string, under one verb and its flags."""

from typing import Final, TypeAlias

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gofloat import float_text
from sark_pdp.engine.wasm.builtins.gotext import quote

Argument: TypeAlias = str | int | float
"""Rego's strings and numbers as they are; any other value as OPA prints it."""

_BASES: Final = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
_PREFIXES: Final = {"b": "0b", "x": "0x", "X": "0X"}
_DEFAULT_PRECISIONS: Final = {"f": 6, "F": 6, "e": 6, "E": 6}
_LAST_RUNE: Final = 0x10FFFF
_REPLACEMENT: Final = "\ufffd"


class Spec(Struct, frozen=True):
    """A verb, its flags, width and precision."""

    verb: str
    sharp: bool = False
    zero: bool = False
    plus: bool = False
    minus: bool = False
    space: bool = False
    go_syntax: bool = False
    """`%#v`, where `sharp` is not set."""
    plus_v: bool = False
    """`%+v`, where `plus` is not set."""
    width: int | None = None
    precision: int | None = None


BARE: Final = Spec("v")


def write(spec: Spec, argument: Argument) -> str:
    """The argument as the verb wants it, or `%!d(string=…)` where the verb does not fit."""
    if spec.verb == "T":
        return _string(spec, go_type(argument))
    if type(argument) is str:
        text = _string_verb(spec, spec.verb, argument)
    elif type(argument) is float:
        text = _float_verb(spec, spec.verb, argument)
    elif is_big(argument):
        return _big(spec, spec.verb, int(argument))
    else:
        text = _integer_verb(spec, spec.verb, int(argument))
    return _unfit(spec, argument) if text is None else text


def go_type(argument: Argument) -> str:
    """The type that OPA hands to fmt."""
    if type(argument) is str:
        return "string"
    if type(argument) is float:
        return "float64"
    return "*big.Int" if is_big(argument) else "int64"


def is_big(number: float | str) -> bool:
    """Whether an integer needs more than 64 bits."""
    return type(number) is int and not -(1 << 63) <= number < 1 << 63


def _unfit(spec: Spec, argument: Argument) -> str:
    # The flags hold for the value within the message, too.
    value = _string_verb(spec, "v", argument) if type(argument) is str else None
    if type(argument) is float:
        value = _float_verb(spec, "v", argument)
    elif value is None:
        value = _integer_verb(spec, "v", int(argument))
    return f"%!{spec.verb}({go_type(argument)}={value})"


def _pad(spec: Spec, text: str, fill: str = " ") -> str:
    if not spec.width:
        return text
    return text.ljust(spec.width) if spec.minus else text.rjust(spec.width, fill)


def _zero(spec: Spec) -> str:
    return "0" if spec.zero and not spec.minus else " "


def _string(spec: Spec, text: str) -> str:
    return _pad(spec, text[: spec.precision], _zero(spec))


def _string_verb(spec: Spec, verb: str, text: str) -> str | None:
    if verb == "s" or (verb == "v" and not spec.go_syntax):
        return _string(spec, text)
    if verb in ("q", "v"):
        text = text[: spec.precision]
        if spec.sharp and _can_backquote(text):
            return _pad(spec, f"`{text}`", _zero(spec))
        return _pad(spec, quote(text, ascii_only=spec.plus), _zero(spec))
    if verb in ("x", "X"):
        return _pad(spec, _hexadecimal(spec, verb, text.encode()[: spec.precision]), _zero(spec))
    return None


def _hexadecimal(spec: Spec, verb: str, raw: bytes) -> str:
    if not raw:
        return ""
    prefix = _PREFIXES[verb] if spec.sharp else ""
    digits = raw.hex(" ") if spec.space else raw.hex()
    if verb == "X":
        digits = digits.upper()
    return prefix + digits.replace(" ", " " + prefix)


def _can_backquote(text: str) -> bool:
    return all((character >= " " or character == "\t") and character not in "`\x7f\ufeff\ufffd" for character in text)


def _integer_verb(spec: Spec, verb: str, number: int) -> str | None:
    if verb in _BASES:
        return _integer(spec, verb, number)
    if verb == "c":
        return _pad(spec, _rune(number), _zero(spec))
    if verb == "q":
        return _pad(spec, quote(_rune(number), mark="'", ascii_only=spec.plus), _zero(spec))
    if verb == "U":
        text = f"U+{number % (1 << 64):0{max(4, spec.precision or 0)}X}"
        if spec.sharp and 0 <= number <= _LAST_RUNE and chr(number).isprintable():
            text += f" '{chr(number)}'"
        return _pad(spec, text)
    return None


def _rune(number: int) -> str:
    return chr(number) if 0 <= number <= _LAST_RUNE and not 0xD800 <= number < 0xE000 else _REPLACEMENT


def _integer(spec: Spec, verb: str, number: int) -> str:
    sign = _sign(spec, number)
    least = spec.precision or 0
    if spec.precision is None and spec.zero and not spec.minus and spec.width is not None:
        least = spec.width - len(sign)
    if spec.precision == 0 and number == 0:
        return " " * (spec.width or 0)
    base = _BASES[verb]
    digits = format(abs(number), base).rjust(least, "0")
    if spec.sharp and base == "o":
        digits = digits if digits[0] == "0" else "0" + digits
    elif spec.sharp:
        digits = _PREFIXES.get(base, "") + digits
    if verb == "O":
        digits = "0o" + digits
    return _pad(spec, sign + digits)


def _sign(spec: Spec, number: float) -> str:
    if number < 0:
        return "-"
    if spec.plus:
        return "+"
    return " " if spec.space else ""


def _big(spec: Spec, verb: str, number: int) -> str:
    """As `big.Int` writes itself: other rules than for int64."""
    base = "d" if verb == "s" else _BASES.get(verb)
    if base is None:
        if verb in ("w", "p"):
            raise BuiltinError(f"sprintf: %{verb} of a number above 64 bits has no text")
        return f"%!{verb}(big.Int={number})"
    sign = "-" if number < 0 else "+" if spec.plus or spec.plus_v else " " if spec.space else ""
    prefix = "0o" if verb == "O" else ""
    if (spec.sharp or spec.go_syntax) and verb != "O":
        prefix = "0" if base == "o" else _PREFIXES.get(base, "")
    digits = format(abs(number), base).rjust(spec.precision or 0, "0")
    missing = (spec.width or 0) - len(sign) - len(prefix) - len(digits)
    if spec.zero and not spec.minus and spec.precision is None:
        digits = "0" * missing + digits
    return _pad(spec, sign + prefix + digits)


def _float_verb(spec: Spec, verb: str, number: float) -> str | None:
    if verb not in "vbgGxXfFeE":
        return None
    precision = _DEFAULT_PRECISIONS.get(verb) if spec.precision is None else spec.precision
    # -0.0 keeps its sign.
    text = float_text(number, {"v": "g", "F": "f"}.get(verb, verb), precision)
    negative = text[0] == "-"
    digits = text[negative:]
    if spec.sharp and verb != "b":
        digits = _with_point(digits, verb, precision)
    sign = "-" if negative else "+" if spec.plus else " " if spec.space else ""
    if sign and spec.zero and not spec.minus and spec.width:
        return sign + digits.rjust(spec.width - 1, "0")
    return _pad(spec, sign + digits, _zero(spec))


def _with_point(text: str, verb: str, precision: int | None) -> str:
    """With a decimal point always, and the zeros at the end that `%g` leaves out."""
    wanted = 0
    if verb in "vgGx":
        wanted = 6 if precision is None else precision
    marks = "pP" if verb in "xX" else "eE"
    cut = next((at for at, character in enumerate(text) if character in marks), len(text))
    mantissa, tail = text[:cut], text[cut:]
    significant = mantissa.replace(".", "").lstrip("0")
    if "." not in mantissa:
        wanted -= mantissa == "0"
        mantissa += "."
    return mantissa + "0" * (wanted - len(significant)) + tail
