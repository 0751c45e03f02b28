"""What all native gRPC methods share: errors become statuses here, and nowhere else."""

import logging
from collections.abc import Iterator
from typing import NoReturn, TypeVar

from google.protobuf.message import DecodeError, Message

from sark_pdp.errors import InvalidRequestError, RequestError
from sark_pdp.transport.handler import RETRY_PUSHBACK, Kind, Metadata, Refusal, Reply, Status, refused

_log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


class NativeMethod:
    """A `Method` whose `_answer` returns the bytes of the answer or raises."""

    kind = Kind.UNARY

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """None unless a method knows better."""
        del metadata, message
        return None

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """`_answer` with its errors translated."""
        try:
            return Reply(self._answer(metadata, message))
        except RequestError as error:
            return self._refused(error, message)
        except Exception:  # noqa: BLE001  # one call fails, not the process
            _log.exception("a call failed", extra={"method": type(self).__name__})
            return self.refusal(Refusal.INTERNAL)

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        """Not for this kind of method."""
        raise NotImplementedError

    def refusal(self, reason: Refusal) -> Reply:
        """RESOURCE_EXHAUSTED with a pushback, or INTERNAL."""
        if reason is Refusal.INTERNAL:
            return Reply(status=Status.INTERNAL, details=reason.value)
        if reason is Refusal.TOO_LARGE:
            return Reply(status=Status.INVALID_ARGUMENT, details=f"message: {reason.value}")
        return Reply(status=Status.RESOURCE_EXHAUSTED, details=reason.value, trailing=RETRY_PUSHBACK)

    def _refused(self, error: RequestError, message: bytes) -> Reply:
        """What to say to a message that gets no decision."""
        del message
        return refused(error)

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        raise NotImplementedError


def parsed(kind: type[M], message: bytes) -> M:
    """The message; raises InvalidRequestError where the bytes are none."""
    try:
        return kind.FromString(message)
    except DecodeError:
        _refuse_message(kind)


def _refuse_message(kind: type[Message]) -> NoReturn:
    raise InvalidRequestError("message", f"the bytes are not a {kind.DESCRIPTOR.full_name}") from None
