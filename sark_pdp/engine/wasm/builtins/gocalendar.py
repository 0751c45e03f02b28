"""Days, zones and instants, as Go's package time counts them: instants are nanoseconds since the epoch, of any size."""

from datetime import UTC, datetime, tzinfo
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError

SECOND: Final = 1_000_000_000
"""Nanoseconds."""

DAY: Final = 86_400
"""Seconds."""


def days_before(year: int, month: int) -> int:
    """Days from 1 January 1970 to the first of the month, in the Gregorian calendar without end."""
    # Years begin in March here, so that the day which a leap year adds is the last one.
    shifted = month - 3
    year, shifted = (year - 1, shifted + 12) if shifted < 0 else (year, shifted)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * shifted + 2) // 5 - 719_468


def days_in(year: int, month: int) -> int:
    """How many days the month has."""
    return days_before(year + month // 12, month % 12 + 1) - days_before(year, month)


def in_zone(now_ns: int, zone: tzinfo) -> datetime:
    """The wall clock at an instant, to the second."""
    return datetime.fromtimestamp(now_ns // SECOND, zone)


def offset(seconds: int, zone: tzinfo) -> int:
    """What a zone adds to UTC at an instant; both in seconds."""
    if zone is UTC:
        return 0
    try:
        delta = datetime.fromtimestamp(seconds, zone).utcoffset()
    except (OverflowError, ValueError, OSError):
        raise out_of_range() from None
    return 0 if delta is None else delta.days * DAY + delta.seconds


def instant(days: int, seconds: int, nanoseconds: int, zone: tzinfo) -> int:
    """The nanoseconds of a wall clock time; one that a zone skips or repeats is read as Go does."""
    local = days * DAY + seconds
    first = offset(local, zone)
    if first:
        local -= offset(local - first, zone)
    return local * SECOND + nanoseconds


def checked(now_ns: int) -> int:
    """The instant, which must fit 64 bits: the years 1677 to 2262."""
    if not -(1 << 63) <= now_ns < 1 << 63:
        raise out_of_range()
    return now_ns


def out_of_range() -> BuiltinError:
    """For an instant that 64 bits of nanoseconds cannot hold."""
    return BuiltinError("the time is outside of the years 1677 to 2262")
