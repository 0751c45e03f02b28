"""The method `envoy.service.auth.v3.Authorization/Check`."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf.message import DecodeError
from uuid_utils import uuid7

from sark_pdp.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnauthenticatedError,
    UnknownEntrypointError,
)
from sark_pdp.interfaces import Decider, PolicySource
from sark_pdp.model import Entrypoint, Request
from sark_pdp.transport.ext_authz.answers import Answers, denied
from sark_pdp.transport.ext_authz.document import InputReader
from sark_pdp.transport.handler import Kind, Metadata, Refusal, Reply, Status, status_of
from sark_pdp.transport.trace import trace_of

if TYPE_CHECKING:
    from sark_pdp.transport.principal.principals import Principals

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"

# Longer messages take too long to read for a thread that many callers wait for.
_INLINE_BYTES: Final = 16 * 1024

_log = logging.getLogger(__name__)


class Decisions(Decider, PolicySource, Protocol):
    """The decision service."""

    @property
    def recording(self) -> bool:
        """Whether what a request says of its origin is told to anybody."""


class ExtAuthz:
    """Answers Envoy. Each reply has the status OK and holds a `CheckResponse`, which denies where anything failed."""

    kind = Kind.UNARY

    def __init__(
        self,
        decisions: Decisions,
        answers: Answers,
        entrypoint: str,
        *,
        max_input_bytes: int,
        max_depth: int,
        max_values: int,
        principals: "Principals | None" = None,
    ) -> None:
        """`entrypoint` is asked every time; `max_depth` counts the objects and arrays of the input, itself included.

        `max_values` are those of a body that is parsed. With `principals`, they tell who the user of a request is.
        """
        self._decisions = decisions
        self._entrypoint = entrypoint
        self._max_input_bytes = max_input_bytes
        self._max_depth = max_depth
        self._max_values = max_values
        self._answers = answers
        self._principals = principals
        # Replaced with the policy revision, by whichever thread meets it first.
        self._reader: tuple[Entrypoint, InputReader] | None = None

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """As `answer`, where the decision is known and the message is short."""
        if len(message) > min(_INLINE_BYTES, self._max_input_bytes):
            return None
        try:
            request = self._request(metadata, message)
            decision = self._decisions.decide_nowait(request)
            if decision is None:
                return None
            return Reply(self._answers.encode(decision, request.entrypoint.revision, request.document))
        except RequestError as error:
            return _refused(error)
        except Exception:  # noqa: BLE001  # whatever it was, Envoy gets a denial
            _log.exception("a call of Envoy failed")
            return self.refusal(Refusal.INTERNAL)

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """The decision as a `CheckResponse`."""
        if len(message) > self._max_input_bytes:
            return _TOO_LARGE
        try:
            request = self._request(metadata, message)
            decision = self._decisions.decide(request)
            return Reply(self._answers.encode(decision, request.entrypoint.revision, request.document))
        except RequestError as error:
            return _refused(error)
        except Exception:  # noqa: BLE001  # whatever it was, Envoy gets a denial
            _log.exception("a call of Envoy failed")
            return self.refusal(Refusal.INTERNAL)

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply]:
        """Not of this kind."""
        raise NotImplementedError

    def refusal(self, reason: Refusal) -> Reply:
        """A denial for this reason."""
        match reason:
            case Refusal.INTERNAL:
                return _reply(denied(500, Status.INTERNAL, "the request could not be authorized", reason.value))
            case Refusal.TOO_LARGE:
                return _TOO_LARGE
            case _:
                return _refused(OverloadedError(reason.value))

    def _request(self, metadata: Metadata, message: bytes) -> Request:
        entrypoint = self._decisions.entrypoint(self._entrypoint)
        try:
            check = CheckRequest.FromString(message)
        except DecodeError:
            raise InvalidRequestError("message", "it is no envoy.service.auth.v3.CheckRequest") from None
        read = self._reader_of(entrypoint).read(check.attributes)
        document, projected = read.document, read.projected
        if self._principals is not None:
            source = check.attributes.source
            address = source.address.socket_address.address
            document = self._principals.imposed_on_http(
                document, read.headers, source.principal, address, metadata.origin
            )
            projected = None
        # By position: keywords cost as much again.
        return Request(
            entrypoint,
            document,
            read.request_id or str(uuid7()),
            metadata.deadline,
            None,
            read.origin,
            projected,
            len(message),
            None,
            False,  # noqa: FBT003
            read.trace_id or (trace_of(metadata.pairs) if metadata.pairs else ""),
        )

    def _reader_of(self, entrypoint: Entrypoint) -> InputReader:
        known = self._reader
        if known is None or known[0] is not entrypoint:
            reader = InputReader(
                entrypoint.projection, self._max_depth, self._max_values, recorded=self._decisions.recording
            )
            known = self._reader = (entrypoint, reader)
        return known[1]


def _refused(error: RequestError) -> Reply:
    """A denial. What only tells of this process's inside stays in the status, which Envoy does not pass on."""
    code = status_of(error)
    match error:
        case InvalidRequestError():
            return _reply(denied(400, code, str(error)))
        case UnauthenticatedError():
            proof = {"www-authenticate": 'Bearer error="invalid_token"'}
            return _reply(denied(401, code, str(error), headers=proof))
        case OverloadedError():
            text = "too many requests are being authorized; try again"
            return _reply(denied(429, code, text, str(error), headers={"retry-after": "1"}))
        case DeadlineExceededError():
            return _reply(denied(504, code, "the request was not authorized in time", str(error)))
        case NotReadyError() | UnknownEntrypointError():
            return _reply(denied(503, code, "no policy that could authorize requests is active", str(error)))
        case _:
            return _reply(denied(500, code, "the request could not be authorized", str(error)))


def _reply(response: CheckResponse) -> Reply:
    return Reply(message=response.SerializeToString())


_TOO_LARGE: Final = _reply(denied(413, Status.INVALID_ARGUMENT, "the request is too large to be authorized"))
