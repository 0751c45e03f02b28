"""Rego values go through their text unchanged, and compare and sort as Rego has it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.terms import MAX_PARSED_TEXT, MAX_TEXT, dumps, loads
from sark_pdp.engine.wasm.values import RegoObject, RegoSet, TermError, equal, sort_key
from sark_pdp.errors import EvaluationError

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10)
)
TERMS: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.text(max_size=5), below, max_size=4)
        | st.lists(below, max_size=4).map(RegoSet)
        | st.lists(st.tuples(below, below), max_size=3).map(lambda items: RegoObject([*items, (1, 2)]))
    ),
    max_leaves=12,
)

READ: list[tuple[bytes, Any]] = [
    (b'"plain"', "plain"),
    (b"set()", RegoSet()),
    (b"set( )", RegoSet()),
    (b"{1, 2, 1.0}", RegoSet([1, 2])),
    (b'{"a", {"b": set()}, [1, {2}]}', RegoSet(["a", {"b": RegoSet()}, [1, RegoSet([2])]])),
    (b"{}", {}),
    (b'{"a": {1}, "b": []}', {"a": RegoSet([1]), "b": []}),
    (b'{1: "a", [2]: {"x"}}', RegoObject([(1, "a"), ([2], RegoSet(["x"]))])),
    (b"[set(), null, true, false, -1.5e3]", [RegoSet(), None, True, False, -1500.0]),
    (b'{"\\u0001\\n\\"\\\\\xc3\xa9"}', RegoSet(['\x01\n"\\é'])),
    (b'["a\xffb\xc3", 1]', ["a\ufffdb\ufffd", 1]),
    (b'"\xf0\x9f\x98\x80"', "\U0001f600"),
    (b"  {1 ,\n2}\t", RegoSet([1, 2])),
    (b"123456789012345678901234567890", 123456789012345678901234567890),
    (b"{123456789012345678901234567890}", RegoSet([123456789012345678901234567890])),
]

REFUSED: list[bytes] = [
    b"", b" ", b"{", b"{1", b"{1,", b"{1,}", b"[1,]", b"[1 2]", b"{1: }", b"{1: 2, 3}", b"{1, 2: 3}", b"1 2", b"set(",
    b"nul", b'"abc', b'{"a\x01"}', b"{--1}", b"{01}", b"}", b":", b"@", b"{1} x", b"{1, 2]", b'"\\ud800"',
]  # fmt: skip

ORDERED: list[Any] = [
    None, False, True, -1, 0, 0.5, 1, 1.5, 2**70, "", "A", "a", "aa", "é", "\U0001f600", [], [None], [1], [1, 0], [2],
    {}, {"a": 1}, {"a": 1, "b": 0}, {"a": 2}, {"b": 0}, RegoSet(), RegoSet([1]), RegoSet([1, 2]), RegoSet([2]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ)
def test_text_as_opa_dumps_it_is_read(text: bytes, value: Any) -> None:
    assert equal(loads(text), value)
    assert type(loads(text)) is type(value)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:12]))
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(TermError):
        loads(text)


@given(TERMS)
def test_a_written_value_reads_as_the_same(value: Any) -> None:
    assert equal(loads(dumps(value)), value)


@given(TERMS)
def test_plain_json_is_written_as_json(value: Any) -> None:
    text = dumps(value)
    if not any(mark in repr(value) for mark in ("RegoSet", "RegoObject")):
        assert msgspec.json.decode(text) == value


def test_values_sort_as_rego_sorts_them() -> None:
    shuffled = [*ORDERED[1::2], *ORDERED[::2]]
    assert sorted(shuffled, key=sort_key) == ORDERED


@given(st.lists(TERMS, max_size=6))
def test_a_set_has_each_element_once_whatever_their_order(elements: list[Any]) -> None:
    assert RegoSet(elements) == RegoSet([*reversed(elements), *elements])
    assert hash(RegoSet(elements)) == hash(RegoSet(reversed(elements)))
    keys = [sort_key(element) for element in RegoSet(elements)]
    assert keys == sorted(set(keys), key=lambda key: key)


@pytest.mark.parametrize(
    ("left", "right"), [(1, True), (0, False), ("1", 1), (None, False), ([], {}), ([], RegoSet()), ({}, RegoSet())]
)
def test_values_of_different_types_are_never_equal(left: Any, right: Any) -> None:
    assert not equal(left, right)
    assert len(RegoSet([left, right])) == 2


@pytest.mark.parametrize("text", [b"[" * 20_000, b"{[" * 50_000, b"[" * 20_000 + b"]" * 20_000])
def test_text_that_is_nested_too_deeply_fails_the_evaluation(text: bytes) -> None:
    with pytest.raises(EvaluationError, match="nested"):
        loads(text)


@pytest.mark.parametrize("text", [b"1e400", b"[-1e999999999]", b"1" * 10_000, b'{"a":2e308}'])
def test_a_number_beyond_those_of_python_is_kept_as_it_is_written(text: bytes) -> None:
    assert dumps(loads(text)) == text


@pytest.mark.parametrize("text", [b"{1e400, 1}", b"{-1e999999999: 1}"])
def test_a_number_beyond_those_of_python_fails_the_evaluation_where_it_is_compared(text: bytes) -> None:
    with pytest.raises(EvaluationError, match="too large"):
        loads(text)


@pytest.mark.parametrize(
    ("text", "value"), [(b".5", 0.5), (b"-.5", -0.5), (b"[.0]", [0.0]), (b"{.25e1}", RegoSet([2.5]))]
)
def test_a_number_may_begin_with_its_point_as_rego_allows(text: bytes, value: object) -> None:
    assert loads(text) == value


def test_text_that_would_take_long_to_read_fails_the_evaluation() -> None:
    with pytest.raises(EvaluationError, match="too large"):
        loads(b'"' + b"x" * MAX_TEXT + b'"')
    with pytest.raises(EvaluationError, match="too large"):
        loads(b"{" + b"1, " * MAX_PARSED_TEXT + b"1}")


def test_what_is_no_rego_value_cannot_be_written() -> None:
    for value in (object(), [RegoSet(), object()], "\ud800", RegoSet(["\ud800"])):
        with pytest.raises(TermError):
            dumps(value)
