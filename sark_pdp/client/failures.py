"""Why there is no decision: what goes wrong between a client and the decision point, in words."""

import grpc
from msgspec import Struct


class Failure(Struct, frozen=True):
    """A question that got no decision."""

    reason: str
    """For a person; it may be shown to the principal."""
    error: str
    """For a log: `STATUS: detail`."""


_REASONS = {
    grpc.StatusCode.UNAVAILABLE: "the policy decision point cannot be reached or is not ready",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the policy decision point did not answer in time",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the policy decision point refused the request for its load or size",
    grpc.StatusCode.INVALID_ARGUMENT: "the policy decision point refused the request as malformed",
    grpc.StatusCode.NOT_FOUND: "the policy decision point has no such policy",
    grpc.StatusCode.UNAUTHENTICATED: "the policy decision point does not accept this client",
    grpc.StatusCode.PERMISSION_DENIED: "the policy decision point does not accept this client",
    grpc.StatusCode.UNIMPLEMENTED: "the server that was asked is no policy decision point",
    grpc.StatusCode.CANCELLED: "the question was cancelled before it was answered",
}

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

CLOSED = Failure("the client of the policy decision point is closed", "CLOSED: close() was called on this client")

FORKED = Failure(
    "the client of the policy decision point does not survive a fork",
    "FORKED: this client connected before the process forked; make one in the child, before any call in the parent",
)

OTHER_LOOP = Failure(
    "the client of the policy decision point belongs to another event loop",
    "OTHER_LOOP: this client connected in another event loop; make one in each loop",
)


LATE = Failure(
    _REASONS[grpc.StatusCode.DEADLINE_EXCEEDED], "DEADLINE_EXCEEDED: no answer within the timeout of the question"
)

_REFUSES_BATCHES = (grpc.StatusCode.INVALID_ARGUMENT.name, grpc.StatusCode.UNIMPLEMENTED.name)


def refuses_batches(failure: Failure) -> bool:
    """Whether a batch was refused as such, before anything in it was decided: it has too many items, or is unknown."""
    return failure.error.partition(":")[0] in _REFUSES_BATCHES


def of_status(code: grpc.StatusCode, details: str | None) -> Failure:
    """A call that ended with a status other than OK."""
    return Failure(
        _REASONS.get(code, "the policy decision point failed"),
        f"{code.name}: {details}" if details else code.name,
    )


def of_number(code: int, details: str) -> Failure:
    """The same for a status that came as a number, in a message."""
    return of_status(_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN), details)


def bad_answer(problem: str) -> Failure:
    """A call that ended well, with something that is no answer to the question."""
    return Failure("the policy decision point gave no valid answer", f"BAD_ANSWER: {problem}")
