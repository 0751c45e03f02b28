"""What a JSON text may hold, judged before and after it is decoded.

The decoder is C code that keeps the interpreter to itself until it is done, and so do those that encode what it made:
with half a million values in a mebibyte that is 5 to 20 ms, in which nobody else gets an answer. So values are counted.
"""

import re
from typing import Final

from sark_pdp.model import Json

# To the end of the text where it is not closed: it never has to be tried again from another place.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)

_WINDOW: Final = 64 * 1024
"""Bytes that are counted before anybody else may go on: 0.1 to 0.3 ms."""


def has_more_values(text: bytes, most: int) -> bool:
    """Whether a JSON text has more commas, objects and arrays than this, which is one less than its values at the most.

    Quick where it has not, and where it is short. True as well where there are more strings than so many values and
    their names can be: of such a text, which may be nothing but quotes, no more is looked at.
    """
    if len(text) <= most or _separators(text, 0, len(text), most) <= most:
        return False
    found = position = 0
    for number, string in enumerate(_STRING.finditer(text)):
        found += _separators(text, position, string.start(), most)
        if found > most or number > 2 * most:
            return True
        position = string.end()
    return found + _separators(text, position, len(text), most) > most


def _separators(text: bytes, start: int, end: int, most: int) -> int:
    """How many there are, or some number above `most`."""
    found = 0
    for window in range(start, end, _WINDOW):
        stop = min(window + _WINDOW, end)
        found += text.count(b",", window, stop) + text.count(b"{", window, stop) + text.count(b"[", window, stop)
        if found > most:
            break
    return found


def is_deeper(value: Json, most: int) -> bool:
    """Whether objects and arrays are nested deeper than this; `{}` is 1 deep."""
    level = [value]
    for _ in range(most + 1):
        level = [item for item in level if type(item) is dict or type(item) is list]
        if not level:
            return False
        level = [below for item in level for below in (item.values() if type(item) is dict else item)]
    return True
