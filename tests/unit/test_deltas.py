"""Deltas: what their operations make of the data, and which ones are refused."""

from typing import Any

import pytest

from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.bundle import Bundle, read_archives
from sark_pdp.errors import BundleError
from tests.fix_bundles import data_bundle, delta_bundle

DATA: dict[str, Any] = {"a": {"list": [1, 2, 3], "x/y": 0, "~": 0, "deep": {"er": 1}}, "b": 7}
Operations = list[Any]


def after(*deltas: dict[str, bytes]) -> tuple[Bundle, int]:
    return read_archives("b", [pack_archive(files) for files in (data_bundle(DATA), *deltas)])


def op(kind: str, path: str, *value: Any) -> dict[str, Any]:
    return {"op": kind, "path": path} | ({"value": value[0]} if value else {})


APPLIED: dict[str, tuple[Operations, str, Any]] = {
    "a new key": ([op("upsert", "/a/new", {"k": 1})], "new", {"k": 1}),
    "a key that is there": ([op("upsert", "/a/deep", 5)], "deep", 5),
    "a path that is not there": ([op("upsert", "a/p/q/r", None)], "p", {"q": {"r": None}}),
    "an element before another": ([op("upsert", "/a/list/1", "x")], "list", [1, "x", 2, 3]),
    "an element at the end": (
        [op("upsert", "/a/list/-", "x"), op("upsert", "/a/list/4", "y")],
        "list",
        [1, 2, 3, "x", "y"],
    ),
    "replaced": ([op("replace", "/a/deep/er", [1])], "deep", {"er": [1]}),
    "an element replaced": ([op("replace", "/a/list/2", 9)], "list", [1, 2, 9]),
    "removed": ([op("remove", "/a/deep/er")], "deep", {}),
    "an element removed": ([op("remove", "/a/list/0")], "list", [2, 3]),
    "a key with a slash": ([op("replace", "/a/x~1y", 1)], "x/y", 1),
    "a key with a tilde": ([op("replace", "/a/~0", 1)], "~", 1),
    "in order": ([op("upsert", "/a/n", 1), op("replace", "/a/n", 2), op("upsert", "/a/m", 3)], "n", 2),
}


@pytest.mark.parametrize("case", APPLIED)
def test_operations_are_applied_in_order(case: str) -> None:
    operations, key, value = APPLIED[case]
    bundle, archives = after(delta_bundle(operations))
    assert archives == 2
    assert bundle.data["a"][key] == value
    assert bundle.data["b"] == 7


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "no operation": (delta_bundle([]), "holds no operation"),
    "an operation of another name": (delta_bundle([op("move", "/a/x", 1)]), "patch.json is not as it should be"),
    "no value": (delta_bundle([op("replace", "/a/deep")]), "cannot replace /a/deep: it has no value"),
    "nothing to replace": (
        delta_bundle([op("replace", "/a/none", 1)]),
        "cannot replace /a/none: there is no such path",
    ),
    "nothing to remove": (delta_bundle([op("remove", "/a/none/x")]), "cannot remove /a/none/x: there is no such"),
    "inside of a number": (delta_bundle([op("upsert", "/b/x", 1)]), "neither object nor array"),
    "beyond the array": (delta_bundle([op("upsert", "/a/list/4", 1)]), "the array has no index 4"),
    "an index that is none": (delta_bundle([op("replace", "/a/list/-1", 1)]), "the array has no index -1"),
    "outside of the roots": (delta_bundle([op("upsert", "/c", 1)]), "/c lies outside of its roots"),
    "a key that looks like a root": (delta_bundle([op("upsert", "/a~1list", 1)]), "lies outside of its roots"),
    "all of the data": (delta_bundle([op("replace", "/", {})]), "/ lies outside of its roots"),
    "other roots": (delta_bundle([op("upsert", "/a/x", 1)], roots=["a"]), "with other roots or entrypoints"),
    "other entrypoints": (
        delta_bundle([op("upsert", "/a/x", 1)], wasm=[{"entrypoint": "a/b", "module": "/policy.wasm"}]),
        "with other roots or entrypoints",
    ),
    "data beside it": ({**delta_bundle([op("remove", "/a")]), "data.json": b"{}"}, "and holds data.json too"),
    "no JSON": ({"patch.json": b"["}, "patch.json is not as it should be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_delta_that_does_not_fit_is_refused_in_one_sentence(case: str) -> None:
    files, message = REFUSED[case]
    with pytest.raises(BundleError) as caught:
        after(files)
    assert message in str(caught.value)
    assert str(caught.value).startswith("bundle b: ")


def test_a_delta_may_bring_a_revision_of_its_own() -> None:
    one, two = delta_bundle([op("upsert", "/a/x", 1)], revision="d2"), delta_bundle([op("upsert", "/a/x", 2)])
    assert after()[0].revision == "d1"
    assert after(one)[0].revision == after(one, two)[0].revision == "d2"
    assert len({after(*deltas)[0].digest for deltas in ((), (one,), (two,), (one, two), (two, one))}) == 5


def test_a_whole_bundle_makes_an_end_of_what_came_before() -> None:
    delta = pack_archive(delta_bundle([op("upsert", "/a/x", 1)]))
    whole = pack_archive(data_bundle({"a": {"fresh": 1}}))
    bundle, archives = read_archives("b", [b"of no interest", delta, whole])
    assert (bundle.data, archives) == ({"a": {"fresh": 1}}, 1)


def test_a_delta_alone_is_refused() -> None:
    delta = pack_archive(delta_bundle([op("upsert", "/a/x", 1)]))
    with pytest.raises(BundleError, match="there is no whole bundle before it"):
        read_archives("b", [delta, delta])


def test_all_data_may_be_replaced_where_all_is_owned() -> None:
    whole = pack_archive({"data.json": b'{"a": 1}'})
    bundle, _ = read_archives("b", [whole, pack_archive(delta_bundle([op("replace", "/", {"z": 1})]))])
    assert bundle.data == {"z": 1}
