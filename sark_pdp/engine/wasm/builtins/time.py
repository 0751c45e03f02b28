"""`time.*`. Zones come from the machine's IANA database or the tzdata package; `Local` is UTC, on every machine."""

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, integer, string
from sark_pdp.engine.wasm.builtins.gocalendar import (
    DAY,
    SECOND,
    checked,
    days_before,
    days_in,
    in_zone,
    instant,
)
from sark_pdp.engine.wasm.builtins.goduration import parse_duration
from sark_pdp.engine.wasm.builtins.golayout import NAMED, WEEKDAYS, Layout, format_time, parse_layout
from sark_pdp.engine.wasm.builtins.gotimeparse import parse_rfc3339, parse_time
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

if TYPE_CHECKING:
    from collections.abc import Callable

_UTC_NAMES: Final = frozenset({"", "UTC", "Local"})
_REMEMBERED: Final = 64
_LONGEST_LAYOUT: Final = 1024
"""Characters."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    calls = _Time()
    return {
        "time.now_ns": _now_ns,
        "time.clock": calls.clock,
        "time.date": calls.date,
        "time.weekday": calls.weekday,
        "time.format": calls.format,
        "time.add_date": calls.add_date,
        "time.diff": calls.diff,
        "time.parse_ns": calls.parse_ns,
        "time.parse_rfc3339_ns": calls.parse_rfc3339_ns,
        "time.parse_duration_ns": _parse_duration_ns,
    }


def _now_ns(context: Context) -> int:
    return context.now_ns


def _parse_duration_ns(_: Context, text: Json) -> int:
    return parse_duration(string(text))


class _Time:
    """Remembers zones and layouts."""

    def __init__(self) -> None:
        self._zone: Callable[[str], tzinfo] = lru_cache(_REMEMBERED)(_load_zone)
        self._layout: Callable[[str], Layout] = lru_cache(_REMEMBERED)(_load_layout)
        self._rfc3339 = parse_layout(NAMED["RFC3339"])

    def clock(self, _: Context, time: Json) -> list[int]:
        if type(time) is int:
            seconds = checked(time) // SECOND % DAY
            return [seconds // 3600, seconds // 60 % 60, seconds % 60]
        now_ns, zone = self._instant(time)
        wall = in_zone(now_ns, zone)
        return [wall.hour, wall.minute, wall.second]

    def date(self, _: Context, time: Json) -> list[int]:
        now_ns, zone = self._instant(time)
        wall = in_zone(now_ns, zone)
        return [wall.year, wall.month, wall.day]

    def weekday(self, _: Context, time: Json) -> str:
        now_ns, zone = self._instant(time)
        return WEEKDAYS[in_zone(now_ns, zone).weekday()]

    def format(self, _: Context, time: Json) -> str:
        now_ns, zone = self._instant(time)
        text = time[2] if type(time) is list and len(time) > 2 else ""
        return format_time(self._layout(text or "RFC3339Nano"), in_zone(now_ns, zone), now_ns % SECOND)

    def add_date(self, _: Context, time: Json, years: Json, months: Json, days: Json) -> int:
        now_ns, zone = self._instant(time)
        wall = in_zone(now_ns, zone)
        shifted = wall.month - 1 + integer(months)
        first = days_before(wall.year + integer(years) + shifted // 12, shifted % 12 + 1)
        seconds = wall.hour * 3600 + wall.minute * 60 + wall.second
        return checked(instant(first + wall.day - 1 + integer(days), seconds, now_ns % SECOND, zone))

    def diff(self, _: Context, left: Json, right: Json) -> list[int]:
        first_ns, zone = self._instant(left)
        second_ns, _second_zone = self._instant(right)
        start, end = (in_zone(now_ns, zone) for now_ns in sorted((first_ns, second_ns)))
        # From the smallest unit up, each borrows from the next where it falls below zero.
        second, minute, hour = end.second - start.second, end.minute - start.minute, end.hour - start.hour
        day, month, year = end.day - start.day, end.month - start.month, end.year - start.year
        if second < 0:
            second, minute = second + 60, minute - 1
        if minute < 0:
            minute, hour = minute + 60, hour - 1
        if hour < 0:
            hour, day = hour + 24, day - 1
        if day < 0:
            day, month = day + days_in(start.year, start.month), month - 1
        if month < 0:
            month, year = month + 12, year - 1
        return [year, month, day, hour, minute, second]

    def parse_ns(self, _: Context, layout: Json, value: Json) -> int:
        return checked(parse_time(self._layout(string(layout)), string(value)))

    def parse_rfc3339_ns(self, _: Context, value: Json) -> int:
        value = string(value)
        now_ns = parse_rfc3339(value)
        return checked(parse_time(self._rfc3339, value) if now_ns is None else now_ns)

    def _instant(self, time: Json) -> tuple[int, tzinfo]:
        """Of nanoseconds, or of `[nanoseconds, zone, layout]`."""
        if type(time) is not list:
            return integer(time), UTC
        if not time:
            raise BuiltinError("a time must be nanoseconds, or an array of nanoseconds and a zone")
        for text in time[1:3]:
            string(text)
        return integer(time[0]), self._zone(time[1]) if len(time) > 1 else UTC


def _load_zone(name: str) -> tzinfo:
    if name in _UTC_NAMES:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BuiltinError(f"there is no time zone {name[:80]!r}") from None


def _load_layout(text: str) -> Layout:
    if len(text) > _LONGEST_LAYOUT:
        raise LimitError(f"a layout may have {_LONGEST_LAYOUT} characters, not {len(text)}")
    return parse_layout(NAMED.get(text, text))
