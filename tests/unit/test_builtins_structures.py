"""`uri`, `graph`, `regex.globs_match`, `cast_*`, `trace` and `providers.aws` return what OPA returns."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.builtins import UNDEFINED
from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

URLS: list[Any] = [
    "", "*", "a", "/", "//", "///", "////a", "a:b", "a/b:c", ":", "://", "1a:b", "a1+-.:b", "A:b", "http:", "http:/",
    "http://", "http:///a", "http://h", "HTTP://H/P?Q#F", "http://h:80/a/b", "http://h:/a", "http://h:8x/",
    "http://h:1:2/", "pg://h:1:2/", "pg://a:1,b:2/c", "http://:80/", "http://u@h/", "http://u:p@h/", "http://u:p:q@h/",
    "http://u@v@h/", "http://u%40@h/", "http://u%4@h/", "http://u /@h/", "http://ü@h/", "http://h%41/",
    "http://h%C3%BC/", "http://hü/", "http://h%25/", "http://h%zz/", "http://h</", "http://h^/", "http://h\"/",
    "http://h /", "http://[::1]/", "http://[::1]:80/", "http://[::1]:x/", "http://[::1", "http://a[::1]/",
    "http://[1.2.3.4]/", "http://[::1.2.3.4]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%25]/",
    "http://[fe80::1%eth0]/", "http://[fe80::1%25a%20b]/", "http://[fe80::1%25a%41]/", "http://[fe80::1%25%2F]/",
    "http://[]/", "http://[g]/", "/a b", "/a%20b", "/a%2fb", "/a%2Fb", "/a%zb", "/%", "/%ff", "/a!b", "/a(b)", "/a'b*",
    "/[a]", "/a;b,c", "/a?b", "/a?", "/a??", "/a?b?c", "?", "?a=%zz", "#", "#a", "#%zz", "#a%20b", "#a b", "#a#b",
    "/a#", "a?b#c", "mailto:a@b", "mailto:", "urn:a:b?c#d", "/\x01", "/\x7f", "/é", "http://h/é?é#é", "http://h/%C3%A9",
    "//h/p", "//h:x/p", "//u@h", "x://a/./b/../c", "http://h\\a", "a b", "%41", "\t", "http://h/#\x01", "file:///a",
    "file://h/a", "file:a", 5, None, ["a"],
]  # fmt: skip
GLOBS: list[Any] = [
    "", "a", "ab", "b", ".", "..", ".*", ".+", "a*", "a+", "a*b", "a+b", "[ab]", "[a-c]+", "[a-c]*d", "[b-d]*", "abcd",
    "a.c", "a.*c", ".*c", "a*a*", "a+a*", "a*a+", "[ab]*[ba]+", "[ab]+c", "[bc]*", "[", "]", "[]", "[]*", "[a", "[-a]",
    "[a-]", "[a-", "[b-a]", "[a--]", "[a\\-z]", "[a-\\]]x", "\\", "\\.", "\\*", "a\\*", "*", "+", "a**", "a+*", "é",
    "[à-ü]", ".*b.*", ".*a.*b", "a.a.", "mama.*", ".*dada", 5, None,
]  # fmt: skip
GRAPHS: list[Any] = [
    {}, {"a": []}, {"a": ["b"]}, {"a": ["b"], "b": ["c"], "c": []}, {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []},
    {"a": ["b"], "b": ["a"]}, {"a": ["a"]}, {"a": ["b", "a", "z"], "b": ["c", "a"], "c": ["b"]}, {"a": "b"},
    {"a": {"b": 1}}, {"a": ["b"], "b": None}, RegoObject([(1, RegoSet([2, 3])), (2, RegoSet([1])), (3, RegoSet())]),
    {"a": RegoSet(["b", "c"]), "b": RegoSet(["c"]), "c": RegoSet()}, RegoObject([(1.0, [1])]), [], 5,
]  # fmt: skip
BEGINNINGS: list[Any] = [["a"], ["a", "b"], ["z"], [], RegoSet(["a", "c"]), RegoSet([1]), [1], "a", ["a", "a"]]
VALUES: list[Any] = [
    None,
    True,
    1,
    1.5,
    "x",
    [],
    [1, 1],
    {},
    {"a": [1]},
    RegoSet(),
    RegoSet([1, 2]),
    RegoObject([(1, 2)]),
]
CASTS = [f"cast_{kind}" for kind in ("array", "boolean", "null", "object", "set", "string")]


def test_urls_are_those_of_go(rego_oracle: Oracle) -> None:
    calls: list[Call] = [(name, [url]) for name, url in product(("uri.parse", "uri.is_valid"), URLS)]
    assert differences(rego_oracle, calls) == []


def test_expressions_have_in_common_what_opa_says(rego_oracle: Oracle) -> None:
    calls: list[Call] = [("regex.globs_match", [left, right]) for left, right in product(GLOBS, GLOBS)]
    assert differences(rego_oracle, calls) == []


@given(st.lists(st.sampled_from(["a", "b", "."]), max_size=8), st.text("ab", max_size=8))
def test_an_expression_without_flags_matches_what_has_its_characters(expression: list[str], text: str) -> None:
    matches = len(expression) == len(text) and all(a in (b, ".") for a, b in zip(expression, text, strict=True))
    assert call_builtin("regex.globs_match", ["".join(expression), text]) is matches


def test_paths_are_those_that_opa_finds(rego_oracle: Oracle) -> None:
    calls: list[Call] = [("graph.reachable_paths", list(pair)) for pair in product(GRAPHS, BEGINNINGS)]
    assert differences(rego_oracle, calls) == []


def test_notes_for_a_tracer_are_true(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, [("trace", [value]) for value in VALUES]) == []


@pytest.mark.parametrize("name", CASTS)
def test_a_cast_is_the_value_where_it_is_of_the_type(name: str) -> None:
    # OPA's own compiler refuses these in policies of today.
    kinds: dict[str, Any] = {
        "array": (list, RegoSet),
        "boolean": bool,
        "null": type(None),
        "object": (dict, RegoObject),
        "set": (list, RegoSet),
        "string": str,
    }
    for value in VALUES:
        taken = isinstance(value, kinds[name.removeprefix("cast_")])
        assert (call_builtin(name, [value]) is not UNDEFINED) is taken, value


def test_requests_are_signed_for_aws_as_opa_does(rego_oracle: Oracle) -> None:
    keys = {"aws_service": "s3", "aws_access_key": "A", "aws_secret_access_key": "B", "aws_region": "us-east-1"}
    configurations: list[Any] = [
        keys,
        keys | {"aws_service": "ec2", "aws_session_token": "token"},
        keys | {"disable_payload_signing": True},
        keys | {"disable_payload_signing": "true"},
        keys | {"aws_region": 5},
        {name: value for name, value in keys.items() if name != "aws_region"},
        keys | {"other": 1},
        "x",
    ]
    base = {"method": "GET", "url": "https://example.com:80/a b%2fc/é/%FF/%ff/[x]!?q=1&r=%20#f"}
    requests: list[Any] = [
        base,
        base | {"headers": {"X-A": "1", "User-Agent": "me", "authorization": "old", "x-b": 5}},
        base | {"body": {"b": 1, "a": ["<", None]}},
        base | {"raw_body": "text", "body": 5},
        base | {"raw_body": 5},
        base | {"headers": "x"},
        base | {"nope": 1},
        base | {"url": "%"},
        base | {"url": 5},
        {"method": "GET"},
        {"url": "http://h", "method": 5},
        {"url": "*", "method": "post"},
        5,
    ]
    times: list[Any] = [1767268800123456789, 0, -1, 1.5, "1"]
    calls: list[Call] = [
        ("providers.aws.sign_req", [request, configuration, times[0]])
        for request, configuration in product(requests, configurations)
    ]
    calls += [("providers.aws.sign_req", [base, keys, time]) for time in times]
    assert differences(rego_oracle, calls) == []


def test_what_takes_too_long_fails_the_evaluation() -> None:
    dense = {str(at): [str(to) for to in range(12)] for at in range(12)}
    chain = {str(at): [str(at + 1)] for at in range(1000)}
    starred, stars = "".join(f"{c}*{c * 5}" for c in "abcdefgh"), "".join(f"{c * 6}*" for c in "abcdefgh")
    calls: list[Call] = [
        ("graph.reachable_paths", [dense, ["0"]]),
        ("graph.reachable_paths", [chain, ["0"]]),
        ("regex.globs_match", [starred + "c.*", stars + "d.*"]),
        ("regex.globs_match", ["a" * 2000, "a"]),
        ("regex.globs_match", ["[\x01-\U0010ffff]", "a"]),
        ("uri.parse", ["/" * 100_000]),
    ]
    for name, operands in calls:
        with pytest.raises(EvaluationError, match=r"more than|too|may have"):
            call_builtin(name, operands)
