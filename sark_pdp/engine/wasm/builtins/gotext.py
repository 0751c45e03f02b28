"""How Go writes strings and Rego values as text: `strconv.Quote`, and the text of an OPA value."""

from typing import Final

from sark_pdp.engine.wasm.values import LimitError, Numeral, RegoObject, RegoSet
from sark_pdp.model import Json

_MAX_ESCAPED: Final = 100_000
"""Characters of one text of which some need an escape."""

_ESCAPES: Final = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}


def quote(text: str, *, mark: str = '"', ascii_only: bool = False) -> str:
    """A Go literal of the text: `strconv.Quote`, or `QuoteRune` with an apostrophe as the mark."""
    if text.isprintable() and mark not in text and "\\" not in text and (text.isascii() or not ascii_only):
        return f"{mark}{text}{mark}"
    if len(text) > _MAX_ESCAPED:
        raise LimitError(f"a text of {len(text)} characters is too long to be quoted; the limit is {_MAX_ESCAPED}")
    return f"{mark}{''.join(_escaped(character, mark, ascii_only) for character in text)}{mark}"


def _escaped(character: str, mark: str, ascii_only: bool) -> str:  # noqa: FBT001
    if character in (mark, "\\"):
        return "\\" + character
    code = ord(character)
    # Python and Go call the same categories printable: all but separators and "other"; and the space.
    if character.isprintable() and (code < 0x7F or not ascii_only):
        return character
    if code in _ESCAPES:
        return _ESCAPES[code]
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def rego_text(value: Json) -> str:
    """The value as OPA prints it: `{"a": [1, true]}`, `{1, 2}`, `set()`; a string in quotes."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is list:
        return f"[{', '.join([rego_text(element) for element in value])}]"
    if kind is dict:
        return f"{{{', '.join([f'{quote(key)}: {rego_text(value[key])}' for key in sorted(value)])}}}"
    if kind is RegoObject:
        return f"{{{', '.join([f'{rego_text(key)}: {rego_text(below)}' for key, below in value.items])}}}"
    if kind is RegoSet:
        return f"{{{', '.join([rego_text(element) for element in value])}}}" if value else "set()"
    return value.text if kind is Numeral else number_text(value)


def number_text(value: float) -> str:
    """A number as JSON has it."""
    return repr(value)
