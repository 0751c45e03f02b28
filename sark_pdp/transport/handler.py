"""The seam between what carries a call (a gRPC server) and what answers it: bytes in, bytes out."""

from collections.abc import Iterator, Mapping
from enum import Enum, IntEnum
from typing import Protocol

from msgspec import Struct

from sark_pdp.errors import (
    DeadlineExceededError,
    EntrypointNotAllowedError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnauthenticatedError,
    UnknownEntrypointError,
)
from sark_pdp.model import NO_DEADLINE, Deadline, Origin

Pairs = tuple[tuple[str, str | bytes], ...]
"""Metadata: lower-case names; values are bytes where the name ends in `-bin`."""

RETRY_PUSHBACK: Pairs = (("grpc-retry-pushback-ms", "1000"),)
"""Tells a client's retry policy to wait; the proposal A6 of gRPC names it."""


class Status(IntEnum):
    """The gRPC status codes that this process answers with."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Reply(Struct, frozen=True, gc=False):
    """One message, or a status that is not OK."""

    message: bytes = b""
    status: Status = Status.OK
    details: str = ""
    initial: Pairs = ()
    trailing: Pairs = ()


class Metadata(Struct, frozen=True):
    """What came with a call, as far as the carrier can tell."""

    deadline: Deadline = NO_DEADLINE
    origin: Origin = Origin()
    pairs: Pairs = ()
    """What the caller added, and its `user-agent`, for a method that wants it (`wants_pairs`); for any other no more
    than `traceparent`."""


class Refusal(Enum):
    """Why a call is refused before anything looks at its message."""

    TOO_MANY_CALLS = (
        "as many calls are in flight as limits.max_concurrent allows, or streams as the transport carries; try again"
    )
    TOO_MANY_BYTES = "limits.in_flight_bytes are in flight; try again, or send less at once"
    TOO_LARGE = "the message is larger than limits.max_message_bytes"
    INTERNAL = "the decision point failed; its log has the reason"


class Kind(Enum):
    """How many messages travel each way."""

    UNARY = "unary"
    STREAM = "bidi_stream"
    """A sequence of messages, each answered, in order."""
    WATCH = "server_stream"
    """One message is answered with many."""


class Method(Protocol):
    """Answers the messages of one gRPC method. Thread-safe."""

    kind: Kind

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """The answer where it can be given without waiting; None: call `answer` on a thread that may wait."""

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """The answer; waits for caches, databases and slow policies."""

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        """Only of Kind.WATCH: the answers as they come; None, about once a second, lets the carrier see whether the
        caller is still there."""

    def refusal(self, reason: Refusal) -> Reply:
        """What to say without looking at the message."""


def wants_pairs(method: Method) -> bool:
    """Whether the method reads `Metadata.pairs`: one that says `wants_pairs = True`. Nobody else pays for them."""
    return getattr(method, "wants_pairs", False)


Methods = Mapping[str, Method]
"""By full name, as in `/sark.pdp.v1.PolicyDecision/Check`."""


def status_of(error: RequestError) -> Status:
    """The gRPC status that a native caller sees for a call that got no decision."""
    match error:
        case InvalidRequestError():
            return Status.INVALID_ARGUMENT
        case UnknownEntrypointError() | EntrypointNotAllowedError():
            return Status.NOT_FOUND
        case UnauthenticatedError():
            return Status.UNAUTHENTICATED
        case NotReadyError():
            return Status.UNAVAILABLE
        case OverloadedError():
            return Status.RESOURCE_EXHAUSTED
        case DeadlineExceededError():
            return Status.DEADLINE_EXCEEDED
        case _:
            return Status.INTERNAL


def refused(error: RequestError) -> Reply:
    """The native answer to a call that got no decision."""
    status = status_of(error)
    return Reply(
        status=status,
        details=str(error),
        trailing=RETRY_PUSHBACK if status is Status.RESOURCE_EXHAUSTED else (),
    )
