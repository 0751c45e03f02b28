"""Built-ins on text (`strings`, `hex`, `urlquery`, `base64url`, `crypto`, `glob`) return what OPA returns."""

from itertools import product
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

TEXTS: list[Any] = ["", "a", "abc", "aaa", "größe", "€😀", "a b+c/d=&é~._-*", "\x00\n", "{\"<>&'", 5, None, ["a"], True]
SIDES: list[Any] = [
    "", "a", "ab", "b", [], ["a"], ["ab", "ba"], ["xyz", "a"], [""], RegoSet(["a", "x"]), RegoSet(), [1], ["ab", 1], 5,
    None, {"a": "b"},
]  # fmt: skip
QUERIES: list[Any] = [
    "", "a=1", "a=1&b=2&a=3", "a", "a=", "=b", "=", "&&a=1&", "a=%20+b", "a=%2", "a=%zz", "%=1", "a;b=1", "a=1;b=2",
    "a=%3B", "a=b=c", "%C3%BC=%E2%82%AC", "%FF=%C3", "a=\u00fc", "a=%00", 5,
]  # fmt: skip
OBJECTS: list[Any] = [
    {}, {"a": "1"}, {"b": "2", "a": "1"}, {"a": ["2", "1"]}, {"a": []}, {"a": RegoSet(["z", "b"])}, {"ü &": "€ +"},
    {"a": 1}, {"a": ["x", 1]}, {"a": {"b": "c"}}, {"a": None}, "x", ["a"], RegoObject([(1, "a"), ("b", "c")]),
    {"a": "", "A": "x"}, {"a1": "1", "a": "2", "a!": "3"},
]  # fmt: skip

ONE_TEXT = [
    "hex.encode", "hex.decode", "urlquery.encode", "urlquery.decode", "base64url.encode_no_pad", "glob.quote_meta",
    "crypto.md5", "crypto.sha1", "crypto.sha256",
]  # fmt: skip
HEXADECIMAL = ["00", "FFfe", "616", "6x", "c3bc", "e282", "ff41ff", " 61", "61 62", "\u0661\u0661"]
GLOBS = ["*.example.com", "[a-z]{1,2}?!\\\\", "a,b-c^"]
HASHES = ["md5", "sha1", "sha256", "sha512"]
SPLIT = ["a,b,c", "", ",", "abc", "é€"]
COUNTS: list[Any] = [-5, -2, -1, 0, 1, 2, 3, 9, 2.0, 1.5, "1"]

CASES: list[Call] = [
    *((name, [text]) for name, text in product(ONE_TEXT, TEXTS)),
    *(("hex.decode", [text]) for text in HEXADECIMAL),
    *(("glob.quote_meta", [text]) for text in GLOBS),
    *((f"crypto.hmac.{name}", [text, key]) for name, text, key in product(HASHES, TEXTS, ["", "key", "é" * 100, 5])),
    *(("crypto.hmac.equal", [a, b]) for a, b in product(TEXTS, TEXTS)),
    *(("urlquery.decode", [query]) for query in QUERIES),
    *(("urlquery.decode_object", [query]) for query in QUERIES),
    *(("urlquery.encode_object", [value]) for value in OBJECTS),
    *((f"strings.any_{name}_match", [a, b]) for name in ["prefix", "suffix"] for a, b in product(SIDES, SIDES)),
    *(("strings.count", [a, b]) for a, b in product(TEXTS, ["", "a", "aa", "€", 5])),
    *(("indexof_n", [a, b]) for a, b in product(TEXTS, ["", "a", "aa", "€", "ö", 5])),
    *(("strings.split_n", [a, b, count]) for a, b, count in product(SPLIT, [",", "", "x"], COUNTS)),
]


def test_each_call_returns_what_opa_returns(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, CASES) == []


@given(st.dictionaries(st.text(), st.lists(st.text(), min_size=1)))
def test_an_encoded_query_decodes_to_itself(values: dict[str, list[str]]) -> None:
    query = call_builtin("urlquery.encode_object", [values])
    assert query == urlencode(dict(sorted(values.items())), doseq=True)
    assert call_builtin("urlquery.decode_object", [query]) == values == parse_qs(query, keep_blank_values=True)


@given(st.text())
def test_hexadecimal_text_decodes_to_itself(text: str) -> None:
    assert call_builtin("hex.decode", [call_builtin("hex.encode", [text])]) == text


@pytest.mark.parametrize("name", ["strings.any_prefix_match", "strings.any_suffix_match"])
def test_millions_of_comparisons_fail_the_evaluation(name: str) -> None:
    many = [str(number) for number in range(2000)]
    with pytest.raises(EvaluationError, match="for each string"):
        call_builtin(name, [many, many])
