"""Path and query: what a client escaped comes out as it went in, and nothing else is made of it."""

from urllib.parse import parse_qs, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.errors import InvalidRequestError
from sark_pdp.transport.ext_authz.parsing import check_depth, path_and_query

SEGMENT = st.text(st.characters(exclude_characters="/", codec="utf-8"), max_size=8)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@given(slashes=st.integers(1, 4), first=SEGMENT.filter(bool), rest=st.lists(SEGMENT, max_size=4))
def test_escaped_segments_come_back(slashes: int, first: str, rest: list[str]) -> None:
    """However many slashes are in front, none makes a host of a segment."""
    segments = [first, *rest]
    path = "/" * slashes + "/".join(quote(segment, safe="") for segment in segments)
    assert path_and_query(path) == (segments, {})


@given(parameters=st.lists(st.tuples(TEXT, TEXT), max_size=5), path=st.sampled_from(["/", "/a", "//b/c"]))
def test_an_escaped_query_comes_back(parameters: list[tuple[str, str]], path: str) -> None:
    """Values of a repeated key in their order."""
    grouped: dict[str, list[str]] = {}
    for key, value in parameters:
        grouped.setdefault(key, []).append(value)
    parsed_path, parsed_query = path_and_query(f"{path}?{urlencode(parameters)}")
    assert parsed_query == grouped
    assert parsed_path == path_and_query(path)[0]


@given(query=st.text(st.sampled_from("ab=&+%20C3"), max_size=20))
def test_any_query_is_split_as_the_standard_library_does(query: str) -> None:
    """Where it is well-formed, which the library does not insist on."""
    try:
        parsed = path_and_query(f"/?{query}")[1]
    except InvalidRequestError:
        return
    assert parsed == parse_qs(query, keep_blank_values=True)


@given(target=st.text(max_size=30) | st.text(st.sampled_from("/?%;&=.2fF"), max_size=30))
def test_any_target_is_split_or_refused(target: str) -> None:
    """The query never ends up in the path, and no segment holds a slash."""
    try:
        path, query = path_and_query(target)
    except InvalidRequestError:
        return
    assert path
    assert not any("/" in segment for segment in path)
    assert path == path_and_query(target.partition("?")[0])[0]
    assert all(values for values in query.values())


@given(
    value=st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2)
    )
)
def test_depth_counts_objects_and_arrays(value: object) -> None:
    """The deepest chain of them, empty ones included."""
    depth = depth_of(value)
    check_depth("input", value, depth)
    if depth:
        with pytest.raises(InvalidRequestError, match="max_depth"):
            check_depth("input", value, depth - 1)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0
