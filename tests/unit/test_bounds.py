"""How many values a JSON text holds, and how deep they are nested, whatever its strings look like."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_pdp.transport.bounds import has_more_values, is_deeper

TEXT = st.text(st.sampled_from('a,{["\\\n'), max_size=6)
VALUES = st.recursive(
    st.integers() | st.booleans() | TEXT,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=12,
)


def separators(value: Any) -> int:
    """Commas, and objects and arrays that begin, in the JSON of a value."""
    if not isinstance(value, list | dict):
        return 0
    below = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(len(value) - 1, 0) + sum(map(separators, below))


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.booleans())
def test_what_is_in_a_string_is_no_value(value: Any, spaced: bool) -> None:
    text = json.dumps(value, indent=1 if spaced else None).encode()
    count = separators(value)
    assert not has_more_values(text, count)
    assert count == 0 or has_more_values(text, count - 1)


@given(VALUES)
def test_depth_is_that_of_the_deepest(value: Any) -> None:
    assert not is_deeper(value, depth(value))
    assert depth(value) == 0 or is_deeper(value, depth(value) - 1)


@given(st.binary(max_size=60) | TEXT.map(str.encode), st.integers(0, 60))
@example(b'"\\', 0)
@example(b',"', 0)
def test_any_bytes_have_a_count(text: bytes, most: int) -> None:
    assert has_more_values(text, most) in {False, True}
    assert not has_more_values(text, len(text))


@pytest.mark.parametrize("tail", [b"", b"\\", b'"', b'\\"'])
def test_a_string_that_does_not_end_is_gone_through_once(tail: bytes) -> None:
    """Each escaped quote tried anew would take hours."""
    assert has_more_values(b"," * 10 + b'"' + b'\\",' * 300_000 + tail, 9)
    assert not has_more_values(b"," * 10 + b'"' + b'\\",' * 300_000 + tail, 10)


@given(VALUES)
def test_no_value_has_more_strings_than_are_looked_at(value: Any) -> None:
    """Names of the longest object and all: what is no more than allowed is read to its end."""
    text = json.dumps({"": value, '"': {f"{each}": "," for each in range(9)}}).encode()
    assert not has_more_values(text, separators(value) + 11)


def test_a_text_of_nothing_but_quotes_is_not_gone_through_to_its_end() -> None:
    """Each pair takes a microsecond, and there may be half a million in what nobody has parsed yet."""
    quotes = b'"' + b"," * 11 + b'"' + b'""' * 20
    assert not has_more_values(quotes, 11)
    assert not has_more_values(quotes, 10)
    assert has_more_values(quotes, 9)
