"""Nothing can interrupt a built-in, so what would take long is refused: the evaluation fails, and the policy denies."""

from random import Random
from typing import Any

import pytest

from sark_pdp.engine.wasm.builtins import Context, resolve
from sark_pdp.engine.wasm.terms import MAX_ELEMENTS, MAX_TEXT, dumps, loads
from sark_pdp.engine.wasm.values import LimitError, RegoSet

LONG = "a" * 500_000
NAMES = [f"{number:06d}" for number in range(20_000)]

LARGE: list[tuple[str, list[Any]]] = [
    ("glob.quote_meta", [LONG * 3]),
    ("indexof_n", [LONG, "a"]),
    ("indexof_n", [LONG, "a" * 250_000]),
    ("json.marshal_with_options", [[1] * 2_000, {"prefix": "x" * 1_000}]),
    ("json.marshal_with_options", [[[[[1] * 2_000]]], {"indent": " " * 1_000}]),
    ("json.patch", [RegoSet(range(1_000)), [{"op": "remove", "path": [number]} for number in range(1_000)]]),
    ("json.patch", [[0] * 10_000, [{"op": "copy", "from": "", "path": "/0"}] * 20]),
    ("net.cidr_contains_matches", [["10.0.0.0/8"] * 200, ["10.1.1.1"] * 200]),
    ("net.cidr_expand", ["10.0.0.0/17"]),
    ("net.cidr_expand", ["::/115"]),
    ("numbers.range_step", [0, 10**30, 1]),
    ("object.subset", [NAMES, NAMES]),
    ("regex.find_n", ["a", LONG, -1]),
    ("regex.replace", [LONG, "a", "b"]),
    ("regex.split", ["a", LONG]),
    ("regex.template_match", ["{a}" * 5_000, "a", "{", "}"]),
    ("sprintf", ["%d" * 5_000, [1]]),
    ("sprintf", ["%d", [1] * 5_000]),
    ("sprintf", ["%v", [NAMES]]),
    ("sprintf", ["%q", ["\x00" * 200_000]]),
    ("sprintf", ["%999999d%999999d", [1, 1]]),
    ("strings.any_prefix_match", [["b" * 100] * 1_000, ["a" * 100] * 1_000]),
    ("strings.any_suffix_match", [["b" * 100] * 1_000, ["a" * 100] * 1_000]),
    ("strings.split_n", [LONG, "", -1]),
    ("strings.split_n", [LONG, "a", -1]),
    ("time.format", [[1, "UTC", "2006" * 1_000]]),
    ("time.parse_duration_ns", ["1h" * 1_000]),
    ("time.parse_ns", ["2006" * 1_000, "x"]),
    ("units.parse", ["1" * 2_000]),
    ("units.parse_bytes", ["1" * 2_000]),
    ("urlquery.decode", ["%61" * 100_000]),
    ("urlquery.decode_object", ["a=b&" * 30_000]),
]


@pytest.mark.parametrize(("name", "operands"), LARGE, ids=[f"{at} {name}" for at, (name, _) in enumerate(LARGE)])
def test_a_call_that_would_take_long_is_refused(name: str, operands: list[Any]) -> None:
    builtin = resolve([name])[name]
    with pytest.raises(LimitError):
        builtin(Context(0, Random(1)), *[loads(dumps(operand)) for operand in operands])


def test_operands_are_bounded_whatever_they_are_for() -> None:
    for text in (b'"' + b"x" * MAX_TEXT + b'"', b"{" + b"1," * MAX_ELEMENTS + b"1}" + b" " * MAX_TEXT):
        with pytest.raises(LimitError):
            loads(text)


def test_a_set_of_more_elements_than_can_be_put_into_order_is_refused() -> None:
    text = b"{" + b",".join(b"%d" % number for number in range(MAX_ELEMENTS + 1)) + b"}"
    assert len(text) < MAX_TEXT
    with pytest.raises(LimitError):
        loads(text)
