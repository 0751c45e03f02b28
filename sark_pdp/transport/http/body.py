"""Bodies as they travel: read within bounds of size and time, unpacked, and packed."""

import asyncio
import gzip
import re
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from sark_pdp.errors import InvalidRequestError
from sark_pdp.transport.handler import Refusal
from sark_pdp.transport.http.endpoint import Headers, header
from sark_pdp.transport.http.errors import Fields, Problem, Refused
from sark_pdp.transport.http.gate import ShedError, Slot

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

SECONDS: Final = 30.0
"""That a body may take to come, however it comes."""
PACKED_FROM: Final = 1024
"""Bytes of an answer that are worth packing."""
VARIES: Final[Fields] = ((b"vary", b"accept-encoding"),)
PACKED: Final[Fields] = ((b"content-encoding", b"gzip"),)

_LEVEL: Final = 1
"""JSON shrinks to a tenth at the quickest level; the next ones take twice as long for a fifth of that."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_CODINGS: Final = frozenset({"", "identity"})
_PACKINGS: Final = frozenset({"gzip", "x-gzip"})
_REFUSES: Final = re.compile(r"q=0(?:\.0{0,3})?$")

FOREIGN_CODING: Final = Refused(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Problem("unsupported_encoding", "the body's Content-Encoding must be gzip, or none"),
    ((b"accept-encoding", b"gzip"),),
)
TOO_SLOW: Final = Refused(
    HTTPStatus.REQUEST_TIMEOUT, Problem("too_slow", f"the body did not come within {SECONDS:.0f} seconds")
)


class RefusedError(Exception):
    """A request that cannot be read, with what to say to it."""

    def __init__(self, answer: Refused) -> None:
        super().__init__(answer.problem.message)
        self.answer = answer


class GoneError(Exception):
    """The caller hung up."""


async def read(receive: Receive, headers: Headers, slot: Slot, limit: int) -> bytes:
    """The whole body, which is in flight as it comes. Raises ShedError, RefusedError or GoneError."""
    announced = header(headers, b"content-length")
    if announced.isdecimal() and int(announced) > limit:
        raise ShedError(Refusal.TOO_LARGE)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise GoneError
                chunk = message["body"]
                size += len(chunk)
                if size > limit:
                    raise ShedError(Refusal.TOO_LARGE)
                slot.take(len(chunk))
                chunks.append(chunk)
                if not message["more_body"]:
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise RefusedError(TOO_SLOW) from None


def is_packed(headers: Headers) -> bool:
    """Whether the body is packed with gzip. Raises RefusedError for anything else that it may be."""
    coding = header(headers, b"content-encoding").strip().lower()
    if coding in _CODINGS:
        return False
    if coding in _PACKINGS:
        return True
    raise RefusedError(FOREIGN_CODING)


def unpacked(body: bytes, limit: int) -> bytes:
    """Raises InvalidRequestError where it is no gzip, ShedError where it would be larger than `limit`."""
    inflating = zlib.decompressobj(_GZIP)
    try:
        plain = inflating.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidRequestError("body", "is not the gzip that its Content-Encoding says") from None
    if len(plain) > limit:
        raise ShedError(Refusal.TOO_LARGE)
    if not inflating.eof or inflating.unused_data:
        raise InvalidRequestError("body", "its gzip does not end where the body does")
    return plain


def wants_packed(headers: Headers) -> bool:
    """Whether the caller takes gzip: named, and not with a weight of 0."""
    for each in header(headers, b"accept-encoding").lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() in _PACKINGS:
            return _REFUSES.search(weight.strip()) is None
    return False


def packed(body: bytes) -> bytes:
    """As gzip."""
    # Without the time, equal answers are equal bytes.
    return gzip.compress(body, _LEVEL, mtime=0)
