"""The parameters that a call goes on with, from its own and from what the policy said of them."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.model import Outcome, Verdict
from sark_pdp.transport.parameters import REDACTED, filtered_parameters

Paths = tuple[tuple[str, ...], ...]

steps = st.sampled_from(["a", "b", "0", "1", "-1", "٣", ""])
paths = st.lists(st.lists(steps, min_size=1, max_size=4).map(tuple), max_size=4).map(tuple)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(steps, below, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(steps, values, max_size=4)


def verdict(remove: Paths | None = None, redact: Paths | None = None, **fields: Any) -> Verdict:
    return Verdict(Outcome.ALLOW, "", remove_parameters=remove, redact_parameters=redact, **fields)


@pytest.mark.parametrize(
    ("parameters", "remove", "redact", "expected"),
    [
        ({"a": 1, "b": 2}, (("a",),), None, {"b": 2}),
        ({"a": 1, "b": 2}, None, (("a",),), {"a": REDACTED, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, (("a", "b"),), None, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, (("a", "b", "c"),), None, {"a": {"b": 1}}),
        ({"a": [1, 2, 3]}, (("a", "0"), ("a", "2")), None, {"a": [2]}),
        ({"a": [1, 2, 3]}, (("a", "1"),), (("a", "2"),), {"a": [1, REDACTED]}),
        ({"a": list(range(12))}, (("a", "10"), ("a", "9")), None, {"a": [0, 1, 2, 3, 4, 5, 6, 7, 8, 11]}),
        ({"a": [{"b": 1}, {"b": 2}]}, (("a", "1", "b"),), None, {"a": [{"b": 1}, {}]}),
        ({"a": {"0": 1}}, (("a", "0"),), None, {"a": {}}),
        ({"a": 1}, (("a",),), (("a",),), {}),
        ({"a": 1}, (("b",), ("a", "b"), ("c", "0")), (("d",),), {"a": 1}),
        ({"a": [1]}, (("a", "1"), ("a", "-1"), ("a", "x"), ("a", "")), None, {"a": [1]}),
        ({"a": {"b": 1}}, (("a",), ("a", "b")), None, {}),
        ({"a": 1}, (), None, {"a": 1}),
        ({}, (("a",),), None, {}),
        ({"a": None, "b": False}, None, (("a",), ("b",)), {"a": REDACTED, "b": REDACTED}),
    ],
)
def test_paths_are_removed_and_redacted(
    parameters: dict[str, Any], remove: Paths | None, redact: Paths | None, expected: dict[str, Any]
) -> None:
    assert filtered_parameters({"parameters": parameters}, verdict(remove, redact)) == expected


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"parameters": {"a": 1}}, verdict()),
        ({}, verdict((("a",),))),
        ({"parameters": None}, verdict((("a",),))),
    ],
)
def test_there_are_none_where_nothing_was_said_or_there_is_nothing_to_filter(
    document: dict[str, Any], said: Verdict
) -> None:
    assert filtered_parameters(document, said) is None


@pytest.mark.parametrize("parameters", [[1], [], "a", "", 0, False])
def test_nothing_is_left_of_parameters_that_cannot_be_filtered(parameters: Any) -> None:
    """None would tell the caller to go on with all of them."""
    for said in (verdict((("0",),)), verdict(redact=(("a",),))):
        assert filtered_parameters({"parameters": parameters}, said) == {}


def test_what_the_policy_removes_is_removed_from_what_it_rewrote_too() -> None:
    said = verdict((("only",),), (("only",),), filtered_parameters={"only": "this"})
    assert filtered_parameters({"parameters": {"only": "that"}}, said) == {}


@given(objects, paths, paths)
def test_filtering_leaves_the_request_as_it_was_and_repeats_itself(
    parameters: dict[str, Any], remove: Paths, redact: Paths
) -> None:
    """A verdict is applied to every request that it answers from the cache, and the audit event keeps the original."""
    document = {"parameters": parameters}
    before = copy.deepcopy(document)
    said = verdict(remove, redact)
    first = filtered_parameters(document, said)
    assert document == before
    assert filtered_parameters(document, said) == first


@given(objects, paths)
def test_nothing_is_added_and_what_no_path_names_stays(parameters: dict[str, Any], remove: Paths) -> None:
    filtered = filtered_parameters({"parameters": parameters}, verdict(remove))
    assert filtered is not None
    named = {path[0] for path in remove}
    assert set(filtered) <= set(parameters)
    for key, value in parameters.items():
        if key not in named:
            assert filtered[key] == value
    for path in remove:
        if len(path) == 1:
            assert path[0] not in filtered
