"""Makes a `Request` of what a body says: what every endpoint that asks a policy shares."""

from typing import Final, TypeVar

import msgspec
from google.protobuf.duration_pb2 import Duration

from sark_pdp._proto.decision_pb2 import CheckRequest
from sark_pdp.decision.service import DecisionService
from sark_pdp.errors import InvalidRequestError
from sark_pdp.interfaces import PolicySet
from sark_pdp.model import Decision, Document, Json, Request
from sark_pdp.transport.bounds import has_more_values
from sark_pdp.transport.http.endpoint import Call
from sark_pdp.transport.questions import Questions

_MOST_AGE: Final = 315_576_000_000.0
"""Seconds: the most that a `google.protobuf.Duration` holds."""
_BATCHED: Final = 10
"""Times `limits.max_values`: what all documents of a batch may hold together."""

T = TypeVar("T")


class Control(msgspec.Struct, frozen=True):
    """What a body says besides its document, where it does."""

    policy: str | None = None
    request_id: str | None = None
    max_age: float | None = None
    """Seconds."""


NO_CONTROL: Final = Control()


class Asking:
    """Asks the decision service what a body asks, within the limits. Thread-safe."""

    def __init__(self, service: DecisionService, questions: Questions, max_batch: int, max_values: int) -> None:
        self.service = service
        self.documents = questions.documents
        self._questions = questions
        self._max_batch = max_batch
        self._max_values = max_values * _BATCHED

    def request(
        self,
        call: Call,
        document: Document,
        size: int,
        control: Control = NO_CONTROL,
        policies: PolicySet | None = None,
    ) -> Request:
        """`size` is that of the body, or its share of it. Raises RequestError."""
        check = CheckRequest(
            request_id=_sound("request_id", control.request_id or call.request_id),
            policy=_sound("policy", control.policy or ""),
        )
        if control.max_age is not None:
            check.max_age.CopyFrom(_duration(control.max_age))
        active = self.service.active() if policies is None else policies
        return self._questions.request_about(document, check, call.metadata, call.caller, active, size)

    def decide_nowait(self, request: Request) -> Decision | None:
        """The decision where it is known, or quickly made."""
        return self.service.decide_nowait(request)

    def decide(self, request: Request) -> Decision:
        """The decision; may wait."""
        return self.service.decide(request)

    def require_batch(self, field: str, length: int) -> None:
        """Raises InvalidRequestError for more items than a batch may have."""
        if length > self._max_batch:
            problem = f"{length} items are more than limits.max_batch allows ({self._max_batch})"
            raise InvalidRequestError(field, problem)

    def require_bounded(self, body: bytes) -> None:
        """Raises InvalidRequestError for a body of a batch that would take long to be read at all."""
        if has_more_values(body, self._max_values):
            raise InvalidRequestError(
                "body", f"more values than the documents of a batch may have ({self._max_values})"
            )


def decoded(decoder: "msgspec.json.Decoder[T]", field: str, text: bytes) -> T:
    """Raises InvalidRequestError naming `field` where it is not JSON, or of another shape."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(field, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(field, f"not valid JSON: {error}") from error
    except RecursionError:
        raise InvalidRequestError(field, "nested too deep") from None


def object_at(document: Document, field: str) -> Document | None:
    """An object of a document; None where it is absent or null. Raises InvalidRequestError for anything else."""
    value: Json = document.get(field)
    if value is not None and type(value) is not dict:
        raise InvalidRequestError(field, "not a JSON object")
    return value


def text_at(document: Document, field: str, within: str = "") -> str | None:
    """The same of a text, which must not be empty."""
    value: Json = document.get(field)
    if value is not None and (type(value) is not str or not value):
        raise InvalidRequestError(f"{within}{field}", "not a text" if type(value) is not str else "is empty")
    return value


def _sound(field: str, text: str) -> str:
    """Raises InvalidRequestError for what no other encoding could say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(field, "not valid Unicode") from None
    return text


def _duration(seconds: float) -> Duration:
    if not -_MOST_AGE <= seconds <= _MOST_AGE:
        raise InvalidRequestError("max_age", f"must be a number of seconds up to {_MOST_AGE:.0f}")
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
