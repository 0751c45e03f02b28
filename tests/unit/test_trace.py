"""The trace that a call says it belongs to."""

import pytest

from sark_pdp.transport.trace import trace_id, trace_of

ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"00-{ID}-b7ad6b7169203331-01", ID),
        # A later version may say more.
        (f"cc-{ID}-b7ad6b7169203331-01-what comes", ID),
        (f"ff-{ID}-b7ad6b7169203331-01", ""),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", ""),
        (f"00-{ID.upper()}-b7ad6b7169203331-01", ""),
        (f"00-{ID}-b7ad6b7169203331-01 ", ""),
        (f"00-{ID}", ""),
        ("x" * 10_000, ""),
        ("", ""),
    ],
)
def test_a_trace_is_known_by_a_well_formed_header_only(header: str, found: str) -> None:
    assert trace_id(header) == found
    assert trace_of((("a", "b"), ("traceparent", header))) == found


def test_a_call_may_belong_to_no_trace() -> None:
    assert trace_of((("tracestate", "x"), ("traceparent-bin", b"x"))) == ""
