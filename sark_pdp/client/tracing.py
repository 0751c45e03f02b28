"""The trace that a question belongs to: `traceparent` and `tracestate` of OpenTelemetry's current span.

Nothing is imported for it. Where no span was ever made, its API was not imported either.
"""

import sys
from typing import Final, TypeAlias

Context: TypeAlias = tuple[tuple[str, str], ...]
"""Metadata of a call; empty where no span is active."""

_API: Final = "opentelemetry.trace"


def current_context() -> Context:
    """That of the current span, as W3C Trace Context has it. <https://www.w3.org/TR/trace-context/>"""
    api = sys.modules.get(_API)
    # It may be there in part only, while another thread imports it.
    current = getattr(api, "get_current_span", None)
    if current is None:
        return ()
    span = current().get_span_context()
    if not span.is_valid:
        return ()
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    state = span.trace_state.to_header() if span.trace_state else ""
    return (("traceparent", parent), ("tracestate", state)) if state else (("traceparent", parent),)
