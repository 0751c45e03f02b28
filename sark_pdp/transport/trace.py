"""The span that a call belongs to: `traceparent` of W3C Trace Context.

<https://www.w3.org/TR/trace-context/>
"""

import re
from typing import Final

from sark_pdp.transport.handler import Pairs

HEADER: Final = "traceparent"

# Version, trace, parent and flags; what a later version adds is not kept.
_VALUE: Final = re.compile(
    r"((?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?", re.DOTALL
)


def parent_in(traceparent: str) -> str:
    """The first 55 characters of a header, all that is known of it; empty where it is malformed."""
    match = _VALUE.fullmatch(traceparent)
    return "" if match is None else match[1]


def trace_of(pairs: Pairs) -> str:
    """The same of a call's metadata; empty where it has none."""
    for name, value in pairs:
        if name == HEADER and type(value) is str:
            return parent_in(value)
    return ""
