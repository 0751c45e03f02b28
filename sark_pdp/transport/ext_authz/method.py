"""The method `envoy.service.auth.v3.Authorization/Check`."""

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from google.protobuf.message import DecodeError
from uuid_utils import uuid7

from sark_pdp.errors import EntrypointNotAllowedError, InvalidRequestError, RequestError, WouldWaitError
from sark_pdp.interfaces import Decider, PolicySource
from sark_pdp.model import Entrypoint, Request
from sark_pdp.transport.ext_authz.answers import Answers
from sark_pdp.transport.ext_authz.bodies import Bodies, Messages
from sark_pdp.transport.ext_authz.document import InputReader
from sark_pdp.transport.ext_authz.refusals import Refusals
from sark_pdp.transport.handler import Kind, Metadata, Refusal, Reply
from sark_pdp.transport.trace import trace_of

if TYPE_CHECKING:
    from sark_pdp.transport.principal.principals import Principals

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"

# Longer messages take too long to read for a thread that many callers wait for.
_INLINE_BYTES: Final = 16 * 1024

# With this context extension a route of Envoy names the entrypoint that is asked.
_NAMED: Final = "sark_entrypoint"

_log = logging.getLogger(__name__)


class Decisions(Decider, PolicySource, Protocol):
    """The decision service."""

    @property
    def recording(self) -> bool:
        """Whether what a request says of its origin is told to anybody."""


class ExtAuthz:
    """Answers Envoy. Each reply has the status OK and holds a `CheckResponse`, which denies where anything failed.

    What may be told otherwise, `refusals` say.
    """

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
        allowed: Collection[str] = (),
        refusals: Refusals | None = None,
        parse_body: bool = True,
        messages: Messages | None = None,
        principals: "Principals | None" = None,
    ) -> None:
        """`entrypoint` is asked, or that of `allowed` which the route names.

        `max_depth` counts the objects and arrays of the input, itself included; `max_values` are those of a body that
        is parsed; `messages` know those of gRPC. With `principals`, they tell who the user of a request is.
        """
        self._decisions = decisions
        self._entrypoint = entrypoint
        self._allowed = frozenset(allowed) | {entrypoint}
        self._max_input_bytes = max_input_bytes
        self._inline_bytes = min(_INLINE_BYTES, max_input_bytes)
        self._max_depth = max_depth
        # Below the document.
        self._bodies = Bodies(max_depth - 1, max_values, messages) if parse_body else None
        self._answers = answers
        self._refusals = refusals or Refusals()
        self._principals = principals
        # Replaced with the policy revision, by whichever thread meets it first.
        self._readers: dict[str, tuple[Entrypoint, InputReader]] = {}

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """As `answer`, where the decision is known and the message is short."""
        if len(message) > self._inline_bytes:
            return None
        try:
            request = self._request(metadata, message, at_once=True)
            decision = self._decisions.decide_nowait(request)
            if decision is None:
                return None
            return Reply(self._answers.encode(decision, request.entrypoint.revision, request.document))
        except RequestError as error:
            return self._refusals.of(error)
        except WouldWaitError:
            return None
        except Exception:  # noqa: BLE001  # whatever it was, Envoy gets a denial
            _log.exception("a call of Envoy failed")
            return self.refusal(Refusal.INTERNAL)

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """The decision as a `CheckResponse`."""
        if len(message) > self._max_input_bytes:
            return self._refusals.too_large
        try:
            request = self._request(metadata, message)
            decision = self._decisions.decide(request)
            return Reply(self._answers.encode(decision, request.entrypoint.revision, request.document))
        except RequestError as error:
            return self._refusals.of(error)
        except Exception:  # noqa: BLE001  # whatever it was, Envoy gets a denial
            _log.exception("a call of Envoy failed")
            return self.refusal(Refusal.INTERNAL)

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply]:
        """Not of this kind."""
        raise NotImplementedError

    def refusal(self, reason: Refusal) -> Reply:
        """A denial for this reason."""
        return self._refusals.unread(reason)

    def _request(self, metadata: Metadata, message: bytes, *, at_once: bool = False) -> Request:
        try:
            check = CheckRequest.FromString(message)
        except DecodeError:
            raise InvalidRequestError("message", "it is no envoy.service.auth.v3.CheckRequest") from None
        attributes = check.attributes
        name = self._entrypoint
        if _NAMED in attributes.context_extensions:
            name = attributes.context_extensions[_NAMED]
            if name not in self._allowed:
                raise EntrypointNotAllowedError(name)
        entrypoint = self._decisions.entrypoint(name)
        known = self._readers.get(name)
        if known is None or known[0] is not entrypoint:
            known = self._learn(name, entrypoint)
        read = known[1].read(attributes, at_once=at_once)
        document, projected = read.document, read.projected
        if self._principals is not None:
            source = attributes.source
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
            read.trace or (trace_of(metadata.pairs) if metadata.pairs else ""),
        )

    def _learn(self, name: str, entrypoint: Entrypoint) -> tuple[Entrypoint, InputReader]:
        recorded = self._decisions.recording
        reader = InputReader(entrypoint.projection, self._bodies, self._max_depth, recorded=recorded)
        known = self._readers[name] = (entrypoint, reader)
        return known
