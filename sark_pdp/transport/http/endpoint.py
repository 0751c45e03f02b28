"""The seam between what carries an HTTP request and what answers it: bytes of a body in, bytes of an answer out."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from sark_pdp.transport.handler import Metadata
from sark_pdp.transport.questions import Caller

Headers = Sequence[tuple[bytes, bytes]]
"""Lower-case names, in the order in which they came."""


class Call(Struct, frozen=True):
    """What came with a body."""

    metadata: Metadata
    caller: Caller
    path: str = ""
    """What the end of the path names, where the endpoint's path leaves it open."""
    request_id: str = ""
    """`X-Request-ID`; empty where there is none."""
    base: str = ""
    """Scheme and host as the caller knows them, as in `https://pdp.example:9002`."""


class Endpoint(Protocol):
    """Answers the bodies that are sent to one path. Thread-safe."""

    path: str
    """As in `/v1/data/{path:path}`."""
    method: str
    """`GET` or `POST`."""

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        """The answer where it can be given without waiting; None: call `answer` on a thread that may wait.

        Raises RequestError.
        """

    def answer(self, call: Call, body: bytes) -> bytes:
        """The answer, as JSON; waits for caches, databases and slow policies. Raises RequestError."""


def header(headers: Headers, name: bytes) -> str:
    """The first value; empty where there is none."""
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return ""
