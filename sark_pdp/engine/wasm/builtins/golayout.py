"""Go's time layouts, such as `2006-01-02`: their elements, and `Time.Format`."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

NAMED: Final = {
    "ANSIC": "Mon Jan _2 15:04:05 2006",
    "UnixDate": "Mon Jan _2 15:04:05 MST 2006",
    "RubyDate": "Mon Jan 02 15:04:05 -0700 2006",
    "RFC822": "02 Jan 06 15:04 MST",
    "RFC822Z": "02 Jan 06 15:04 -0700",
    "RFC850": "Monday, 02-Jan-06 15:04:05 MST",
    "RFC1123": "Mon, 02 Jan 2006 15:04:05 MST",
    "RFC1123Z": "Mon, 02 Jan 2006 15:04:05 -0700",
    "RFC3339": "2006-01-02T15:04:05Z07:00",
    "RFC3339Nano": "2006-01-02T15:04:05.999999999Z07:00",
}
"""The layouts that OPA lets policies name."""

MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Go tries longer elements first; a name that goes on in lower case is text.
_ELEMENT: Final = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|0[1-6]|002|15|1|2006|2|_2(?!006)|__2|3|4|5|PM|pm"
    r"|-070000|-07:00:00|-0700|-07:00|-07|Z070000|Z07:00:00|Z0700|Z07:00|Z07|[.,]0+(?![0-9])|[.,]9+(?![0-9])"
)

Layout: TypeAlias = tuple[tuple[str, str], ...]
"""Text, and the element after it; the last element is empty."""


def parse_layout(text: str) -> Layout:
    """The elements of a layout."""
    pairs: list[tuple[str, str]] = []
    position = 0
    for match in _ELEMENT.finditer(text):
        pairs.append((text[position : match.start()], match[0]))
        position = match.end()
    pairs.append((text[position:], ""))
    return tuple(pairs)


def format_time(layout: Layout, clock: datetime, nanosecond: int) -> str:
    """`Time.Format` of a wall clock in its zone."""
    return "".join([literal + _element(element, clock, nanosecond) for literal, element in layout])


def _element(element: str, clock: datetime, nanosecond: int) -> str:
    if element in _WRITTEN:
        return _WRITTEN[element](clock)
    if not element:
        return ""
    return _zone(element, clock) if element[0] in "Z-" else _fraction(element, nanosecond)


_WRITTEN: Final[dict[str, Callable[[datetime], str]]] = {
    "2006": lambda clock: f"{clock.year:04d}",
    "06": lambda clock: f"{clock.year % 100:02d}",
    "01": lambda clock: f"{clock.month:02d}",
    "1": lambda clock: str(clock.month),
    "Jan": lambda clock: MONTHS[clock.month - 1][:3],
    "January": lambda clock: MONTHS[clock.month - 1],
    "02": lambda clock: f"{clock.day:02d}",
    "_2": lambda clock: f"{clock.day:2d}",
    "2": lambda clock: str(clock.day),
    "__2": lambda clock: f"{clock.timetuple().tm_yday:3d}",
    "002": lambda clock: f"{clock.timetuple().tm_yday:03d}",
    "Mon": lambda clock: WEEKDAYS[clock.weekday()][:3],
    "Monday": lambda clock: WEEKDAYS[clock.weekday()],
    "15": lambda clock: f"{clock.hour:02d}",
    "03": lambda clock: f"{clock.hour % 12 or 12:02d}",
    "3": lambda clock: str(clock.hour % 12 or 12),
    "04": lambda clock: f"{clock.minute:02d}",
    "4": lambda clock: str(clock.minute),
    "05": lambda clock: f"{clock.second:02d}",
    "5": lambda clock: str(clock.second),
    "PM": lambda clock: "PM" if clock.hour >= 12 else "AM",
    "pm": lambda clock: "pm" if clock.hour >= 12 else "am",
    "MST": lambda clock: clock.tzname() or "",
}
"""All elements but offsets and fractions."""


def _zone(element: str, clock: datetime) -> str:
    delta = clock.utcoffset()
    seconds = 0 if delta is None else delta.days * 86_400 + delta.seconds
    if element[0] == "Z" and seconds == 0:
        return "Z"
    # Less than a minute west of Greenwich is written with a plus sign.
    sign = "-" if seconds <= -60 else "+"
    minutes, seconds = divmod(abs(seconds), 60)
    parts = [f"{minutes // 60:02d}", f"{minutes % 60:02d}", f"{seconds:02d}"]
    # "07", "0700" and "07:00" are all a hour and a number of further pairs of digits.
    digits = element[1:].replace(":", "")
    return sign + (":" if ":" in element else "").join(parts[: len(digits) // 2])


def _fraction(element: str, nanosecond: int) -> str:
    digits = f"{nanosecond:09d}"[: len(element) - 1].ljust(len(element) - 1, "0")
    if element[1] == "0":
        return element[0] + digits
    digits = digits[:9].rstrip("0")
    return element[0] + digits if digits else ""
