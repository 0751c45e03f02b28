"""The trace that a call belongs to: the id in `traceparent` of W3C Trace Context.

<https://www.w3.org/TR/trace-context/>
"""

import re
from typing import Final

from sark_pdp.transport.handler import Pairs

HEADER: Final = "traceparent"

_VALUE: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.DOTALL)


def trace_id(traceparent: str) -> str:
    """32 hexadecimal digits; empty where the header is malformed."""
    match = _VALUE.fullmatch(traceparent)
    return "" if match is None else match[1]


def trace_of(pairs: Pairs) -> str:
    """The id in a call's metadata; empty where it has none."""
    for name, value in pairs:
        if name == HEADER and type(value) is str:
            return trace_id(value)
    return ""
