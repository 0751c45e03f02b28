"""Go's `time.ParseDuration`, with OPA's days, weeks and years: `1d2h30m`."""

import re
from decimal import Decimal
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.values import LimitError

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""Nanoseconds; the micro sign and the Greek letter mu are both in use."""

_HOURS: Final = {"d": 24, "w": 7 * 24, "y": 365 * 24}
_LONG: Final = re.compile(r"([+-]?)((?:[0-9.]+(?:ms|us|\u00b5s|ns|[a-z]))+)")
_LONG_SEGMENT: Final = re.compile(r"([0-9.]+)(ms|us|\u00b5s|ns|[a-z])")
_SEGMENT: Final = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^.0-9]+)")
_LIMIT: Final = 1 << 63
_LONGEST: Final = 1024


def parse_duration(text: str) -> int:
    """Nanoseconds, within 64 bits."""
    if len(text) > _LONGEST:
        raise LimitError(f"a duration may have {_LONGEST} characters, not {len(text)}")
    if not text:
        raise _malformed(text)
    return _parse(_in_hours(text) if any(unit in text for unit in _HOURS) else text)


def _in_hours(text: str) -> str:
    """The same with days, weeks and years as hours."""
    match = _LONG.fullmatch(text)
    if match is None:
        raise _malformed(text)
    return match[1] + "".join(
        [
            _hours(digits, _HOURS[unit]) if unit in _HOURS else digits + unit
            for digits, unit in _LONG_SEGMENT.findall(match[2])
        ]
    )


def _hours(digits: str, coefficient: int) -> str:
    try:
        hours = float(digits) * coefficient
    except ValueError:
        raise _malformed(digits) from None
    if hours == float("inf"):
        raise _malformed(digits)
    # Go writes it without an exponent, in the fewest digits that read back as the same number.
    return f"{Decimal(repr(hours)):f}".removesuffix(".0") + "h"


def _parse(text: str) -> int:
    negative = text[0] == "-"
    rest = text[1:] if text[0] in "+-" else text
    if rest == "0":
        return 0
    total, position = 0, 0
    while position < len(rest):
        match = _SEGMENT.match(rest, position)
        if match is None or not (match[1] or match[3]) or match[4] not in _UNITS:
            raise _malformed(text)
        # Go adds in unsigned 64 bits, and checks after each step.
        total = total + _segment(text, int(match[1] or 0), match[3] or "", _UNITS[match[4]]) & (1 << 64) - 1
        if total > _LIMIT:
            raise _malformed(text)
        position = match.end()
    if not rest or (total == _LIMIT and not negative):
        raise _malformed(text)
    return -total if negative else total


def _segment(text: str, whole: int, fraction: str, unit: int) -> int:
    if whole > _LIMIT // unit:
        raise _malformed(text)
    value = whole * unit
    digits, scale = 0, 1.0
    for digit in fraction:
        # Digits beyond 63 bits are left out.
        if digits > (_LIMIT - 1) // 10 or digits * 10 + int(digit) > _LIMIT:
            break
        digits = digits * 10 + int(digit)
        scale *= 10
    if digits:
        value += int(digits * (unit / scale))
    if value > _LIMIT:
        raise _malformed(text)
    return value


def _malformed(text: str) -> BuiltinError:
    return BuiltinError(f"not a duration: {text[:40]!r}")
