"""What a policy is given of an input, and that the key of a decision stands for exactly that."""

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.cache.key import key_of
from sark_pdp.projection import Path, Projection

FINGERPRINT = bytes(32)

NAMES = st.sampled_from(["a", "b", "c", "user", "id", "", "\x00", "é"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 0.0, 1.0, "", "0", "1", "true", "null", 1 << 64, -(1 << 63) - 1, str(1 << 64)]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=5)
PATHS = st.sets(st.lists(NAMES, max_size=3).map(tuple), max_size=6)


def at(document: Any, path: Path) -> list[Any]:
    """What is at a path, as a list of one, or of none."""
    for step in path:
        if not isinstance(document, dict) or step not in document:
            return []
        document = document[step]
    return [document]


def typed(value: Any) -> Any:
    """Equal for values that JSON writes alike, but for the order of keys; 1, 1.0 and true differ, 0.0 and -0.0 too."""
    if isinstance(value, dict):
        return ("object", frozenset((name, typed(below)) for name, below in value.items()))
    if isinstance(value, list):
        return ("array", tuple(typed(below) for below in value))
    return (type(value).__name__, repr(value))


def shuffled(value: Any, order: Any) -> Any:
    """The same value with the keys of every object in another order."""
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    if isinstance(value, list):
        return [shuffled(below, order) for below in value]
    return value


def key(projection: Projection, document: Any) -> bytes:
    return key_of(FINGERPRINT, projection.project(document))


CASES: list[tuple[list[Path], Any, Any]] = [
    ([()], {"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}),
    ([], {"a": 1}, {}),
    ([("a",)], {"a": None, "b": 1}, {"a": None}),
    ([("a", "b")], {"a": {"b": {"c": 1}, "d": 2}}, {"a": {"b": {"c": 1}}}),
    ([("a", "b"), ("a", "c"), ("d",)], {"a": {"c": [1]}}, {"a": {"c": [1]}}),
    ([("a", "b"), ("a",)], {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}),
    ([("a", "b"), ()], {"x": 1}, {"x": 1}),
    ([("a", "id")], {"a": "eve"}, {}),
    ([("a", "id")], {"a": [{"id": 1}]}, {}),
    ([("a", "id")], {"a": None}, {}),
    ([("a", "id")], {"a": {}}, {}),
    ([("a", "0")], {"a": ["x"]}, {}),
    ([("", "")], {"": {"": 1}}, {"": {"": 1}}),
]


@pytest.mark.parametrize(("paths", "document", "projected"), CASES)
def test_a_policy_is_given_what_is_at_its_paths(paths: list[Path], document: Any, projected: Any) -> None:
    assert Projection(paths).project(document) == projected


@given(PATHS, DOCUMENTS)
def test_at_each_path_is_what_was_there_and_nothing_else_is_anywhere(paths: set[Path], document: Any) -> None:
    before = copy.deepcopy(document)
    projection = Projection(paths)
    projected = projection.project(document)
    assert typed(document) == typed(before)
    for path in projection.paths:
        assert typed(at(projected, path)) == typed(at(document, path))
    # The smallest one: without what is at the paths nothing is left but objects, and none of those is empty.
    assert not (paths and projection.paths and () in projection.paths) or projected is document
    if not projection.whole:
        _require_smallest(projected, projection, ())


def _require_smallest(part: Any, projection: Projection, path: Path) -> None:
    for name, below in part.items():
        here = (*path, name)
        if here not in projection.paths:
            assert any(other[: len(here)] == here for other in projection.paths)
            assert isinstance(below, dict)
            assert below
            _require_smallest(below, projection, here)


@given(PATHS, DOCUMENTS)
def test_projecting_again_changes_nothing(paths: set[Path], document: Any) -> None:
    projection = Projection(paths)
    once = projection.project(document)
    assert typed(projection.project(once)) == typed(once)


@given(PATHS, DOCUMENTS)
def test_paths_that_a_document_has_not_change_nothing(paths: set[Path], document: Any) -> None:
    """However many there are."""
    absent = {(*path[:-1], f"absent{number}") for path in paths if path for number in range(50)}
    assert typed(Projection({*paths, *absent}).project(document)) == typed(Projection(paths).project(document))


@given(PATHS)
def test_no_path_is_below_another(paths: set[Path]) -> None:
    kept = Projection(paths).paths
    assert [path for path in kept if any(path[: len(other)] == other for other in kept if other != path)] == []
    assert all(any(path[: len(other)] == other for other in kept) for path in paths)


@given(PATHS, DOCUMENTS, DOCUMENTS)
def test_keys_are_equal_where_what_is_read_is_equal_and_only_there(paths: set[Path], one: Any, other: Any) -> None:
    projection = Projection(paths)
    same = all(typed(at(one, path)) == typed(at(other, path)) for path in projection.paths)
    assert (key(projection, one) == key(projection, other)) is same


@given(st.data(), DOCUMENTS)
def test_one_changed_value_that_is_read_changes_the_key(data: st.DataObject, document: Any) -> None:
    path = data.draw(st.lists(NAMES, min_size=1, max_size=3).map(tuple))
    values = data.draw(st.lists(VALUES, min_size=2, max_size=2, unique_by=lambda value: repr(typed(value))))
    one, other = (_with(document, path, value) for value in values)
    absent = _without(document, path)
    projection = Projection([path, ("a",), ("user", "id")])
    assert len({key(projection, one), key(projection, other), key(projection, absent)}) == 3


@given(st.data(), PATHS, DOCUMENTS)
def test_a_changed_value_that_is_not_read_leaves_the_key(data: st.DataObject, paths: set[Path], document: Any) -> None:
    projection = Projection({(name, *path) for name in ("x", "y") for path in paths})
    document = {"x": document, "y": {"z": document}}
    before = key(projection, document)
    changed = {**document, data.draw(NAMES): data.draw(VALUES)}
    assert key(projection, changed) == before


@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_count(document: Any, order: Any) -> None:
    assert key_of(FINGERPRINT, shuffled(document, order)) == key_of(FINGERPRINT, document)


@given(DOCUMENTS)
def test_the_key_is_that_of_what_the_engine_is_given(document: Any) -> None:
    given_to_engine = msgspec.json.decode(msgspec.json.encode(document))
    assert key_of(FINGERPRINT, given_to_engine) == key_of(FINGERPRINT, document)


DISTINCT: list[Any] = [
    *(1, 1.0, True, "1", None, 0, 0.0, -0.0, False, "", "0", [], {}, [[]], [{}], {"": None}, [None], [1], [1, 1]),
    *(1 << 64, float(1 << 64), str(1 << 64), [str(1 << 64)], 1 << 65, -(1 << 64), b"".decode(), "\x00"),
    *({"a": {"b": 1}}, {"a.b": 1}, {"a": {}, "b": 1}, {"a": "b"}, ["a", "b"], ["ab"], [["a"], "b"], ["a", ["b"]]),
]


def test_values_that_a_policy_can_tell_apart_have_keys_of_their_own() -> None:
    by_type = {typed(value): {"v": value} for value in DISTINCT}
    assert len(by_type) == len(DISTINCT) - 1  # Two are the empty string.
    keys = {key_of(FINGERPRINT, document) for document in [{}, *by_type.values()]}
    assert len(keys) == len(by_type) + 1


def test_the_key_changes_with_the_fingerprint_and_is_32_bytes() -> None:
    keys = {key_of(bytes([number]) + bytes(31), {"a": 1}) for number in range(10)}
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 10


def test_the_later_one_of_duplicate_keys_counts_for_key_and_engine() -> None:
    document = msgspec.json.decode(b'{"a":1,"a":2}')
    assert key_of(FINGERPRINT, document) == key_of(FINGERPRINT, {"a": 2})
    assert msgspec.json.encode(document) == b'{"a":2}'


def _with(document: Any, path: Path, value: Any) -> Any:
    changed = dict(document) if isinstance(document, dict) else {}
    changed[path[0]] = value if len(path) == 1 else _with(changed.get(path[0]), path[1:], value)
    return changed


def _without(document: Any, path: Path) -> Any:
    if not isinstance(document, dict) or path[0] not in document:
        return document
    changed = dict(document)
    if len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = _without(changed[path[0]], path[1:])
    return changed
