"""The span that a call says it belongs to."""

import pytest

from sark_pdp.model import Request
from sark_pdp.projection import Projection
from sark_pdp.transport.trace import parent_in, trace_of
from tests.fix_audit import FakeEntrypoint

ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{ID}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (PARENT, PARENT),
        # A later version may say more.
        (f"cc-{ID}-b7ad6b7169203331-03-what comes", f"cc-{ID}-b7ad6b7169203331-03"),
        (f"ff-{ID}-b7ad6b7169203331-01", ""),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", ""),
        (f"00-{ID}-{'0' * 16}-01", ""),
        (f"00-{ID.upper()}-b7ad6b7169203331-01", ""),
        (f"00-{ID}-b7ad6b7169203331-01 ", ""),
        (f"00-{ID}", ""),
        ("x" * 10_000, ""),
        ("", ""),
    ],
)
def test_a_span_is_known_by_a_well_formed_header_only(header: str, found: str) -> None:
    assert parent_in(header) == found
    assert trace_of((("a", "b"), ("traceparent", header))) == found


def test_a_call_may_belong_to_no_trace() -> None:
    assert trace_of((("tracestate", "x"), ("traceparent-bin", b"x"))) == ""


@pytest.mark.parametrize(("trace", "id_"), [(PARENT, ID), ("", "")])
def test_a_request_tells_its_trace(trace: str, id_: str) -> None:
    assert Request(FakeEntrypoint(Projection([()])), {}, "request-1", trace=trace).trace_id == id_
