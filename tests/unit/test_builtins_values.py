"""Built-ins on values (`json`, `object`, `uuid`, `semver`, `units`, `numbers`, `rand`) return what OPA returns."""

from itertools import product
from random import Random
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from sark_pdp.engine.wasm.builtins import UNDEFINED, Context
from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

VERSIONS: list[Any] = [
    "1.2.3", "v1.2.3", "1.2.4", "1.10.0", "2.0.0", "1.2.3-alpha", "1.2.3-alpha.1", "1.2.3-alpha.beta", "1.2.3-beta.2",
    "1.2.3-beta.11", "1.2.3-rc.1", "1.2.3+build", "1.2.3-rc.1+b.2", "1.2.3--", "1.2.3-0", "1.2.3-00", "1.2.3-0a",
    "1.2.3-", "1.2.3+", "1.2.3-a..b", "1.2", "1.2.3.4", "01.2.3", "1.02.3", "-1.2.3", "+1.2.3", "1.2.3-a+b+c",
    "9223372036854775807.0.0", "9223372036854775808.0.0", "", "vv1.2.3", "1.2.3-\u00e9", "1.2.3\n",
    "1.2.3-99999999999999999999", "1.2.3-99999999999999999998a", 5, None,
]  # fmt: skip
UUIDS: list[Any] = [
    "00000000-0000-0000-0000-000000000000", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "000003e8-48b9-21ee-b200-325096b39f47",
    "000003e8-48b9-21ee-8001-325096b39f47", "000003e8-48b9-21ee-8007-335096b39f47",
    "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8", "URN:UUID:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}", "x6ba7b810-9dad-11d1-80b4-00c04fd430c8x",
    "6ba7b8109dad11d180b400c04fd430c8", "6ba7b810-9dad-41d1-c0b4-00c04fd430c8", "6ba7b810-9dad-71d1-e0b4-00c04fd430c8",
    "6ba7b810-9dad-11d1-00b4-02c04fd430c8", "6ba7b810-9dad-11d1-80b4-03c04fd430c8",
    "6ba7b810-9dad-11d1-80b4-01c04fd430c8", "00000000-0000-1000-8000-000000000000",
    "ffffffff-ffff-1fff-bfff-ffffffffffff", "6ba7b810-9dad-11d1-80b4-00c04fd430c",
    "6ba7b810-9dad-11d1-80b4_00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430cg", "", "x", 5,
]  # fmt: skip
PREFIXES = [
    "m", "k", "K", "M", "g", "G", "t", "T", "p", "P", "e", "E", "ki", "Ki", "KI", "mi", "Mi", "MI", "gi", "Ti", "pi",
    "Ei", "b", "B", "kb", "KB", "KiB", "kib", "mb", "MiB", "gb", "GiB", "TB", "tib", "PB", "PiB", "eb", "EiB", "i",
    "mm", "kk",
]  # fmt: skip
AMOUNTS: list[Any] = [
    "0", "1", "10", "1.5", ".5", "5.", "+5", "-5", "--5", "1.2.3", "1e3", "1E3", "1e-3", "1e+3", "1e", "1ek", "1e3k",
    "e5", "1e1000000", "", " 1", "1 k", "k", "x", "1x", "100000000000000000000000", "0.1mib",
    "0.3333333333333333333333kib", "\"10\"k", "1\u00e9", "\u0661", "1+1", "1-", "12345678901234567890.5m",
    "0.00000000001", "0.00000000005", "-0.00000000005", "0.7e1k", "1_000", "0x10", "010", "0b1", "1e300", 5, None,
    *(f"{number}{unit}" for number, unit in product(["1", "1.5", "0.001", "-3", "123456789"], PREFIXES)),
]  # fmt: skip
RANGES: list[Any] = [
    (1, 5, 2), (5, 1, 2), (1, 1, 1), (0, 10, 20), (1, 5, 0), (1, 5, -1), (1.0, 3.0, 1.0), (1.5, 3, 1), ("1", 3, 1),
    (-3, 3, 3),
]  # fmt: skip

DOCUMENT: dict[str, Any] = {"a": {"b": [1, 2, {"c": None}]}, "x/y": {"~z": True}, "": 0, "set": RegoSet([1, "k", [2]])}
PLAIN: dict[str, Any] = {"a": {"b": [1, 2, {"c": None}]}, "x/y": {"~z": True}, "": 0, "1": {"0": "one"}}
PATHS: list[Any] = [
    "", "/", "//", "a", "/a", "/a/b", "a/b/0", "/a/b/1", "/a/b/2", "/a/b/3", "/a/b/4", "/a/b/-", "/a/b/-1", "/a/b/01",
    "/a/b/+1", "/a/b/1.0", "/a/b/00", "/a/b/x", "/a/b/2/c", "/a/b/2/c/d", "/a/n", "/n/n", "/x~1y/~0z", "/x~1y/n",
    "/1/0", "/a/", [], ["a"], ["a", "b", 0], ["a", "b", "0"], ["a", "b", 1.0], ["a", "b", 3], ["x/y", "~z"], ["a", 5],
    ["1", 0], 5, None, {"a": 1},
]  # fmt: skip
TESTED: list[Any] = [1, [1, 2, {"c": None}], 1.0, None, True]
OPERATIONS: list[Any] = [
    *([{"op": "add", "path": path, "value": value}] for path, value in product(PATHS, [9, {"k": [1]}])),
    # OPA itself crashes where nothing is left of a document.
    *([{"op": "remove", "path": path}] for path in PATHS if path not in ("", [])),
    *([{"op": "replace", "path": path, "value": [7]}] for path in PATHS),
    *([{"op": "move", "from": a, "path": b}] for a, b in product(PATHS[:28:2], PATHS[:28:3])),
    *([{"op": "copy", "from": a, "path": b}] for a, b in product(PATHS[:28:2], PATHS[:28:3])),
    *([{"op": "test", "path": path, "value": value}] for path, value in product(PATHS, TESTED)),
    [], "x", [5], [{}], [{"op": "add"}], [{"op": "add", "path": "/a"}], [{"path": "/a"}], [{"op": 5, "path": "/a"}],
    [{"op": "nope", "path": "/a"}], [{"op": "copy", "path": "/q"}], [{"op": "move", "path": "/q"}],
    [{"op": "test", "path": "/a"}], [{"op": "replace", "path": "/n"}], [{"op": "add", "path": "/q", "value": None}],
    [{"op": "add", "path": "/q", "value": {}}, {"op": "add", "path": "/q/r", "value": 1}],
    [{"op": "copy", "from": "/a", "path": "/q"}, {"op": "remove", "path": "/a/b/0"}],
    [{"op": "remove", "path": ""}, {"op": "add", "path": "", "value": 1}],
    [{"op": "remove", "path": ""}, {"op": "remove", "path": ""}],
    [{"op": "remove", "path": ""}, {"op": "add", "path": "/a", "value": 1}],
    [{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/a"}], [{"op": "move", "from": "/a", "path": "/a/b"}],
    [{"op": "add", "path": "/a/b/0", "value": [5]}, {"op": "remove", "path": "/a/b/2"}],
    [{"op": "add", "path": "/a/b/0", "value": [5]}, {"op": "replace", "path": "/a/b/0/0", "value": 6}],
]  # fmt: skip
SET_PATHS: list[Any] = [
    ["set", 1],
    ["set", [2]],
    ["set", [2], 0],
    ["set", 5],
    ["set", "k"],
    ["set"],
    "/set/k",
    "/set/n",
]
SET_OPERATIONS: list[Any] = [
    *([{"op": "add", "path": path, "value": value}] for path, value in product(SET_PATHS, [5, "n", 1])),
    *([{"op": "remove", "path": path}] for path in SET_PATHS),
    *([{"op": "replace", "path": path, "value": 5}] for path in SET_PATHS),
    *([{"op": "copy", "from": path, "path": "/q"}] for path in SET_PATHS),
    *([{"op": "test", "path": path, "value": 1}] for path in SET_PATHS),
]  # fmt: skip
MARSHALLED: list[Any] = [
    1, "x", None, [], {}, [1, [2, {"b": [], "a": {}}]], {"b": 1, "a": [True, None]},
    "<a href='&'>\u2028\u2029\x01\b\f\n\r\t\x7f\"\\/é", RegoSet([2, 1]), RegoObject([(1, 2), ("a", RegoSet(["x"]))]),
    1.5, 12345678901234567890,
]  # fmt: skip
OPTIONS: list[Any] = [
    {}, {"pretty": True}, {"pretty": False}, {"indent": "  "}, {"prefix": "> "}, {"prefix": ">", "indent": ""},
    {"indent": " ", "pretty": False}, {"pretty": 1}, {"indent": 2}, {"prefix": None}, {"other": True}, "x",
    {"prefix": "\n"},
]  # fmt: skip
SUBSETS: list[Any] = [
    {}, {"a": 1}, {"a": 1, "b": {"c": [1, 2, 3]}}, {"b": {"c": [2, 3]}}, {"b": {"c": [1, 3]}}, {"a": 1.0}, {"a": True},
    {"a": None}, [], [1], [1, 2], [2, 1], [1, 2, 1, 2, 3], [1, 2, 3], [[1]], RegoSet(), RegoSet([1]), RegoSet([1, 2]),
    RegoSet([1, 9]), {"s": RegoSet([1, 2])}, {"s": RegoSet([1])}, {"s": [1, 2]}, RegoObject([(1, 2)]),
    RegoObject([(1, 2), ("a", 1)]), RegoObject([(1.0, 2)]), 5, None, "a",
]  # fmt: skip

ROOTS: list[tuple[Any, Any]] = list(product([[1], "x", 5, None, RegoSet([1])], ["", "/0", "/-", [1]]))

CASES: list[Call] = [
    *(("semver.is_valid", [version]) for version in VERSIONS),
    *(("semver.compare", [a, b]) for a, b in product(VERSIONS, VERSIONS)),
    *(("uuid.parse", [uuid]) for uuid in UUIDS),
    *((name, [amount]) for name in ("units.parse", "units.parse_bytes") for amount in AMOUNTS),
    *(("numbers.range_step", list(case)) for case in RANGES),
    *(("json.patch", [PLAIN, operations]) for operations in OPERATIONS),
    *(("json.patch", [DOCUMENT, operations]) for operations in SET_OPERATIONS),
    *(("json.patch", [document, [{"op": "add", "path": path, "value": 1}]]) for document, path in ROOTS),
    *(("json.marshal_with_options", [value, options]) for value, options in product(MARSHALLED, OPTIONS)),
    *(
        ("object.subset", [a, b])
        for a, b in product(SUBSETS, SUBSETS)
        if not (isinstance(a, list) and b == RegoSet([1, 9]))
    ),
]


def test_each_call_returns_what_opa_returns(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, CASES) == []


def test_a_patch_that_leaves_no_document_is_undefined() -> None:
    assert call_builtin("json.patch", [{}, [{"op": "remove", "path": ""}]]) is UNDEFINED


def test_a_set_is_in_an_array_when_each_element_is() -> None:
    """OPA counts an element that is there twice as two of them, and calls this one a subset."""
    assert call_builtin("object.subset", [[1, 2, 1, 2, 3], RegoSet([1, 9])]) is False
    assert call_builtin("object.subset", [[1, 2, 1, 2, 3], RegoSet([1, 3])]) is True


def test_what_is_random_is_the_same_within_an_evaluation_and_another_in_the_next() -> None:
    random = Random(7)
    first, second = Context(0, random), Context(0, random)
    calls: list[Call] = [("rand.intn", ["x", 10**12]), ("uuid.rfc4122", ["x"]), ("uuid.rfc4122", [[1]])]
    for name, operands in calls:
        result = call_builtin(name, operands, first)
        assert call_builtin(name, operands, first) == result
        assert call_builtin(name, operands, second) != result
    assert call_builtin("uuid.rfc4122", ["x"], first) != call_builtin("uuid.rfc4122", ["y"], first)
    assert call_builtin("rand.intn", ["x", 0], first) == 0
    assert call_builtin("rand.intn", [1, 5], first) is UNDEFINED


def test_random_numbers_are_below_their_limit_and_uuids_of_version_four() -> None:
    context = Context(0, Random(7))
    assert {call_builtin("rand.intn", [str(name), 3], context) for name in range(100)} == {0, 1, 2}
    uuid = UUID(call_builtin("uuid.rfc4122", ["x"], context))
    assert (uuid.version, uuid.variant) == (4, RFC_4122)


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("numbers.range_step", [0, 10**9, 1]),
        ("units.parse", ["1e5000"]),
        ("json.patch", [{"a": [1]}, [{"op": "copy", "from": "", "path": f"/{number}"} for number in range(40)]]),
        ("object.subset", [[1] * 10_000, [1] * 5_000]),
    ],
)
def test_a_call_that_would_run_long_or_grow_large_fails_the_evaluation(name: str, operands: list[Any]) -> None:
    with pytest.raises(EvaluationError):
        call_builtin(name, operands)
