"""What HTTP says of a request that got no decision: one shape for all, made here and nowhere else."""

from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from sark_pdp.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnauthenticatedError,
    UnknownEntrypointError,
)
from sark_pdp.transport.handler import Refusal

Fields = tuple[tuple[bytes, bytes], ...]
"""Headers of an answer."""

_CHALLENGE: Final[Fields] = ((b"www-authenticate", b'Bearer error="invalid_token"'),)
RETRY_LATER: Final[Fields] = ((b"retry-after", b"1"),)


class Problem(Struct, frozen=True):
    """The body of every answer that is not 200."""

    code: str
    """For programs, as in `invalid_parameter`."""
    message: str
    """One sentence for people."""


class Refused(Struct, frozen=True):
    """An answer that is not 200."""

    status: HTTPStatus
    problem: Problem
    headers: Fields = ()

    @property
    def body(self) -> bytes:
        """As JSON."""
        return encoded(self.problem)


_encode = msgspec.json.Encoder().encode


def encoded(problem: Problem) -> bytes:
    """As JSON, whatever a stranger's words in it hold."""
    try:
        return _encode(problem)
    except UnicodeEncodeError:
        return _encode(Problem(problem.code, problem.message.encode(errors="replace").decode()))


_INTERNAL: Final = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, Problem("internal_error", Refusal.INTERNAL.value))


def refused(error: RequestError) -> Refused:
    """The answer to a request that got no decision."""
    match error:
        case InvalidRequestError():
            return Refused(HTTPStatus.BAD_REQUEST, Problem("invalid_parameter", str(error)))
        case UnknownEntrypointError():
            return Refused(HTTPStatus.NOT_FOUND, Problem("resource_not_found", str(error)))
        case UnauthenticatedError():
            return Refused(HTTPStatus.UNAUTHORIZED, Problem("unauthenticated", str(error)), _CHALLENGE)
        case NotReadyError():
            return Refused(HTTPStatus.SERVICE_UNAVAILABLE, Problem("unavailable", str(error)), RETRY_LATER)
        case OverloadedError():
            return Refused(HTTPStatus.TOO_MANY_REQUESTS, Problem("overloaded", str(error)), RETRY_LATER)
        case DeadlineExceededError():
            return Refused(HTTPStatus.GATEWAY_TIMEOUT, Problem("deadline_exceeded", str(error)))
        case _:
            return _INTERNAL


def shed(reason: Refusal) -> Refused:
    """The answer to a request that was not looked at."""
    match reason:
        case Refusal.INTERNAL:
            return _INTERNAL
        case Refusal.TOO_LARGE:
            message = "the body is larger than limits.max_message_bytes"
            return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Problem("too_large", message))
        case Refusal.TOO_MANY_CALLS:
            message = "as many requests are in flight as limits.max_concurrent allows; try again"
            return Refused(HTTPStatus.TOO_MANY_REQUESTS, Problem("overloaded", message), RETRY_LATER)
        case Refusal.TOO_MANY_BYTES:
            return Refused(HTTPStatus.TOO_MANY_REQUESTS, Problem("overloaded", reason.value), RETRY_LATER)
