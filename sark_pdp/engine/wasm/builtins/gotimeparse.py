"""Go's `time.Parse`: reads a time by a layout, with the leniencies that Go has."""

import re
from datetime import UTC
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gocalendar import DAY, SECOND, days_before, days_in, instant
from sark_pdp.engine.wasm.builtins.golayout import MONTHS, WEEKDAYS, Layout

_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?"
    r"(?:Z|([+-])(2[0-3]|[01][0-9]):([0-5][0-9]))"
)
_ZONE_NAME: Final = re.compile(r"ChST|MeST|GMT|[A-Z]{4}T(?![A-Z])|[A-Z]{3}T(?![A-Z])|WITA(?![A-Z])|[A-Z]{3}(?![A-Z])")
_SIGNED_HOURS: Final = re.compile(r"[+-]([0-9]+)")
_FRACTION: Final = re.compile(r"[.,][0-9]+")
_INTEGER: Final = re.compile(r"([+-]?)([0-9]*)")
_OFFSETS: Final = {
    "07:00": re.compile(r"(.)([0-9]{2}):([0-9]{2})()"),
    "07": re.compile(r"(.)([0-9]{2})()()"),
    "07:00:00": re.compile(r"(.)([0-9]{2}):([0-9]{2}):([0-9]{2})"),
    "070000": re.compile(r"(.)([0-9]{2})([0-9]{2})([0-9]{2})"),
    "0700": re.compile(r"(.)([0-9]{2})([0-9]{2})()"),
}


def parse_rfc3339(value: str) -> int | None:
    """The same for most times of that format, in a tenth of the time; None for one that `parse_time` must look at."""
    match = _RFC3339.fullmatch(value)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[part]) for part in range(1, 7))
    offset = 0
    if match[8]:
        offset = (int(match[9]) * 3600 + int(match[10]) * 60) * (-1 if match[8] == "-" else 1)
    if not (1 <= month <= 12 and 1 <= day <= days_in(year, month) and hour < 24 and minute < 60 and second < 60):
        return None
    seconds = (days_before(year, month) + day - 1) * DAY + hour * 3600 + minute * 60 + second - offset
    return seconds * SECOND + (int(match[7][1:10].ljust(9, "0")) if match[7] else 0)


def parse_time(layout: Layout, value: str) -> int:
    """Nanoseconds since the epoch, not yet known to fit 64 bits; a zone that is only a name counts as UTC."""
    return _Reader(value).read(layout)


class _Reader:
    """The text that is left, and what has been read so far."""

    __slots__ = (
        "_day", "_hour", "_minute", "_month", "_nanosecond", "_offset", "_pm", "_rest", "_second", "_year", "_year_day",
    )  # fmt: skip

    def __init__(self, value: str) -> None:
        self._rest = value
        self._year = self._hour = self._minute = self._second = self._nanosecond = self._offset = 0
        self._month: int | None = None
        self._day: int | None = None
        self._year_day: int | None = None
        self._pm: bool | None = None

    def read(self, layout: Layout) -> int:
        for at, (literal, element) in enumerate(layout):
            self._skip(literal)
            if element:
                following = layout[at + 1][1]
                self._element(element, following)
        if self._rest:
            raise _malformed(f"the text goes on with {self._rest[:40]!r}")
        return self._instant()

    def _instant(self) -> int:
        if self._pm and self._hour < 12:
            self._hour += 12
        elif self._pm is False and self._hour == 12:
            self._hour = 0
        month, day = self._date()
        if not 1 <= day <= days_in(self._year, month):
            raise _malformed("there is no such day")
        days = days_before(self._year, month) + day - 1
        seconds = self._hour * 3600 + self._minute * 60 + self._second - self._offset
        return instant(days, seconds, self._nanosecond, UTC)

    def _date(self) -> tuple[int, int]:
        if self._year_day is None:
            return (1 if self._month is None else self._month), (1 if self._day is None else self._day)
        start = days_before(self._year, 1)
        if not 1 <= self._year_day <= days_before(self._year + 1, 1) - start:
            raise _malformed("there is no such day of the year")
        month = max(m for m in range(1, 13) if days_before(self._year, m) - start < self._year_day)
        day = self._year_day - (days_before(self._year, month) - start)
        if self._month not in (None, month) or self._day not in (None, day):
            raise _malformed("the day of the year is another one than the date")
        return month, day

    def _skip(self, literal: str) -> None:
        """Steps over text of the layout; runs of spaces are alike."""
        at = 0
        while at < len(literal):
            if literal[at] == " ":
                if self._rest and self._rest[0] != " ":
                    raise _malformed("a space is missing")
                at += len(literal[at:]) - len(literal[at:].lstrip(" "))
                self._rest = self._rest.lstrip(" ")
                continue
            if not self._rest.startswith(literal[at]):
                raise _malformed(f"{literal[at:]!r} is missing")
            self._rest = self._rest[1:]
            at += 1

    def _element(self, element: str, following: str) -> None:  # noqa: C901
        # One case per element of Go's table.
        match element:
            case "2006" | "06":
                self._read_year(len(element))
            case "Jan" | "January":
                self._month = self._name([month[: len(element)] if element == "Jan" else month for month in MONTHS]) + 1
            case "1" | "01":
                self._month = self._number(element, 1, 12)
            case "Mon" | "Monday":
                self._name([day[:3] if element == "Mon" else day for day in WEEKDAYS])
            case "2" | "_2" | "02":
                self._unpad(element)
                self._day = self._number(element)
            case "__2" | "002":
                self._unpad(element)
                self._read_year_day(exact=element == "002")
            case "15":
                self._hour = self._number("", 0, 23)
            case "3" | "03":
                self._hour = self._number(element, 0, 12)
            case "4" | "04":
                self._minute = self._number(element, 0, 59)
            case "5" | "05":
                self._second = self._number(element, 0, 59)
                # A fraction may follow although the layout has none.
                if following[:1] not in (".", ",") and (match := _FRACTION.match(self._rest)):
                    self._read_fraction(match[0])
            case "PM" | "pm":
                half = self._take(2)
                if half not in (element, "AM" if element == "PM" else "am"):
                    raise _malformed("AM or PM is missing")
                self._pm = half == element
            case "MST":
                self._read_zone_name()
            case _ if element[0] in "Z-":
                self._read_offset(element)
            case _ if element[1] == "0":
                if len(self._rest) < len(element):
                    raise _malformed("the fraction of a second is too short")
                self._read_fraction(self._rest[: len(element)])
            case _:
                if match := _FRACTION.match(self._rest):
                    self._read_fraction(match[0])

    def _take(self, count: int) -> str:
        if len(self._rest) < count:
            raise _malformed("the text ends too early")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _name(self, names: list[str]) -> int:
        for at, name in enumerate(names):
            found = self._rest[: len(name)]
            if found.isascii() and found.lower() == name.lower():
                self._rest = self._rest[len(name) :]
                return at
        raise _malformed("the name of a month or weekday is missing")

    def _number(self, element: str, least: int = 0, most: int = 99) -> int:
        """One or two digits; exactly two where the element begins with a zero."""
        count = 2 if _are_digits(self._rest[:2], 2) else 1
        if not _are_digits(self._rest[:count], count) or (element[:1] == "0" and count == 1):
            raise _malformed("a number is missing")
        number = int(self._take(count))
        if not least <= number <= most:
            raise _malformed(f"{number} is out of range")
        return number

    def _unpad(self, element: str) -> None:
        for _ in range(element.count("_")):
            self._rest = self._rest.removeprefix(" ")

    def _read_year(self, count: int) -> None:
        text = self._take(count)
        if count == 4 and not _are_digits(text[:1], 1):
            raise _malformed("the year is missing")
        year = _integer(text)
        self._year = year if count == 4 else year + (1900 if year >= 69 else 2000)

    def _read_year_day(self, *, exact: bool) -> None:
        count = next((count for count in (3, 2, 1) if _are_digits(self._rest[:count], count)), 0)
        if not count or (exact and count != 3):
            raise _malformed("the day of the year is missing")
        self._year_day = int(self._take(count))

    def _read_fraction(self, text: str) -> None:
        """A point or comma and digits, of which nine count."""
        self._rest = self._rest[len(text) :]
        if text[0] not in ".," or (number := _integer(text[1:10])) < 0:
            raise _malformed("the fraction of a second is missing")
        self._nanosecond = number * 10 ** (10 - min(len(text), 10))

    def _read_offset(self, element: str) -> None:
        if element[0] == "Z" and self._rest.startswith("Z"):
            self._rest = self._rest[1:]
            self._offset = 0
            return
        match = _OFFSETS[element[1:]].match(self._rest)
        if match is None or match[1] not in "+-":
            raise _malformed("the offset of the zone is missing")
        hours, minutes, seconds = (int(match[part] or 0) for part in (2, 3, 4))
        if hours > 24 or minutes > 60 or seconds > 60:
            raise _malformed("the offset of the zone is out of range")
        self._rest = self._rest[match.end() :]
        self._offset = (hours * 3600 + minutes * 60 + seconds) * (-1 if match[1] == "-" else 1)

    def _read_zone_name(self) -> None:
        """Steps over an abbreviation; Go knows no offset for it either, but for UTC."""
        if self._rest.startswith("UTC"):
            self._rest, self._offset = self._rest[3:], 0
            return
        match = _ZONE_NAME.match(self._rest)
        at = match.end() if match else 0
        if match is None or match[0] == "GMT":
            hours = _SIGNED_HOURS.match(self._rest, at)
            if hours and int(hours[1][-20:]) <= 23 and len(hours[1].lstrip("0")) <= 2:
                at = hours.end()
        if not at or len(self._rest) < 3:
            raise _malformed("the name of a zone is missing")
        self._rest = self._rest[at:]


def _are_digits(text: str, count: int) -> bool:
    return len(text) == count and text.isascii() and text.isdigit()


def _integer(text: str) -> int:
    """Go's own `atoi`: a sign alone is zero."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise _malformed("a number is missing")
    return int(match[2] or 0) * (-1 if match[1] == "-" else 1)


def _malformed(problem: str) -> BuiltinError:
    return BuiltinError(f"the time does not follow the layout: {problem}")
