"""Questions to messages and messages to answers: everything that a call is, but for the carrying. No I/O.

Reading fails closed: what is not a valid answer to just this question denies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import failures
from sark_pdp.client.answers import Answer, CheckBatch, Filter
from sark_pdp.client.failures import Failure
from sark_pdp.client.parameters import read_parameters
from sark_pdp.client.question import Question, copy, encode
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Json, Outcome, Seconds, Tier

T = TypeVar("T")

_RESOURCE_FIELDS = ("tool", "server", "resource", "prompt")

_LONGEST = 315_576_000_000
"""Seconds: what a `google.protobuf.Duration` holds, by its definition."""


class Method(StrEnum):
    """The methods that a client calls."""

    CHECK = "/sark.pdp.v1.PolicyDecision/Check"
    CHECK_BATCH = "/sark.pdp.v1.PolicyDecision/CheckBatch"
    FILTER = "/sark.pdp.v1.PolicyDecision/Filter"


class Exchange(Struct, Generic[T], frozen=True):
    """One call: what to send where, and what to make of how it ends."""

    method: Method
    message: bytes
    read: Callable[[bytes], T]
    """Of what came back; never raises."""
    refuse: Callable[[Failure], T]
    """The denial, where nothing came back."""


class Check(Exchange[Answer], frozen=True):
    """A call of `Check`, which may also travel with others."""

    question: Question


class _BadAnswerError(Exception):
    """What came back is no answer to the question."""


def check(question: Question) -> Check:
    """Raises InvalidRequestError for a question that cannot be sent."""

    def read(message: wire.CheckResponse) -> Answer:
        return _answer(question, message)

    def refuse(failure: Failure) -> Answer:
        return _denial(question, failure)

    made = _exchange(Method.CHECK, _request(question), wire.CheckResponse, read, refuse)
    return Check(made.method, made.message, made.read, made.refuse, question)


def coalesced(checks: Sequence[Check]) -> Exchange[Sequence[Answer] | Failure]:
    """Several in one call: an answer for each, in order, or why the call as a whole got none."""

    def read(message: wire.CheckBatchResponse) -> Sequence[Answer] | Failure:
        return _items([each.question for each in checks], message)

    def refuse(failure: Failure) -> Sequence[Answer] | Failure:
        return failure

    request = wire.CheckBatchRequest()
    for each in checks:
        request.checks.add().MergeFromString(each.message)
    return _exchange(Method.CHECK_BATCH, request, wire.CheckBatchResponse, read, refuse)


def check_many(questions: Iterable[Question]) -> Exchange[CheckBatch]:
    """Raises InvalidRequestError for a question that cannot be sent."""
    asked = tuple(questions)

    def read(message: wire.CheckBatchResponse) -> CheckBatch:
        return CheckBatch(_items(asked, message))

    def refuse(failure: Failure) -> CheckBatch:
        return CheckBatch(tuple(_denial(question, failure) for question in asked), failure.error)

    request = wire.CheckBatchRequest(checks=[_request(question) for question in asked])
    return _exchange(Method.CHECK_BATCH, request, wire.CheckBatchResponse, read, refuse)


def filter_resources(
    template: Question, resource_field: str, resources: Iterable[Mapping[str, Json]]
) -> Exchange[Filter]:
    """Raises InvalidRequestError for a question or a resource that cannot be sent."""
    if resource_field not in _RESOURCE_FIELDS:
        raise InvalidRequestError("resource_field", f"must be one of {_RESOURCE_FIELDS}, is {resource_field!r}")
    request = wire.FilterRequest(template=_request(template), resource_field=resource_field)
    for index, resource in enumerate(resources):
        request.resources.add().update(copy(f"resources[{index}]", resource))
    count = len(request.resources)

    def read(message: wire.FilterResponse) -> Filter:
        if len(message.responses) != count:
            raise _BadAnswerError(f"{len(message.responses)} responses for {count} resources")
        answers = tuple(_answer(template, response) for response in message.responses)
        allowed = tuple(message.allowed)
        if allowed != tuple(index for index, answer in enumerate(answers) if answer.allow):
            raise _BadAnswerError("the allowed indices contradict the responses")
        return Filter(allowed, answers)

    def refuse(failure: Failure) -> Filter:
        return Filter((), (_denial(template, failure),) * count, failure.error)

    return _exchange(Method.FILTER, request, wire.FilterResponse, read, refuse)


R = TypeVar("R", wire.CheckResponse, wire.CheckBatchResponse, wire.FilterResponse)


def _exchange(
    method: Method,
    request: wire.CheckRequest | wire.CheckBatchRequest | wire.FilterRequest,
    response: type[R],
    read: Callable[[R], T],
    refuse: Callable[[Failure], T],
) -> Exchange[T]:
    def read_bytes(message: bytes) -> T:
        try:
            return read(response.FromString(message))
        except (_BadAnswerError, DecodeError) as problem:
            return refuse(failures.bad_answer(str(problem)))

    return Exchange(method, request.SerializeToString(), read_bytes, refuse)


def _request(question: Question) -> wire.CheckRequest:
    document = encode("document", question.document)
    try:
        request = wire.CheckRequest(request_id=question.request_id, policy=question.policy, input_json=document)
    except (TypeError, ValueError) as problem:
        raise InvalidRequestError("request_id, policy", "must be text without lone surrogates") from problem
    if question.max_age is not None:
        if not 0 <= question.max_age <= _LONGEST:
            raise InvalidRequestError("max_age", f"must be a number of seconds from 0 on, is {question.max_age}")
        request.max_age.FromNanoseconds(int(question.max_age * 1e9))
    return request


def _denial(question: Question, failure: Failure) -> Answer:
    return Answer(allow=False, reason=failure.reason, request_id=question.request_id, error=failure.error)


def _items(questions: Sequence[Question], message: wire.CheckBatchResponse) -> tuple[Answer, ...]:
    if len(message.results) != len(questions):
        raise _BadAnswerError(f"{len(message.results)} results for {len(questions)} questions")
    return tuple(map(_item, questions, message.results))


def _item(question: Question, result: wire.CheckBatchResult) -> Answer:
    match result.WhichOneof("result"):
        case "response":
            try:
                return _answer(question, result.response)
            except _BadAnswerError as problem:
                return _denial(question, failures.bad_answer(str(problem)))
        case "error":
            return _denial(question, failures.of_number(result.error.code, result.error.message))
        case _:
            return _denial(question, failures.bad_answer("an empty result"))


def _answer(question: Question, message: wire.CheckResponse) -> Answer:
    if question.request_id and message.request_id != question.request_id:
        raise _BadAnswerError("it answers another request")
    try:
        outcome = Outcome(message.outcome)
        result = msgspec.json.decode(message.result_json) if message.result_json else None
        filtered = read_parameters(message.filtered_parameters, question.document.get("parameters"))
    except (ValueError, RecursionError) as problem:
        raise _BadAnswerError(str(problem)) from problem
    if message.allow != (outcome is Outcome.ALLOW):
        raise _BadAnswerError(f"allow is {message.allow} with outcome {outcome.name}")
    return Answer(
        allow=message.allow,
        reason=message.reason,
        outcome=outcome,
        tier=_TIERS.get(message.tier),
        decision_id=message.decision_id,
        policy_revision=message.policy_revision,
        result=result,
        filtered_parameters=filtered if message.HasField("filtered_parameters") else None,
        cache_ttl=Seconds(max(0.0, message.cache_ttl.ToNanoseconds() / 1e9)),
        request_id=message.request_id,
    )


_TIERS: dict[int, Tier] = {int(tier): tier for tier in Tier}
