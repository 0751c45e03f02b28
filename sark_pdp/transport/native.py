"""`sark.pdp.v1.PolicyDecision`: requests from its messages, its messages from decisions."""

from typing import Final

from uuid_utils import uuid7

from sark_pdp._proto.decision_pb2 import (
    CheckBatchRequest,
    CheckBatchResponse,
    CheckBatchResult,
    CheckRequest,
    CheckResponse,
    FilterRequest,
    FilterResponse,
)
from sark_pdp.decision.service import DecisionService
from sark_pdp.errors import InvalidRequestError, RequestError
from sark_pdp.model import Decision, Outcome, Request
from sark_pdp.transport.handler import Kind, Metadata, Method, Refusal, Reply, status_of
from sark_pdp.transport.method import NativeMethod, parsed
from sark_pdp.transport.questions import MAX_NAME, Questions
from sark_pdp.transport.responses import Responses
from sark_pdp.transport.wire import embedded, tag

SERVICE: Final = "sark.pdp.v1.PolicyDecision"

_INLINE_BYTES: Final = 16 * 1024
"""A larger message is not looked at where nothing may wait."""
_RESOURCE_FIELDS: Final = ("tool", "server", "resource", "prompt")

_RESULTS: Final = tag(CheckBatchResponse.RESULTS_FIELD_NUMBER)
_RESPONSE: Final = tag(CheckBatchResult.RESPONSE_FIELD_NUMBER)
_RESPONSES: Final = tag(FilterResponse.RESPONSES_FIELD_NUMBER)


class Check(NativeMethod):
    """One request, one answer."""

    def __init__(self, service: DecisionService, questions: Questions, responses: Responses) -> None:
        self._service = service
        self._questions = questions
        self.wants_pairs = questions.wants_pairs
        self._responses = responses

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """The answer where it is known; an error is known at once, too."""
        if len(message) > _INLINE_BYTES:
            return None
        try:
            request = self._request(metadata, message)
            decision = self._service.decide_nowait(request)
            return None if decision is None else Reply(self._responses.encode(request, decision))
        except RequestError as error:
            return self._refused(error, message)

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        request = self._request(metadata, message)
        return self._responses.encode(request, self._service.decide(request))

    def _request(self, metadata: Metadata, message: bytes) -> Request:
        check = parsed(CheckRequest, message)
        caller = self._questions.caller(metadata)
        return self._questions.request(check, metadata, caller, self._service.active(), len(message))


class CheckBatch(NativeMethod):
    """Many requests, answered by one activation."""

    def __init__(self, service: DecisionService, questions: Questions, responses: Responses, max_batch: int) -> None:
        self._service = service
        self._questions = questions
        self.wants_pairs = questions.wants_pairs
        self._responses = responses
        self._max_batch = max_batch

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        batch = parsed(CheckBatchRequest, message)
        _check_length("checks", len(batch.checks), self._max_batch)
        caller = self._questions.caller(metadata)
        policies = self._service.active()
        # Each counts the same share, whichever of them it is that is large.
        share = len(message) // max(len(batch.checks), 1)
        request = self._questions.request
        asked: list[Request | RequestError] = []
        for check in batch.checks:
            try:
                asked.append(request(check, metadata, caller, policies, share))
            except RequestError as error:
                asked.append(error)
        answers = iter(self._service.decide_many([each for each in asked if isinstance(each, Request)]))
        return b"".join(
            embedded(_RESULTS, self._result(each, next(answers)) if isinstance(each, Request) else _failed(each))
            for each in asked
        )

    def _result(self, request: Request, answered: Decision | RequestError) -> bytes:
        if not isinstance(answered, Decision):
            return _failed(answered)
        try:
            return embedded(_RESPONSE, self._responses.encode(request, answered))
        except RequestError as error:
            return _failed(error)


def _failed(error: RequestError) -> bytes:
    result = CheckBatchResult()
    result.error.code = status_of(error)
    result.error.message = str(error)
    return result.SerializeToString()


class CheckStream(Check):
    """Requests that are answered in order for as long as the caller likes."""

    kind = Kind.STREAM

    def refusal(self, reason: Refusal) -> Reply:
        """A status where the stream is refused as a whole, else an answer: it says so of one message."""
        if reason is Refusal.TOO_MANY_CALLS:
            return super().refusal(reason)
        return Reply(_no_decision("", reason.value))

    def _refused(self, error: RequestError, message: bytes) -> Reply:
        return Reply(_no_decision(_request_id(message), str(error)))


def _no_decision(request_id: str, reason: str) -> bytes:
    return CheckResponse(
        request_id=request_id,
        reason=reason,
        outcome=int(Outcome.ERROR),  # type: ignore[arg-type]  # numbered alike
    ).SerializeToString()


def _request_id(message: bytes) -> str:
    try:
        return parsed(CheckRequest, message).request_id[:MAX_NAME]
    except InvalidRequestError:
        return ""


class Filter(NativeMethod):
    """One principal and action, many resources, one audit event."""

    def __init__(self, service: DecisionService, questions: Questions, responses: Responses, max_batch: int) -> None:
        self._service = service
        self._questions = questions
        self.wants_pairs = questions.wants_pairs
        self._responses = responses
        self._max_batch = max_batch

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        asked = parsed(FilterRequest, message)
        requests = self._requests(asked, metadata, len(message))
        if not requests:
            return b""
        decisions = self._service.filter(asked.resource_field, requests)
        allowed = [i for i, decision in enumerate(decisions) if decision.verdict.outcome is Outcome.ALLOW]
        responses = [
            embedded(_RESPONSES, self._responses.encode(request, decision))
            for request, decision in zip(requests, decisions, strict=True)
        ]
        return b"".join((FilterResponse(allowed=allowed).SerializeToString(), *responses))

    def _requests(self, asked: FilterRequest, metadata: Metadata, size: int) -> tuple[Request, ...]:
        if asked.resource_field not in _RESOURCE_FIELDS:
            raise InvalidRequestError("resource_field", f"must be one of {', '.join(_RESOURCE_FIELDS)}")
        if not asked.HasField("template"):
            raise InvalidRequestError("template", "is missing")
        _check_length("resources", len(asked.resources), self._max_batch)
        documents = self._questions.documents
        template = documents.of_check(asked.template)
        caller, policies = self._questions.caller(metadata), self._service.active()
        # One id for all: they are one request.
        asked.template.request_id = asked.template.request_id or str(uuid7())
        return tuple(
            self._questions.request_about(
                {**template, asked.resource_field: documents.resource(f"resources[{index}]", resource)},
                asked.template,
                metadata,
                caller,
                policies,
                size // len(asked.resources),
            )
            for index, resource in enumerate(asked.resources)
        )


def _check_length(field: str, length: int, limit: int) -> None:
    if length > limit:
        raise InvalidRequestError(field, f"{length} items are more than limits.max_batch allows ({limit})")


def methods(service: DecisionService, questions: Questions, max_batch: int) -> dict[str, Method]:
    """The methods of the service by full name."""
    responses = Responses()
    return {
        f"/{SERVICE}/Check": Check(service, questions, responses),
        f"/{SERVICE}/CheckBatch": CheckBatch(service, questions, responses, max_batch),
        f"/{SERVICE}/CheckStream": CheckStream(service, questions, responses),
        f"/{SERVICE}/Filter": Filter(service, questions, responses, max_batch),
    }
