"""Logs: one event, one line, whatever is in it."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.observability.logging import configure


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging and the hooks belong to the whole process."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    # Else `configure` would close the handlers of the test runner.
    root.handlers = []
    yield
    root.handlers, root.level, sys.excepthook, threading.excepthook, sys.unraisablehook = before
    logging.captureWarnings(capture=False)


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    # Not `splitlines`, which also ends lines where collectors of logs do not.
    *lines, rest = stream.getvalue().split("\n")
    assert rest == ""
    return [json.loads(line) for line in lines]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_an_event_is_an_object_with_time_level_logger_message_and_extras(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    logging.getLogger("sark_pdp.app").warning("bundle %s is old", "b1", extra={"revision": "r1", "size": 3})
    (event,) = logged(stream)
    assert list(event)[:4] == ["time", "level", "logger", "message"]
    assert datetime.fromisoformat(event.pop("time")).utcoffset() == timedelta(0)
    assert event == {
        "level": "warning",
        "logger": "sark_pdp.app",
        "message": "bundle b1 is old",
        "revision": "r1",
        "size": 3,
    }


def test_what_is_below_the_level_is_not_logged(stream: io.StringIO) -> None:
    configure("warning", "json", stream)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").error("loud")
    assert [event["message"] for event in logged(stream)] == ["loud"]


def test_configuring_again_replaces_the_former(stream: io.StringIO) -> None:
    former = io.StringIO()
    configure("info", "json", former)
    configure("info", "json", stream)
    logging.getLogger("x").info("once")
    assert (former.getvalue(), len(logged(stream))) == ("", 1)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.tuples(st.text()), inner),
    max_leaves=5,
)


@given(message=st.text(st.characters()), extra=anything)
def test_whatever_is_logged_is_one_line_of_json(message: str, extra: Any) -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("x").info("%s", message, extra={"extra": extra})
    assert stream.getvalue().count("\n") == 1
    (event,) = logged(stream)
    assert event["message"] == message


def test_an_error_is_on_the_line_of_its_event(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (event,) = logged(stream)
    assert "ValueError: first\nsecond" in event["exc_info"]


def test_an_error_that_ends_a_thread_is_one_line(stream: io.StringIO) -> None:
    configure("info", "json", stream)

    def fail() -> None:
        raise RuntimeError("boom")

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    (event,) = logged(stream)
    assert (event["level"], event["thread_name"]) == ("critical", "worker")
    assert "RuntimeError: boom" in event["exc_info"]


def test_an_error_that_ends_the_process_is_one_line(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    error = RuntimeError("boom")
    sys.excepthook(RuntimeError, error, None)
    (event,) = logged(stream)
    assert "RuntimeError: boom" in event["exc_info"]


def test_an_error_that_cannot_be_raised_is_one_line(stream: io.StringIO) -> None:
    configure("info", "json", stream)

    class Clumsy:
        def __del__(self) -> None:
            raise RuntimeError("boom")

    Clumsy()
    (event,) = logged(stream)
    assert "RuntimeError: boom" in event["exc_info"]


def test_a_warning_of_a_library_is_one_line(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", "json", stream)
        warnings.warn("careful", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (event,) = logged(stream)
    assert "careful" in event["message"]


def test_text_is_for_people(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    logging.getLogger("sark_pdp.app").info("listening", extra={"address": "127.0.0.1:9001"})
    time, _, rest = stream.getvalue().partition(" ")
    assert datetime.fromisoformat(time).utcoffset() == timedelta(0)
    assert rest == "INFO    sark_pdp.app: listening address='127.0.0.1:9001'\n"


def test_text_does_not_let_a_message_look_like_two_or_move_the_cursor(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    logging.getLogger("x").info("a\nb\x1b[2Jc\x9b2J\u2028", extra={"more": "d\ne"})
    assert stream.getvalue().endswith(": a\\nb\\x1b[2Jc\\x9b2J\\u2028 more='d\\ne'\n")
