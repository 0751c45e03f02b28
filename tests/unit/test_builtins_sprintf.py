"""`sprintf` writes what OPA writes, which is what Go's package fmt does."""

from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.builtins import Context, resolve
from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

BIG = 123456789012345678901234567890
VALUES: list[Any] = [
    "hi", "", 'q"\\\n\x00', "größe €😀", "a`b", 0, 7, -42, 65, 8364, 128512, 55296, 1114112,
    2**63 - 1, -(2**63), 2**63, -BIG,
    0.0, -0.0, 1.5, -2.25, 1e20, 1e21, 1234567.5, 100000.0, 0.0001, 0.00001, 3.0, 5e-324, 1.7976931348623157e308, 0.1,
    True, [1, "a", None],
]  # fmt: skip
FLAGS = ["", "+", "-", " #", "#", "0", "+0", "-0"]
SIZES = ["", "12", ".0", "9.3"]
VERBS = "vdsqxXtbocOUeEfFgGTwz%é"

TEMPLATES: list[tuple[Any, Any]] = [
    ("plain", []),
    ("", []),
    ("", [1]),
    ("%s and %s", ["one"]),
    ("%s", ["one", "two", 3, 4.5, None, BIG]),
    ("%d%%", [5]),
    ("%", []),
    ("%", [1]),
    ("%!", [1]),
    ("%!", []),
    ("100%", ["x"]),
    ("%-", ["x"]),
    ("%5", ["x"]),
    ("%.", ["x"]),
    ("%.5", ["x"]),
    ("%z %d", [1, 2]),
    ("%[2]d %[1]d", [1, 2]),
    ("%[2]d", [1, 2]),
    ("%[3]d", [1, 2]),
    ("%[0]d", [1]),
    ("%[x]d %d", [1, 2]),
    ("%[1", [1]),
    ("%[1d", [1]),
    ("%[]d", [1]),
    ("%[1]5d", [1]),
    ("%[1].2f", [1.5]),
    ("%[2]*[1]d", [1, 5]),
    ("%[3]*.[2]*[1]f", [12.0, 2, 6]),
    ("%[1]*[2]d|%d", [5, 6, 7]),
    ("%6.[2]*[1]f", [12.5, 3]),
    ("%.[2]d", [1, 2]),
    ("%*d", [5, 42]),
    ("%*d", [-5, 42]),
    ("%-*d|", [5, 42]),
    ("%0*d", [-5, 42]),
    ("%*d", ["a", 42]),
    ("%*d", [5.5, 42]),
    ("%*d", [1000001, 42]),
    ("%*d", [5]),
    ("%*d", []),
    ("%.*f", [2, 3.14159]),
    ("%.*f", [-2, 3.14159]),
    ("%.*f", ["x", 3.14159]),
    ("%*.*f", [8, 2, 3.14159]),
    ("%.*d", [BIG, 1]),
    ("%99999999999d", [1]),
    ("%.99999999999d", [1]),
    ("%1000001d", ["x"]),
    ("%s", [{"b": RegoSet([2, 1]), "a": "é\u200b\x07"}]),
    ("%v %v", [[[1.5, -3, 10**19]], RegoSet([RegoSet(), {}])]),
    ("%v %d %q", [None, True, {"b": 1, "a": [True, "x\ny"]}]),
    ("%v %v %v %v", [[], {}, RegoSet(), RegoSet([3, "a", 1])]),
    ("%v", [RegoObject([(1, 2), ([1], {"a": 2})])]),
    ("%s", "not an array"),
    (5, [1]),
]

CASES: list[Call] = [
    *(("sprintf", [template, arguments]) for template, arguments in TEMPLATES),
    *(
        ("sprintf", [f"<%{flags}{size}{verb}>", [value]])
        for flags, size, verb in product(FLAGS, SIZES, VERBS)
        for value in VALUES
        if not (isinstance(value, int) and abs(value) >= 2**63 and verb == "w")
    ),
]


def test_every_verb_with_every_flag_is_written_as_opa_writes_it(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, CASES) == []


@given(st.lists(st.text() | st.integers(-(2**63), 2**63 - 1)))
def test_strings_and_integers_are_written_as_they_are(arguments: list[str | int]) -> None:
    sprintf = resolve(["sprintf"])["sprintf"]
    template = "|".join("%s" if isinstance(argument, str) else "%d" for argument in arguments)
    assert sprintf(Context(0, Random(1)), template, arguments) == "|".join(map(str, arguments))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 30), st.sampled_from("dxX"))
def test_padded_integers_are_those_of_python(number: int, width: int, verb: str) -> None:
    assert call_builtin("sprintf", [f"%0{width}{verb}", [number]]) == f"%0{width}{verb}" % number


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 12), st.sampled_from("eEf"))
def test_floats_of_a_precision_are_those_of_python(number: float, precision: int, verb: str) -> None:
    assert call_builtin("sprintf", [f"%.{precision}{verb}", [number]]) == f"%.{precision}{verb}" % number


@pytest.mark.parametrize("template", ["%1000000d" * 2, "%.1000000d%9d%*d"])
def test_a_format_that_asks_for_megabytes_of_padding_is_refused(template: str) -> None:
    with pytest.raises(EvaluationError, match="characters"):
        call_builtin("sprintf", [template, [1, 2, 1_000_000, 4]])
