"""YAML as go.yaml.in/yaml/v3 writes values of JSON: in blocks, two spaces deep, long lines left as they are."""

import re
from collections.abc import Iterator
from functools import cmp_to_key
from typing import Final

from sark_pdp.engine.wasm.builtins.gofloat import float_text
from sark_pdp.engine.wasm.builtins.goyaml import resolved
from sark_pdp.model import Json

_LONGEST_KEY: Final = 128
"""Bytes of a key that stands before its colon; a longer one gets a question mark."""

_OLD_BOOLEANS: Final = frozenset({
    "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF",
})  # fmt: skip
_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_DATE: Final = re.compile(
    r"[0-9]{4}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
    r"| [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?)?"
)
_BREAK: Final = re.compile("[\r\n\x85\u2028\u2029]")
_UNPRINTABLE: Final = re.compile("[^\n -~\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
"""What go-yaml calls so, which is all beyond the first 65,536 characters, too."""
_ESCAPED: Final = re.compile("[^ -!#-\\[\\]-~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
_ANY: Final = re.compile(".", re.DOTALL)
_ESCAPES: Final = {
    "\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e", '"': '"',
    "\\": "\\", "\x85": "N", "\u2028": "L", "\u2029": "P",
}  # fmt: skip


def dump(value: Json) -> str:
    """The value as YAML; it has plain keys and no sets."""
    return "\n".join(_lines(value, 0)) + "\n"


def _lines(value: Json, indent: int) -> list[str]:
    """The lines of a value; the first one is to follow a dash or to stand alone, and so has no indentation."""
    if type(value) is dict and value:
        return _mapping(value, indent)
    if type(value) is list and value:
        lines: list[str] = []
        for element in value:
            first, *rest = _lines(element, indent + 2)
            lines += [f"{' ' * indent if lines else ''}- {first}", *rest]
        return lines
    return _scalar(value, indent)


def _mapping(value: dict[str, Json], indent: int) -> list[str]:
    lines: list[str] = []
    for key in sorted(value, key=cmp_to_key(_compared)):
        margin, below = " " * indent if lines else "", value[key]
        if _BREAK.search(key) or len(key.encode()) > _LONGEST_KEY:
            first, *rest = _text(key, indent + 2)
            lines += [f"{margin}? {first}", *rest]
            first, *rest = _lines(below, indent + 2)
            lines += [f"{' ' * indent}: {first}", *rest]
            continue
        name = _text(key, indent, is_key=True)[0]
        if type(below) in (dict, list) and below:
            first, *rest = _lines(below, indent + 2)
            lines += [f"{margin}{name}:", f"{' ' * (indent + 2)}{first}", *rest]
        else:
            first, *rest = _scalar(below, indent + 2)
            lines += [f"{margin}{name}: {first}", *rest]
    return lines


def _scalar(value: Json, indent: int) -> list[str]:
    if type(value) is str:
        return _text(value, indent)
    if value is None:
        return ["null"]
    if type(value) is bool:
        return ["true" if value else "false"]
    if type(value) is float:
        return [float_text(value, "g", None)]
    return [str(value)] if type(value) is int else ["{}" if type(value) is dict else "[]"]


def _text(text: str, indent: int, *, is_key: bool = False) -> list[str]:
    """A string in the first of these styles that can hold it: plain, single quotes, a literal block, double quotes."""
    if "\n" in text:
        if is_key or _not_literal(text):
            return [_double_quoted(text)]
        return _literal(text, max(indent, 2))
    if _means_more(text):
        return [_double_quoted(text)]
    if not _not_plain(text):
        return [text]
    if "\t" in text or _UNPRINTABLE.search(text):
        return [_double_quoted(text)]
    return ["'" + text.replace("'", "''") + "'"]


def _means_more(text: str) -> bool:
    """Whether it would be something else than a string without quotes."""
    return (
        type(resolved(text)) is not str
        or text in _OLD_BOOLEANS
        or _BASE_60.fullmatch(text) is not None
        or _DATE.fullmatch(text) is not None
    )


def _not_plain(text: str) -> bool:
    return (
        text.startswith(("---", "...", "- ", "? ", "-\t", "?\t", *"#,[]{}&*!|>'\"%@`"))
        or text in ("-", "?", ":")
        or text[0] == " "
        or text[-1] in " :"
        or ": " in text
        or ":\t" in text
        or " #" in text
        or _BREAK.search(text) is not None
        or _UNPRINTABLE.search(text) is not None
    )


def _not_literal(text: str) -> bool:
    return (
        text[-1] == " "
        or re.search(" [\r\n\x85\u2028\u2029]", text) is not None
        or bool(_UNPRINTABLE.search(text.replace("\t", "")))
    )


def _literal(text: str, indent: int) -> list[str]:
    hint = "2" if text[0] in " \n" else ""
    body = text.removesuffix("\n")
    # Without a break at the end, with one, and with more.
    mark = "-" if body == text else "+" if not body or body.endswith("\n") else ""
    return [f"|{hint}{mark}", *(" " * indent + line if line else "" for line in body.split("\n"))]


def _double_quoted(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        character = match[0]
        if character in _ESCAPES:
            return "\\" + _ESCAPES[character]
        code = ord(character)
        if code <= 0xFF:
            return f"\\x{code:02X}"
        return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"

    # Behind a byte order mark go-yaml escapes everything.
    return '"' + (_ANY if text.startswith("\ufeff") else _ESCAPED).sub(escape, text) + '"'


def _compared(left: str, right: str) -> int:
    """In the order of people: letters behind all else, and numbers by what they are worth."""
    digits = False
    for at, (a, b) in enumerate(zip(left, right, strict=False)):
        if a == b:
            digits = a.isdecimal()
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            return -1 if a.isalpha() == digits else 1
        return _compared_from(left, right, at)
    return len(left) - len(right)


def _compared_from(left: str, right: str, at: int) -> int:
    before = list(_decimals(left[:at][::-1]))
    # A zero in a number is not one at its beginning.
    lead = "1" if "0" in (left[at], right[at]) and any(digit != "0" for digit in before) else ""
    digits = ["".join(_decimals(text[at:])) for text in (left, right)]
    # Beyond 64 bits Go's numbers wrap around.
    numbers = [_int64(lead + text) for text in digits]
    if numbers[0] != numbers[1]:
        return -1 if numbers[0] < numbers[1] else 1
    if len(digits[0]) != len(digits[1]):
        return len(digits[0]) - len(digits[1])
    return -1 if left[at] < right[at] else 1


def _decimals(text: str) -> Iterator[str]:
    for character in text:
        if not character.isdecimal():
            return
        yield character


def _int64(digits: str) -> int:
    number = 0
    for digit in digits:
        number = (number * 10 + ord(digit) - ord("0")) & (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
