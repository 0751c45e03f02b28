"""`time.*` tells what OPA tells: Go's calendar, layouts, zones and durations."""

from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.builtins import UNDEFINED, Context
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

NOW = 1_700_000_000_123_456_789
INSTANTS: list[Any] = [
    0, 1, -1, NOW, -NOW, 10**18, 951_782_400 * 10**9, 1_709_164_799_999_999_999, 1_711_846_799_000_000_000,
    1_711_846_800_000_000_000, 1_729_990_800_000_000_000, -2_208_988_800 * 10**9, 2**63 - 1, -(2**63),
]  # fmt: skip
BAD_INSTANTS: list[Any] = [2**63, -(2**63) - 1, 1.5, "0", None, True, [], ["0"], [0, 5], [0, "UTC", 7], [None], {}]
ZONES = [
    "",
    "UTC",
    "Local",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "EST",
    "Etc/GMT+5",
]
BAD_ZONES = ["Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe", "europe/nowhere", "a\x00b"]
LAYOUTS = [
    "ANSIC", "UnixDate", "RubyDate", "RFC822", "RFC822Z", "RFC850", "RFC1123", "RFC1123Z", "RFC3339", "RFC3339Nano",
    "", "2006-01-02", "Jan _2 06 at 3:4:5PM (MST)", "January Monday Mon Month Monkey Janus", "__2 002 _2006 _2 02 2 1",
    "15h 03 3 04 05 pm PM", "-070000 -07:00:00 -0700 -07:00 -07", "Z070000 Z07:00:00 Z0700 Z07:00 Z07",
    "05.000 05,000000 05.999 05,999999999 05.0000000000001", "05.00 .0001 .99x .9 ,9", "größe 2006 €",
    "no elements at x",
]  # fmt: skip
PARSED: list[tuple[str, str]] = [
    ("2006-01-02", "2024-02-29"), ("2006-01-02", "2023-02-29"), ("2006-01-02", "2024-13-01"),
    ("2006-01-02", "2024-1-01"), ("2006-1-2", "2024-1-1"), ("2006-1-2", "2024-01-01"), ("2006-01-02", "2024-02-29x"),
    ("2006-01-02", "0000-02-29"), ("2006-01-02", "1677-09-21"), ("2006-01-02", "1677-09-22"),
    ("2006-01-02", "2262-04-11"), ("2006-01-02", "2262-04-12"), ("2006-002", "2024-366"), ("2006-002", "2023-366"),
    ("2006-002", "2023-060"), ("2006-002", "2024-060"), ("2006-002", "2024-061"), ("2006-002", "2024-000"),
    ("2006-002", "2024-61"), ("2006 __2", "2024  61"), ("2006-01-02 002", "2024-03-01 061"),
    ("2006-01-02 002", "2024-03-02 061"), ("2006-01 002", "2024-04 061"), ("06-01-02", "69-01-02"),
    ("06-01-02", "68-01-02"), ("06-01-02", "+1-01-02"), ("06-01-02", "+-01-02"), ("Jan 2 2006", "feb 3 2024"),
    ("Jan 2 2006", "February 3 2024"), ("January 2 2006", "MARCH 3 2024"), ("Mon Jan _2 2006", "Tue Feb  3 2024"),
    ("Monday Jan _2 2006", "tuesday Feb 13 2024"), ("Mon 2006", "Xyz 2024"), ("Jan  2   2006", "Feb 3 2024"),
    ("Jan 2 2006", "Feb   3 2024"), ("2006 x", "2024x"), ("2006 ", "2024"),
    ("2006-01-02 15:04:05", "2024-01-01 24:00:00"), ("2006-01-02 15:04:05", "2024-01-01 3:00:00"),
    ("2006-01-02 15:04:05", "2024-01-01 03:60:00"), ("2006-01-02 15:04:05", "2024-01-01 03:59:60"),
    ("2006-01-02 15:04:05", "2024-01-01 03:59:59.5"), ("2006-01-02 15:04:05", "2024-01-01 03:59:59,123456789012"),
    ("2006-01-02 15:04:05", "2024-01-01 03:59:59."), ("2006-01-02 15:04:05.000", "2024-01-01 03:59:59.12"),
    ("2006-01-02 15:04:05.000", "2024-01-01 03:59:59.123"), ("2006-01-02 15:04:05.000", "2024-01-01 03:59:59,123"),
    ("2006-01-02 15:04:05.000", "2024-01-01 03:59:59.+12"), ("2006-01-02 15:04:05.000", "2024-01-01 03:59:59.-12"),
    ("2006-01-02 15:04:05.999", "2024-01-01 03:59:59"), ("2006-01-02 15:04:05.999", "2024-01-01 03:59:59.123456"),
    ("2006 15:04 .00", "2024 03:04 .25"), ("2006 3:04PM", "2024 12:04AM"), ("2006 3:04PM", "2024 12:04PM"),
    ("2006 3:04PM", "2024 1:04PM"), ("2006 3:04PM", "2024 13:04PM"), ("2006 3:04PM", "2024 1:04pm"),
    ("2006 03:04pm", "2024 01:04pm"), ("2006 03:04pm", "2024 1:04pm"), ("2006 03:04pm", "2024 01:04xx"),
    ("2006 Z07:00", "2024 Z"), ("2006 Z07:00", "2024 +05:30"), ("2006 Z07:00", "2024 -24:60"),
    ("2006 Z07:00", "2024 -25:00"), ("2006 Z07:00", "2024 +0530"), ("2006 Z0700", "2024 +0530"),
    ("2006 Z07", "2024 +05"), ("2006 Z07:00:00", "2024 -01:02:03"), ("2006 Z070000", "2024 -010203"),
    ("2006 -0700", "2024 Z"), ("2006 -0700", "2024 x0530"), ("2006 -07:00", "2024 -05:3"), ("2006 -07", "2024 -5"),
    ("2006 -07:00:00", "2024 -01:02:61"), ("2006 -070000", "2024 +010203"), ("2006 MST", "2024 CET"),
    ("2006 MST", "2024 UTC"), ("2006 MST", "2024 GMT+3"), ("2006 MST", "2024 GMT-24"), ("2006 MST", "2024 +03"),
    ("2006 MST", "2024 +24"), ("2006 MST", "2024 ChST"), ("2006 MST", "2024 WITA"), ("2006 MST", "2024 ABCD"),
    ("2006 MST", "2024 ABCT"), ("2006 MST", "2024 ABCDT"), ("2006 MST", "2024 ABCDE"), ("2006 MST", "2024 ABCDEF"),
    ("2006 MST", "2024 ce"), ("2006 MST", "2024 GM"), ("2006 MST", "2024 MeSTx"),
    ("UnixDate", "Tue Nov 14 22:13:20 UTC 2023"), ("ANSIC", "Tue Nov 14 22:13:20 2023"),
    ("RFC850", "Tuesday, 14-Nov-23 22:13:20 UTC"), ("RFC1123Z", "Tue, 14 Nov 2023 22:13:20 +0100"),
    ("RFC822", "14 Nov 23 22:13 CET"), ("Kitchen", "3:04PM"), ("€2006", "€2024"), ("2006", "\uff12\uff10\uff12\uff14"),
    ("2006", ""), ("", ""), ("", "x"),
]  # fmt: skip
RFC3339 = [
    "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123456789123Z", "2023-11-14T22:13:20.1+01:00",
    "2023-11-14T22:13:20-23:59", "2023-11-14T22:13:20,5Z", "2023-11-14T2:13:20Z", "2023-11-14t22:13:20z",
    "2023-11-14T22:13:20", "2023-11-14T22:13:20+24:00", "2023-11-14T22:13:20+24:60", "2023-11-14T22:13:20+25:00",
    "2023-02-29T00:00:00Z", "2024-02-29T23:59:59Z", "2023-13-01T00:00:00Z", "2023-11-14T24:00:00Z",
    "2023-11-14T22:60:00Z", "2023-11-14T22:13:60Z", "2300-01-01T00:00:00Z", "1600-01-01T00:00:00Z",
    "2262-04-11T23:47:16.854775807Z", "2262-04-11T23:47:16.854775808Z", "1677-09-21T00:12:43.145224192Z",
    "1677-09-21T00:12:43.145224191Z", "2023-11-14 22:13:20Z", " 2023-11-14T22:13:20Z", "", "0000-01-01T00:00:00Z",
]  # fmt: skip
DURATIONS = [
    "0", "+0", "-0", "1h", "-1h30m", "+1.5h", "1ns", "1us", "1µs", "1μs", "1ms", ".5s", "1.s", "1.5", "s", ".s", "-",
    "+", "", "1h1", "1x", "1 h", "h1", "--1h", "2562047h47m16.854775807s", "2562047h47m16.854775808s",
    "-2562047h47m16.854775808s", "9223372036854775807ns", "9223372036854775808ns", "-9223372036854775808ns",
    "9223372036854775809ns", "0.9223372036854775807h", "0.92233720368547758071234h", "0.33333333333333333333h", "1d",
    "1w", "1y", "1d2h30m", "-1.5d", "1w1d1h", "1.2.3d", ".d", "1.d", "300y", "292y", "1d1", "1q2d", "1dx",
    "1d1ms1us1ns", "0.1d", "1e3d", "1D", "1mo", "1d1µs", "1d1μs", "10000000000000000000d",
]  # fmt: skip
ADDED: list[tuple[Any, Any, Any]] = [
    (0, 0, 0), (1, 1, 1), (0, 1, 0), (0, -13, 0), (-1, 0, -400), (0, 0, 100000), (300, 0, 0), (-400, 0, 0),
    (10000, 0, -3652425), (0, 12000, -365242), (1.0, 2.0, 3.0), (1.5, 0, 0), ("1", 0, 0),
]  # fmt: skip
SOME: list[Any] = [*INSTANTS, *([t, z] for t, z in product(INSTANTS, ZONES[3:5]))]
ALL: list[Any] = [*INSTANTS, *BAD_INSTANTS, 1.7e18, *([t, z] for t, z in product(INSTANTS, [*ZONES, *BAD_ZONES]))]

CASES: list[Call] = [
    *((f"time.{name}", [time]) for name in ("clock", "date", "weekday", "format") for time in ALL),
    *(("time.format", [[t, z, layout]]) for t, z, layout in product(INSTANTS, ZONES, LAYOUTS)),
    *(("time.add_date", [t, *by]) for t, by in product(SOME, ADDED)),
    *(
        ("time.add_date", [[t, zone], 0, 0, days])
        for zone, t, days in product(
            # Into the hours that a change of the clock skips or repeats.
            ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Europe/London"],
            [1_711_765_800_000_000_000 + minutes * 60_000_000_000 for minutes in range(-600, 600, 30)],
            [0, 1, 7, 210, 217, -21, 350],
        )
    ),
    *(("time.diff", [a, b]) for a, b in product([*INSTANTS, "x"], [*INSTANTS[:6], [NOW, "Asia/Kolkata"]])),
    *(("time.diff", [[a, "America/New_York"], [b, "Europe/Berlin"]]) for a, b in product(INSTANTS, INSTANTS)),
    *(("time.parse_ns", [layout, value]) for layout, value in PARSED),
    *(("time.parse_ns", [a, b]) for a, b in [(1, "2024"), ("2006", 2024)]),
    *(("time.parse_rfc3339_ns", [value]) for value in [*RFC3339, 5]),
    *(("time.parse_duration_ns", [value]) for value in [*DURATIONS, 5]),
]


def test_each_call_returns_what_opa_returns(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, CASES) == []


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_time_that_is_formatted_is_parsed_to_the_same_time(now_ns: int) -> None:
    text = call_builtin("time.format", [now_ns])
    assert call_builtin("time.parse_rfc3339_ns", [text]) == now_ns
    assert call_builtin("time.parse_ns", ["RFC3339Nano", text]) == now_ns


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_layout_and_no_text_breaks_the_parser(layout: str, value: str) -> None:
    assert isinstance(call_builtin("time.format", [[0, "UTC", layout]]), str)
    parsed = call_builtin("time.parse_ns", [layout, value])
    assert parsed is UNDEFINED or isinstance(parsed, int)


def test_now_is_the_same_for_the_whole_evaluation() -> None:
    context = Context(NOW, Random(1))
    assert [call_builtin("time.now_ns", [], context) for _ in range(3)] == [NOW] * 3


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("time.format", [[0, "UTC", "2" * 2000]]),
        ("time.parse_ns", ["2" * 2000, "1" * 2000]),
        ("time.parse_duration_ns", ["1h" * 2000]),
    ],
)
def test_an_operand_of_thousands_of_parts_fails_the_evaluation(name: str, operands: list[Any]) -> None:
    with pytest.raises(EvaluationError, match="may have 1024 characters"):
        call_builtin(name, operands)
