"""`yaml.*` reads and writes what OPA reads and writes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

SCALARS = [
    "", "~", "null", "Null", "NULL", "nULL", "true", "True", "TRUE", "tRUE", "false", "yes", "no", "on", "off", "y",
    "N", "0", "1", "-1", "+1", "01", "08", "0777", "0o777", "0O7", "-0o7", "0x1F", "0X1f", "-0x1", "0b101", "-0b11",
    "0B1", "0xg", "1_000", "1__0", "_1", "0x_1", "1.0", "1.", ".5", "-.5", "+.5", ".", "1.5e3", "1e3", "1e", "1E+3",
    ".5e1", "._5", ".1_0", "1_0.5", ".inf", "-.inf", "+.Inf", ".nan", "1e999", "-1e999", ".1e999",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "-9223372036854775809", "+9223372036854775808", "1:30", "12:30:45.5", "2001-12-14",
    "2001-1-2", "2001-12-14T21:59:43Z", "2001-12-14 21:59:43", "2001-99-99", "<<", "=", "!!str 5", "!!int 5",
    "!!int '5'", "!!int x", "!!float 5", "!!float x", "!!bool true", "!!bool 5", "!!null ''", "!!null x",
    "!!binary aGk=", "!!binary /w==", "!!binary x", "!foo 5", "!foo [1]", "! 5", "! '5'", "!!map {a: 1}", "!!set {a}",
    "'5'", '"5"', '"a\\tb\\x41\\u00e9\\U0001F600"', '"\\q"', "'it''s'", "'x", "[1, [2], {a: b}]", "[1,", "{a: 1, b}",
    "{a", "a: b: c", "a:b", "a: b", "- 1\n- 2", "- - 1\n  - 2", "|\n a\n b\n", "|-\n a\n", "|+\n a\n\n",
    ">\n a\n b\n\n c\n", "a #c", "a#c", "#c", "@a", "`a", "%a", "&a 1", "*a", "? a\n: b", "? [1]\n: b", "? {a: 1}\n: b",
    "a: \t1", "\ta: 1", "é", "\u2028", "\x85", "\x01", "\x7f", "\ufeffa: 1", "\U0001f600",
]  # fmt: skip
DOCUMENTS: list[Any] = [
    *SCALARS, *(f"k: {scalar}" for scalar in SCALARS if "\n" not in scalar),
    *(f"{scalar}: v" for scalar in SCALARS if "\n" not in scalar), "a: 1\n---\nb: 2", "---\n---\na: 1", "a: 1\n...\n",
    "a: 1\n---\n\tb: 2", "a: 1\n---\n*x", "%YAML 1.1\n---\na", "--- a", "a: 1\na: 2", "1: a\n'1': b",
    "true: a\n'true': b\nb: 1\nb: 2", "1.5: a\n1.50: b", "0.1: a", "1e10: a", "123456789.5: a", "1e39: a", "-1e39: a",
    "null: a", "x: &a [1, 2]\ny: *a", "&a [*a]", "x: &a {b: *a}", "x: &a 1\ny: &a 2\nz: *a", "x: &a 1\n*a : 2",
    "x: &a 1\n*a : 2\n*a : 3", "b: &b {x: 1, y: 2}\nd:\n  <<: *b\n  y: 3\n  z: 4",
    "p: &p {x: 1}\nq: &q {x: 2, y: 2}\nr:\n  <<: [*p, *q]\n  z: 3",
    "p: &p {x: 1}\nq: &q {y: 2}\nr:\n  <<: *p\n  <<: *q", "r:\n  <<: {x: 1}\n  x: 2", "r:\n  <<: 5", "r:\n  <<: [5]",
    "p: &p [1]\nr:\n  <<: *p", "r:\n  '<<': 5", "r:\n  <<: [[]]",
    "p: &p {x: 1}\nq: &q {<<: *p, y: 1}\nr: {<<: *q, z: 1}", "\n  test:\ntest1: hello\n", "a:\n- 1\n- 2",
    "a:\n  - b: 1\n    c: 2", "", " ", "\n", "...", "5", "a: [1, 2\nb: 3", "{a: 1}}", "[1]]", "- 1\n2", "a:\n\t- 1",
    "a: 'x\n  y'", "a: x\n  y", 5, None, ["a"],
]  # fmt: skip
TEXTS = [
    *SCALARS, "a\nb", "a\n", "a\n\n", "\n", "\n\n", "\na", " a\nb", "a \nb", "a\nb ", "a\n b", "a\n\n\nb", "\ta\nb",
    "a\tb", "a\t", "\x01\n", "a\r\nb", "a\r", "a\u2028\nb", "\x85a", "a: b", "a:", ":a", "-", "- a", "-a",
    "?", "? a", ":", "---", "---a", "...", "a #b", "#a", "a,b", "[a", "{a", "'a", '"a', "a'b", 'a"b', "a\\b", "%a",
    "@a", " a", "a ", "a  b", "x" * 200, "x y " * 60, "\xa0", "\ufeff", "\ufffe", "\ue000", "\U0001f600", "\0", "\x1b",
    "<a>&", "y", "Y", "1:30", "2001-1-2",
]  # fmt: skip
VALUES: list[Any] = [
    *TEXTS, *([text] for text in TEXTS), *({"k": text} for text in TEXTS), *({text: 1} for text in TEXTS),
    *({"a": {text: [text]}} for text in TEXTS), *([[text]] for text in TEXTS), *({text: {"a": text}} for text in TEXTS),
    None, True, 0, -5, 1.0, 1.5, 1e6, 1e-7, 1e20, 1e21, 123456.0, 2**63, 2**64, 10**25, [], {}, [[]], [{}], {"a": []},
    {"a": {}}, [[1, [2, [3]]], {"a": [{"b": 1, "c": [2]}, []]}], RegoSet([2, 1]),
    RegoObject([(1, 2), (True, RegoSet())]),
    dict.fromkeys(
        ("a1", "a10", "a2", "a02", "A", "B", "b", "1", "10", "2", "a", "-", "_", "é", "a-b", "a1b", "ab", "aB"), 1
    ),
    dict.fromkeys(("x01", "x1", "x001", "x10", "x100", "x0", "x00", "1a", "a1a", "a1.", "9" * 30, "8" * 30), 1),
]  # fmt: skip


def test_documents_mean_what_they_mean_to_opa(rego_oracle: Oracle) -> None:
    calls: list[Call] = [(name, [text]) for text in DOCUMENTS for name in ("yaml.unmarshal", "yaml.is_valid")]
    assert differences(rego_oracle, calls) == []


def test_values_are_written_as_opa_writes_them(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, [("yaml.marshal", [value]) for value in VALUES]) == []


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text("ab \n\t:#-'\"é1.[{,&*!|>%@?\\", max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("ab1: \n-#", max_size=4), below, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(PLAIN)
def test_what_is_written_reads_back(value: Any) -> None:
    assert call_builtin("yaml.unmarshal", [call_builtin("yaml.marshal", [value])]) == value
    assert call_builtin("yaml.unmarshal", [json.dumps(value)]) == value


def test_what_is_too_large_fails_the_evaluation() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
    )
    merged = "a0: &a0 {x: 1}\n" + "".join(
        f"a{level}: &a{level}\n  <<: [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
    )
    for text in (bomb, merged, "x" * 200_000, "[" * 1000 + "]" * 1000, "- a\n" * 15_000):
        for name in ("yaml.unmarshal", "yaml.is_valid"):
            with pytest.raises(EvaluationError, match=r"more than|too large"):
                call_builtin(name, [text])
    with pytest.raises(EvaluationError, match="too large"):
        call_builtin("yaml.marshal", [["x" * 1000] * 200])


def test_an_explicit_timestamp_fails_the_evaluation() -> None:
    with pytest.raises(EvaluationError, match="timestamp"):
        call_builtin("yaml.unmarshal", ["!!timestamp 2001-01-01"])
