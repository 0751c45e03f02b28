"""The filtered parameters of an answer."""

import json
from types import MappingProxyType

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.client.parameters import read_parameters

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


def as_struct(value: dict[str, object]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(value)  # type: ignore[arg-type]
    return struct


@given(OBJECTS)
def test_parameters_that_the_policy_left_alone_come_back_exactly(parameters: dict[str, object]) -> None:
    """Integers beyond 2^53 and the difference between 10 and 10.0 survive a wire that has doubles only."""
    try:
        struct = as_struct(parameters)
    except OverflowError:
        return
    received = read_parameters(struct_pb2.Struct.FromString(struct.SerializeToString()), parameters)
    assert received == parameters
    assert json.dumps(received, sort_keys=True) == json.dumps(parameters, sort_keys=True)


@pytest.mark.parametrize(
    ("received", "sent", "expected"),
    [
        ({"n": 10}, None, {"n": 10}),
        ({"n": 1.5}, {"n": 2}, {"n": 1.5}),
        ({"n": 7}, {"n": "7"}, {"n": 7}),
        ({"n": 1}, {"n": True}, {"n": 1}),
        ({"n": 1}, {"n": 10**400}, {"n": 1}),
        ({"n": [2]}, {"n": [1.0, 2.0]}, {"n": [2]}),
        ({"n": {"m": 2}}, MappingProxyType({"n": MappingProxyType({"m": 2.0})}), {"n": {"m": 2.0}}),
        ({"n": None, "s": "x", "b": False}, {}, {"n": None, "s": "x", "b": False}),
    ],
)
def test_parameters_take_the_numbers_that_were_sent_only_where_they_are_the_same(
    received: dict[str, object], sent: dict[str, object] | None, expected: dict[str, object]
) -> None:
    came = read_parameters(as_struct(received), sent)
    assert json.dumps(came, sort_keys=True) == json.dumps(expected, sort_keys=True)
