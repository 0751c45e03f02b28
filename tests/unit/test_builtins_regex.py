"""`regex.*` on the host finds what Go's regular expressions find."""

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

PATTERNS: list[Any] = [
    "a", "a*", "", "a|b*", "(a)(b)?", "^a", "a$", "^", "$", "\\b", "(?i)A", "(?P<x>a)(?P<y>.)", "(?<x>b)",
    "[[:alpha:]]+", "\\d+", "é", "\\pL", ".", "(?s).", "\\x{1F600}", "x{2,3}", "(", "a**", "\\C", "[a", "(?=a)", "\\1",
    "x{1001}", "\\Qa.b\\E", "a.b", "(|a)+", "\\z", "\\A", "(?m)^.", "\\B", 5,
]  # fmt: skip
TEXTS: list[Any] = ["", "a", "aab", "baaac", "abab", "xxxx", "12 a 345", "éaé€😀", "a.b A.B", "ab\nab", "foo bar", 5]
VALUES: list[Any] = [
    "-",
    "",
    "$1",
    "${1}x",
    "$1x",
    "$x",
    "${x}y",
    "$$",
    "$",
    "$0",
    "$9",
    "$01",
    "${",
    "${}",
    "${1",
    "$é",
    "a$",
    "$-",
    5,
]
TEMPLATES: list[tuple[Any, Any, Any, Any]] = [
    ("urn:foo:{.*}", "urn:foo:bar:baz", "{", "}"), ("urn:foo:{.*}", "foo:bar", "{", "}"),
    ("a.b<[0-9]+>c", "a.b12c", "<", ">"), ("a.b<[0-9]+>c", "axb12c", "<", ">"), ("{a{2}}", "aa", "{", "}"),
    ("{a", "a", "{", "}"), ("a}", "a", "{", "}"), ("}{", "a", "{", "}"), ("{(}", "a", "{", "}"),
    ("{a}{b}", "ab", "{", "}"), ("", "", "{", "}"), ("a", "a", "", "}"), ("a", "a", "{{", "}"), ("a", "a", "é", "}"),
    ("%a%", "a", "%", "%"), ("[^{a+}$]", "[^aa$]", "{", "}"), (1, "a", "{", "}"),
]  # fmt: skip

CASES: list[Call] = [
    *(
        ("regex.find_n", [pattern, text, count])
        for pattern, text, count in product(PATTERNS, TEXTS, [-1, 0, 1, 2, 1.0])
    ),
    *(("regex.split", [pattern, text]) for pattern, text in product(PATTERNS, TEXTS)),
    *(("regex.replace", [text, pattern, value]) for text, pattern, value in product(TEXTS, PATTERNS, VALUES)),
    *(("regex.template_match", list(case)) for case in TEMPLATES),
]


def test_each_call_returns_what_opa_returns(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, CASES) == []


@given(st.text("ab", max_size=12), st.sampled_from(["a", "a+", "ab", "a|b", "b+a"]))
def test_simple_expressions_find_what_those_of_python_find(text: str, pattern: str) -> None:
    assert call_builtin("regex.find_n", [pattern, text, -1]) == re.findall(pattern, text)
    assert call_builtin("regex.split", [pattern, text]) == re.split(pattern, text)
    assert call_builtin("regex.replace", [text, pattern, "<$0>"]) == re.sub(pattern, r"<\g<0>>", text)


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("regex.find_n", ["a", "a" * 200_000, -1]),
        ("regex.find_n", ["a(?:.*b)?", "a" * 100_000, -1]),
        ("regex.replace", ["a" * 5_000, "a", "x" * 5_000]),
        ("regex.split", ["\\pL{1,500}", "a"]),
    ],
)
def test_a_call_that_would_run_long_or_grow_large_fails_the_evaluation(name: str, operands: list[Any]) -> None:
    with pytest.raises(EvaluationError):
        call_builtin(name, operands)
