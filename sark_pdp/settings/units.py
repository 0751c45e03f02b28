"""Lengths of time, sizes and shares as people write them: `250ms`, `64MiB`, `0.25`."""

import re
from decimal import Decimal
from typing import NewType

from sark_pdp.model import Seconds

Bytes = NewType("Bytes", int)
"""A size."""

Ratio = NewType("Ratio", float)
"""A share of a whole."""

DURATION_EXPECTED = "a number with ms, s, m, h or d, as in 250ms"
RATIO_EXPECTED = "a number, as in 0.25"
SIZE_EXPECTED = "a whole number of bytes, or one with KiB, MiB or GiB, as in 64MiB"

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_RATIO = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e-[0-9]{1,2})?")
_SIZE = re.compile(r"([0-9]+)(KiB|MiB|GiB|)")
_SIZE_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "": 1}
_MAX_DIGITS = 18
"""A longer number is a mistake, and would cost time to convert."""


def parse_duration(text: str) -> Seconds:
    """`250ms`, `1.5s`, `10m`; without a unit only `0`. Raises ValueError."""
    if text == "0":
        return Seconds(0.0)
    match = _DURATION.fullmatch(text)
    if not match or len(match[1]) > _MAX_DIGITS:
        raise ValueError("is not a length of time")
    return Seconds(float(Decimal(match[1]) * _DURATION_UNITS[match[2]]))


def format_duration(value: Seconds) -> str:
    """The shortest text in the largest unit that keeps the number whole; `parse_duration` gives the same value back."""
    exact = Decimal(repr(float(value)))
    for unit, factor in _DURATION_UNITS.items():
        if exact and exact % factor == 0:
            return f"{exact / factor:f}".partition(".")[0] + unit
    if not exact:
        return "0"
    return f"{(exact / _DURATION_UNITS['ms']).normalize():f}ms"


def parse_ratio(text: str) -> Ratio:
    """`0.25`, `1`, `1e-3`. Raises ValueError."""
    if not _RATIO.fullmatch(text) or len(text) > _MAX_DIGITS:
        raise ValueError("is not a number that counts a share")
    return Ratio(float(text))


def parse_size(text: str) -> Bytes:
    """`64MiB`, `1048576`. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if not match or len(match[1]) > _MAX_DIGITS:
        raise ValueError("is not a size")
    return Bytes(int(match[1]) * _SIZE_UNITS[match[2]])


def format_size(value: Bytes) -> str:
    """In the largest unit that keeps the number whole; `parse_size` gives the same value back."""
    for unit, factor in _SIZE_UNITS.items():
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return "0"
