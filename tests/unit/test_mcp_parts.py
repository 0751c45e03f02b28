"""The parts of the guard that do no I/O: messages are read strictly, streams in any pieces, and what methods ask."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types.methods import SPEC_CLIENT_METHODS, SPEC_CLIENT_NOTIFICATION_METHODS

from sark_pdp.mcp import json_rpc, sse
from sark_pdp.mcp.json_rpc import MessageError
from sark_pdp.mcp.methods import SESSION, UnaskableError, questions

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=10,
)
ENDS = ["\n", "\r\n", "\r"]
TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
EVENTS = st.lists(st.tuples(st.none() | TEXT, st.none() | st.lists(TEXT, min_size=1, max_size=3)), max_size=5)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_passed_on_is_what_was_read(params: dict[str, Any]) -> None:
    """Numbers of any length, texts of any kind."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": params}
    read = json_rpc.read_messages(json.dumps(message).encode(), 1)
    assert read.all == (message,)
    again = json_rpc.read_messages(read.encode(), 1)
    assert json.dumps(again.all[0]) == json.dumps(message)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_messages_or_refused(body: bytes) -> None:
    """In the words of this module, never in those of a parser."""
    with contextlib.suppress(MessageError):
        assert all(message["jsonrpc"] == "2.0" for message in json_rpc.read_messages(body, 10).all)


def test_an_answer_may_have_numbers_that_a_request_may_not() -> None:
    """Python's servers send them, and what is only looked at is not held against anyone."""
    with pytest.raises(MessageError):
        json_rpc.decode('{"a": NaN}')
    assert math.isnan(json_rpc.decode('{"a": NaN}', strict=False)["a"])


@given(EVENTS, st.sampled_from(ENDS), st.data())
def test_a_stream_is_the_same_in_any_pieces(
    events: list[tuple[str | None, list[str] | None]], end: str, data: st.DataObject
) -> None:
    """Each event comes once, with its kind and data, and its bytes as they were."""
    lines = []
    for kind, texts in events:
        lines += [] if kind is None else [f"event: {kind}"]
        lines += [f"data: {text}" for text in texts or ()]
        lines += [": so that it is not empty", ""]
    stream = "".join(line + end for line in lines).encode()
    # A CR at the very end may be half of CR LF.
    stream += b": more" if end == "\r" else b""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = sse.EventReader()
    read = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.feed(stream[start:stop])
    assert [(each.kind, each.data) for each in read] == [
        ("message" if kind is None else kind, None if texts is None else "\n".join(texts)) for kind, texts in events
    ]
    rest = b": more" if end == "\r" else b""
    assert b"".join(each.raw for each in read) + rest == stream
    assert reader.held == len(rest)


@given(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(ENDS))
def test_an_event_with_other_data_keeps_the_rest(texts: list[str], end: str) -> None:
    """Whatever data it had."""
    lines = ["id: 7", *(f"data: {text}" for text in texts), "event: message", "retry: 5", "", ""]
    (event,) = sse.EventReader().feed((end.join(lines) + ("x" if end == "\r" else "")).encode())
    (changed,) = sse.EventReader().feed(event.with_data(b'{"a": 1}'))
    assert (changed.kind, changed.data) == ("message", '{"a": 1}')
    assert b"id: 7\r\n" in changed.raw
    assert b"retry: 5\r\n" in changed.raw


def test_a_mark_of_the_byte_order_hides_no_event() -> None:
    """Clients drop it at the beginning of a stream."""
    (event,) = sse.EventReader().feed(b"\xef\xbb\xbfdata: x\n\n")
    assert event.data == "x"


def test_every_method_of_the_protocol_is_known() -> None:
    """One that a later version of the SDK brings has to be thought about."""
    assert SPEC_CLIENT_NOTIFICATION_METHODS <= SESSION
    for method in SPEC_CLIENT_METHODS:
        try:
            assert questions(method, {}) is not None, method
        except UnaskableError:
            assert method not in SESSION


@given(st.sampled_from(sorted(SPEC_CLIENT_METHODS - SESSION)), st.dictionaries(st.text(), JSON, max_size=4))
def test_any_parameters_are_asked_about_or_refused(method: str, params: dict[str, Any]) -> None:
    """Whatever they are."""
    with contextlib.suppress(UnaskableError):
        asked = questions(method, params)
        assert asked is not None
        assert all(each.name and each.action and each.field for each in asked)
