"""What a caller sent becomes the document that a policy sees, or is refused."""

import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given
from hypothesis import strategies as st

from sark_pdp._proto.decision_pb2 import Authorization, CheckRequest
from sark_pdp.errors import InvalidRequestError
from sark_pdp.transport.documents import Documents

DOCUMENTS = Documents(max_bytes=1 << 20, max_depth=5, max_values=1000)

keys = st.text(max_size=3)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=3), max_leaves=8
)
objects = st.dictionaries(keys, values, max_size=3)


def struct(document: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(document)
    return made


def depth(value: Any) -> int:
    """How deep objects and arrays are nested; a scalar is 0 deep."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def of_json(text: bytes) -> Any:
    return DOCUMENTS.of_check(CheckRequest(input_json=text))


@given(objects)
@example({"a": {"a": {"a": {"a": {}}}}})
@example({"a": {"a": {"a": {"a": {"a": {}}}}}})
@example({"a": [[[[]]]]})
@example({"a": [[[[[]]]]]})
@example({"": [{}, [{}]], "{[": "{[{[{[{["})
def test_both_forms_of_a_document_are_the_same_and_bounded_by_depth_alike(document: dict[str, Any]) -> None:
    requests = [CheckRequest(input_json=json.dumps(document).encode()), CheckRequest(input=struct(document))]
    for request in requests:
        if depth(document) <= 5:
            assert DOCUMENTS.of_check(request) == document
        else:
            with pytest.raises(InvalidRequestError, match=r"nested deeper than limits\.max_depth allows \(5\)"):
                DOCUMENTS.of_check(request)


@given(objects, st.integers(0, 8))
@example({"a": {}}, 1)
@example({"a": [[], {}]}, 5)
def test_both_forms_of_a_document_are_bounded_by_the_same_number_of_values(document: dict[str, Any], most: int) -> None:
    bounded = Documents(max_bytes=1 << 20, max_depth=100, max_values=most)
    others = [
        CheckRequest(input=struct(document)),
        CheckRequest(authorization=Authorization(user=struct(document))),
    ]
    try:
        assert bounded.of_check(CheckRequest(input_json=json.dumps(document).encode())) == document
    except InvalidRequestError:
        for request in others:
            with pytest.raises(InvalidRequestError, match=rf": more values than limits\.max_values allows \({most}\)$"):
                bounded.of_check(request)
    else:
        assert [bounded.of_check(request) for request in others] == [document, {"user": document}]


def test_the_parts_of_an_authorization_share_its_values() -> None:
    bounded = Documents(max_bytes=1 << 20, max_depth=5, max_values=5)
    part = struct({"a": 1, "b": [1]})
    assert bounded.of_check(CheckRequest(authorization=Authorization(user=part, tool=struct({"a": 1}))))
    with pytest.raises(InvalidRequestError, match=r"^authorization\.tool: more values"):
        bounded.of_check(CheckRequest(authorization=Authorization(user=part, tool=part)))


@given(objects)
def test_the_parts_of_an_authorization_and_a_resource_lie_one_level_deeper(document: dict[str, Any]) -> None:
    request = CheckRequest(authorization=Authorization(user=struct(document)))
    if depth(document) <= 4:
        assert DOCUMENTS.of_check(request) == {"user": document}
        assert DOCUMENTS.resource("resources[0]", struct(document)) == document
        return
    with pytest.raises(InvalidRequestError) as refused:
        DOCUMENTS.of_check(request)
    assert refused.value.field == "authorization.user"
    with pytest.raises(InvalidRequestError) as refused:
        DOCUMENTS.resource("resources[0]", struct(document))
    assert refused.value.field == "resources[0]"


def test_an_authorization_becomes_what_was_set_of_it() -> None:
    names = ("user", "tool", "server", "context", "parameters", "source_agent", "target_agent")
    parts: dict[str, Any] = {name: struct({"id": name}) for name in names}
    whole = DOCUMENTS.of_check(CheckRequest(authorization=Authorization(action="tool:invoke", **parts)))
    assert whole == {"action": "tool:invoke", **{name: {"id": name} for name in names}}
    assert DOCUMENTS.of_check(CheckRequest(authorization=Authorization())) == {}
    # An empty object is there, an absent one is not.
    assert DOCUMENTS.of_check(CheckRequest(authorization=Authorization(user=Struct()))) == {"user": {}}


@pytest.mark.parametrize(
    ("number", "seen"),
    [(3.0, 3), (-3.0, -3), (0.5, 0.5), (2.0**53, 2**53), (2.0**53 + 2, 2.0**53 + 2), (1e300, 1e300)],
)
def test_whole_numbers_of_a_struct_are_integers_as_long_as_they_are_exact(number: float, seen: float) -> None:
    (value,) = DOCUMENTS.of_check(CheckRequest(input=struct({"n": number}))).values()
    assert (type(value), value) == (type(seen), seen)


@pytest.mark.parametrize("text", [b"1", b"1.0", b"-0.0", b"1e2", b"18446744073709551616", b"true", b'"1"', b"null"])
def test_json_values_keep_their_type(text: bytes) -> None:
    value = of_json(b'{"v": %s}' % text)["v"]
    expected = json.loads(text)
    assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize("form", ["input_json", "input", "authorization"])
def test_the_size_is_bounded_to_the_byte(form: str) -> None:
    document = {"user": {"id": "x" * 100}}
    parts: dict[str, Any] = {
        "input_json": json.dumps(document).encode(),
        "input": struct(document),
        "authorization": Authorization(user=struct(document["user"])),
    }
    request = CheckRequest(**{form: parts[form]})
    size = len(parts[form]) if form == "input_json" else parts[form].ByteSize()
    assert Documents(size, 5, 1000).of_check(request) == document
    with pytest.raises(InvalidRequestError, match=f"^{form}: {size} bytes .* \\({size - 1}\\)$"):
        Documents(size - 1, 5, 1000).of_check(request)


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\ud8', max_size=30).map(str.encode))
@example(b'{"a":' * 100_000)
@example(b"[" * 100_000)
@example(b'{"a":1e999}')
@example(b'{"a":"\\ud800"}')
@example(b"\xef\xbb\xbf{}")
def test_whatever_bytes_come_the_outcome_is_an_object_or_a_refusal_that_names_the_field(text: bytes) -> None:
    refused: InvalidRequestError | None = None
    try:
        document = of_json(text)
    except InvalidRequestError as error:
        refused = error
    if refused is None:
        assert type(document) is dict
    else:
        assert refused.field == "input_json"
        assert "\n" not in str(refused)


@pytest.mark.parametrize("text", [b'{"a":[%s]}' % b",".join([b"1"] * 1000), b"{%s}" % b",".join([b'"a":[]'] * 501)])
def test_too_many_values_are_refused(text: bytes) -> None:
    """To decode them would delay the answers to everybody else."""
    with pytest.raises(InvalidRequestError, match=r"^input_json: more values than limits.max_values allows \(1000\)$"):
        of_json(text)
    fewer = text.replace(b"1,", b"", 1).replace(b'"a":[],', b"", 1)
    assert of_json(fewer) == json.loads(fewer)
