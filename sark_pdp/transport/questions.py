"""What a call asks, and who asks it: a `Request` of a `CheckRequest` and of the metadata that came with it."""

from typing import TYPE_CHECKING, Final

from msgspec import Struct
from uuid_utils import uuid7

from sark_pdp._proto.decision_pb2 import CheckRequest
from sark_pdp.errors import InvalidRequestError
from sark_pdp.interfaces import PolicySet
from sark_pdp.model import Document, Request, Seconds
from sark_pdp.transport.documents import Documents
from sark_pdp.transport.handler import Metadata
from sark_pdp.transport.recent import Read, RecentDocuments
from sark_pdp.transport.trace import trace_of

if TYPE_CHECKING:
    from sark_pdp.transport.principal.principals import Principal, Principals

PROVEN: Final = "principal"
"""The member of `input` that tells who proved to be asking."""
MAX_NAME: Final = 512
"""Characters of a request id or of an entrypoint; they are echoed, logged and audited."""


class Caller(Struct, frozen=True):
    """What the metadata of a call say, whatever it asks."""

    trace: str = ""
    """The span that the call belongs to, as `traceparent` has it; empty where there is none."""
    principal: "Principal | None" = None
    """Who proved to be asking, in the place of whom the documents name; None: nobody did."""


_SILENT: Final = Caller()


class Questions:
    """Makes a `Request` of a `CheckRequest`."""

    def __init__(self, documents: Documents, default_entrypoint: str, principals: "Principals | None" = None) -> None:
        """With `principals`, the token of a call tells who its user is."""
        self.documents = documents
        self._recent = RecentDocuments(documents)
        self.wants_pairs = principals is not None and principals.takes_tokens
        """Whether it reads what the caller adds to a call."""
        self._default = default_entrypoint
        self._proves = principals is not None
        self._principals = principals if self.wants_pairs else None

    def caller(self, metadata: Metadata) -> Caller:
        """Once for a call, however much it asks. Raises UnauthenticatedError for a token that is not valid."""
        if not metadata.pairs:
            return _SILENT
        principal = None if self._principals is None else self._principals.of_call(metadata)
        return Caller(trace_of(metadata.pairs), principal)

    def request(
        self, check: CheckRequest, metadata: Metadata, caller: Caller, policies: PolicySet, size: int
    ) -> Request:
        """`size` is that of its message. Raises InvalidRequestError or UnknownEntrypointError."""
        document, read = self._recent.of_check(check)
        return self.request_about(document, check, metadata, caller, policies, size, read)

    def request_about(
        self,
        document: Document,
        check: CheckRequest,
        metadata: Metadata,
        caller: Caller,
        policies: PolicySet,
        size: int,
        read: Read | None = None,
    ) -> Request:
        """The same with a document of its own; `read` is what is known of it."""
        request_id = check.request_id
        policy = check.policy
        if len(request_id) > MAX_NAME:
            raise InvalidRequestError("request_id", f"longer than {MAX_NAME} characters")
        if len(policy) > MAX_NAME:
            raise InvalidRequestError("policy", f"longer than {MAX_NAME} characters")
        entrypoint = policies.entrypoint(policy or self._default)
        if caller.principal is not None:
            document, read = caller.principal.imposed_on(document), None
        elif self._proves and PROVEN in document:
            # It would look proven, and nobody proved it.
            document, read = {key: value for key, value in document.items() if key != PROVEN}, None
        return Request(
            entrypoint,
            document,
            request_id or str(uuid7()),
            metadata.deadline,
            _max_age(check) if check.HasField("max_age") else None,
            metadata.origin,
            None if read is None else read.projected_by(entrypoint.projection),
            size,
            None,
            False,  # noqa: FBT003 (by position: keywords cost as much again)
            caller.trace,
        )


def _max_age(check: CheckRequest) -> Seconds:
    seconds = check.max_age.seconds + check.max_age.nanos / 1e9
    if seconds < 0:
        raise InvalidRequestError("max_age", "is negative")
    return Seconds(seconds)
