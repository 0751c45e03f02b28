"""Base64 as Go's `encoding/base64` reads it: line breaks are skipped, everything else out of place is an error."""

import re
from binascii import a2b_base64
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError

_DIGITS: Final = re.compile("[A-Za-z0-9+/]*(={0,2})")
_URL_DIGITS: Final = re.compile("[A-Za-z0-9_-]*(={0,2})")
_STANDARD: Final = str.maketrans("-_", "+/")
_LINE_BREAKS: Final = str.maketrans("", "", "\r\n")


def decode(text: str, *, url: bool = False, padded: bool = True) -> bytes:
    """The bytes; `url` takes the alphabet for URLs, `padded` wants all equals signs, and none otherwise.

    Raises BuiltinError.
    """
    text = text.translate(_LINE_BREAKS)
    match = (_URL_DIGITS if url else _DIGITS).fullmatch(text)
    if match is None or (len(text) % 4 if padded else match[1] or len(text) % 4 == 1):
        raise BuiltinError("not base64")
    return a2b_base64(text.translate(_STANDARD) + "=" * (-len(text) % 4))


def decode_segment(text: str) -> bytes:
    """A part of a JWT: for URLs, the equals signs may be missing. Raises BuiltinError."""
    if not text.endswith("="):
        if len(text.encode()) % 4 == 1:
            raise BuiltinError("not base64")
        # Line breaks count here, and not later: so does OPA.
        text += "=" * (-len(text.encode()) % 4)
    return decode(text, url=True)


def decode_any(text: str) -> bytes:
    """Whatever alphabet and padding the text itself shows. Raises BuiltinError."""
    return decode(text, url="+" not in text and "/" not in text, padded=text.endswith("="))
