"""`/api/v1/policy/evaluate` and `batch-evaluate`: `Check` and `CheckBatch` as JSON, in SARK's words too."""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sark_pdp.errors import InvalidRequestError, RequestError
from sark_pdp.interfaces import PolicySet
from sark_pdp.model import Decision, Document, Request
from sark_pdp.transport.http.answers import BatchAnswer, CheckAnswer, FailedItem, check_answer, encode
from sark_pdp.transport.http.asking import Asking, Control, decoded, object_at, text_at
from sark_pdp.transport.http.endpoint import Call
from sark_pdp.transport.http.errors import refused
from sark_pdp.transport.http.single import Single

_CONTROL: Final = ("policy", "request_id", "max_age")
_SHORTHANDS: Final = (("user_id", "user", "id"), ("server_id", "server", "id"))
"""SARK's flat fields, and what they become."""
_NAMED: Final = ("tool", "server")
"""Objects that may be given by name alone."""


class _Envelope(Control, frozen=True):
    """A body: control, and the document as `input`, or else beside it."""

    input: Raw | UnsetType = UNSET


class _Batch(Struct, frozen=True):
    """Many bodies, under either name."""

    checks: list[Raw] | None = None
    requests: list[Raw] | None = None


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_lists: Final = msgspec.json.Decoder(list[Raw])
_batches: Final = msgspec.json.Decoder(_Batch)


class Evaluate(Single):
    """One question."""

    path = "/api/v1/policy/evaluate"

    def _request(self, call: Call, body: bytes) -> Request:
        return question(self._asking, call, "body", body, len(body))

    def _encoded(self, request: Request, decision: Decision) -> bytes:
        return encode(check_answer(request, decision))


class BatchEvaluate:
    """Many questions, answered by one activation. One that is malformed fails alone."""

    path = "/api/v1/policy/batch-evaluate"
    method = "POST"

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        """Never: many answers would hold up the others."""
        del call, body
        return None

    def answer(self, call: Call, body: bytes) -> bytes:
        """A list is answered with a list, an object with an object."""
        self._asking.require_bounded(body)
        is_list = body.lstrip(b" \t\r\n").startswith(b"[")
        field, items = ("body", decoded(_lists, "body", body)) if is_list else _named(decoded(_batches, "body", body))
        self._asking.require_batch(field, len(items))
        results = self._results(call, field, items, len(body) // max(len(items), 1))
        return encode(results if is_list else BatchAnswer(results))

    def _results(self, call: Call, field: str, items: list[Raw], share: int) -> list[CheckAnswer | FailedItem]:
        policies = self._asking.service.active()
        asked = [
            self._question(call, f"{field}[{index}]", bytes(item), share, policies) for index, item in enumerate(items)
        ]
        answers = iter(self._asking.service.decide_many([each for each in asked if isinstance(each, Request)]))
        return [_result(each, next(answers)) if isinstance(each, Request) else _failed(each) for each in asked]

    def _question(self, call: Call, field: str, item: bytes, share: int, policies: PolicySet) -> Request | RequestError:
        try:
            return question(self._asking, call, field, item, share, policies)
        except RequestError as error:
            return error


def question(
    asking: Asking, call: Call, field: str, text: bytes, size: int, policies: PolicySet | None = None
) -> Request:
    """What one body asks; `field` is what to call it. Raises RequestError."""
    try:
        envelope = _envelopes.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # It is refused below, by the document's own limits first; or for its control.
        asking.documents.from_json(field, text)
        envelope = decoded(_envelopes, field, text)
    if envelope.input is not UNSET:
        # Its documents have no shorthands: they are what the policy sees.
        document = asking.documents.from_json("input", bytes(envelope.input))
    else:
        document = asking.documents.from_json(field, text)
        for name in _CONTROL:
            document.pop(name, None)
        document = spelled_out(document)
    return asking.request(call, document, size, envelope, policies)


def spelled_out(document: Document) -> Document:
    """With `user_id` as `user.id`, and a `tool` that is a text as `tool.name`."""
    for name in _NAMED:
        if type(document.get(name)) is str:
            document[name] = {"name": text_at(document, name)}
    for flat, object_name, field in _SHORTHANDS:
        value = text_at(document, flat)
        document.pop(flat, None)
        if value is not None:
            document[object_name] = agreeing(document, flat, object_name, field, value)
    return document


def agreeing(document: Document, flat: str, object_name: str, field: str, value: str) -> Document:
    """An object of the document with what `flat` says of it. Raises InvalidRequestError where it says otherwise."""
    stated = object_at(document, object_name) or {}
    if stated.get(field, value) != value:
        raise InvalidRequestError(flat, f"says otherwise than {object_name}.{field}")
    return {**stated, field: value}


def _named(batch: _Batch) -> tuple[str, list[Raw]]:
    if batch.checks is not None:
        return "checks", batch.checks
    if batch.requests is not None:
        return "requests", batch.requests
    raise InvalidRequestError("checks", "is missing; a list of requests alone will do, too")


def _result(request: Request, answered: Decision | RequestError) -> CheckAnswer | FailedItem:
    return check_answer(request, answered) if isinstance(answered, Decision) else _failed(answered)


def _failed(error: RequestError) -> FailedItem:
    problem = refused(error).problem
    return FailedItem(problem, problem.message)
