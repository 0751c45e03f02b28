"""OpenID AuthZEN's Authorization API 1.0: `/access/v1/evaluation`, `/access/v1/evaluations` and its metadata.

<https://openid.net/specs/authorization-api-1_0.html>
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sark_pdp.errors import InvalidRequestError, RequestError
from sark_pdp.interfaces import PolicySet
from sark_pdp.model import Decision, Document, Request
from sark_pdp.transport.http.answers import (
    EvaluationAnswer,
    EvaluationContext,
    EvaluationError,
    EvaluationsAnswer,
    encode,
    evaluation_answer,
)
from sark_pdp.transport.http.asking import Asking, decoded, object_at, text_at
from sark_pdp.transport.http.endpoint import Call
from sark_pdp.transport.http.errors import refused
from sark_pdp.transport.http.single import Single

_PARTS: Final = ("subject", "action", "resource", "context")
_TARGETS: Final = {"tool": "tool", "server": "server", "agent": "target_agent"}
"""Types of resources, and where our policies look for them."""

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]


class _Options(Struct, frozen=True):
    """How several evaluations are made."""

    evaluations_semantic: Semantic = "execute_all"


class _Evaluations(Struct, frozen=True):
    """A body with several evaluations, and what holds for those that do not say otherwise."""

    subject: Raw | UnsetType = UNSET
    action: Raw | UnsetType = UNSET
    resource: Raw | UnsetType = UNSET
    context: Raw | UnsetType = UNSET
    evaluations: list[Raw] | None = None
    options: _Options | None = None


_bodies: Final = msgspec.json.Decoder(_Evaluations)


class Evaluation(Single):
    """One evaluation."""

    path = "/access/v1/evaluation"

    def _request(self, call: Call, body: bytes) -> Request:
        stated = self._asking.documents.from_json("body", body)
        return self._asking.request(call, document_of(stated), len(body))

    def _encoded(self, request: Request, decision: Decision) -> bytes:
        return encode(evaluation_answer(request, decision))


class Evaluations:
    """Several evaluations, answered by one activation. Without any it answers as `Evaluation` does."""

    path = "/access/v1/evaluations"
    method = "POST"

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._single = Evaluation(asking)

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        """Never: many answers would hold up the others."""
        del call, body
        return None

    def answer(self, call: Call, body: bytes) -> bytes:
        """In their order, as far as the semantic goes: what is not evaluated is not answered, and not audited."""
        self._asking.require_bounded(body)
        stated = decoded(_bodies, "body", body)
        if not stated.evaluations:
            return self._single.answer(call, body)
        self._asking.require_batch("evaluations", len(stated.evaluations))
        policies = self._asking.service.active()
        defaults = self._defaults(stated)
        share = len(body) // len(stated.evaluations)
        asked = [
            self._request(call, index, bytes(item), defaults, share, policies)
            for index, item in enumerate(stated.evaluations)
        ]
        semantic = (stated.options or _Options()).evaluations_semantic
        answers = self._all(asked) if semantic == "execute_all" else self._until(asked, semantic)
        return encode(EvaluationsAnswer(answers))

    def _defaults(self, stated: _Evaluations) -> Document:
        documents = self._asking.documents
        given = ((part, getattr(stated, part)) for part in _PARTS)
        texts = {part: bytes(raw) for part, raw in given if raw is not UNSET}
        return {part: documents.from_json(part, text) for part, text in texts.items() if text != b"null"}

    def _request(
        self, call: Call, index: int, item: bytes, defaults: Document, share: int, policies: PolicySet
    ) -> Request | RequestError:
        try:
            stated = self._asking.documents.from_json(f"evaluations[{index}]", item)
            document = document_of({**defaults, **stated}, f"evaluations[{index}].")
            return self._asking.request(call, document, share, policies=policies)
        except RequestError as error:
            return error

    def _all(self, asked: list[Request | RequestError]) -> list[EvaluationAnswer]:
        answers = iter(self._asking.service.decide_many([each for each in asked if isinstance(each, Request)]))
        return [_answer(each, next(answers)) if isinstance(each, Request) else _failed(each) for each in asked]

    def _until(self, asked: list[Request | RequestError], semantic: Semantic) -> list[EvaluationAnswer]:
        """One after the other, up to the first denial or failure, or to the first permit."""
        answers: list[EvaluationAnswer] = []
        for each in asked:
            answers.append(self._one(each))
            if answers[-1].decision is (semantic == "permit_on_first_permit"):
                break
        return answers

    def _one(self, asked: Request | RequestError) -> EvaluationAnswer:
        if isinstance(asked, RequestError):
            return _failed(asked)
        try:
            return evaluation_answer(asked, self._asking.decide(asked))
        except RequestError as error:
            return _failed(error)


class Configuration:
    """`/.well-known/authzen-configuration`: where these endpoints are, by the name that the caller used."""

    path = "/.well-known/authzen-configuration"
    method = "GET"

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        """Known at once."""
        return self.answer(call, body)

    def answer(self, call: Call, body: bytes) -> bytes:
        """The metadata."""
        del body
        metadata = {
            "policy_decision_point": call.base,
            "access_evaluation_endpoint": call.base + Evaluation.path,
            "access_evaluations_endpoint": call.base + Evaluations.path,
        }
        return encode(metadata)


def document_of(stated: Document, within: str = "") -> Document:
    """The document that policies see: the parts as they are stated, and where ours look for them.

    A subject becomes `user`, or `source_agent` where its type is agent; a resource of type tool, server or agent
    becomes `tool`, `server` or `target_agent`; `action` is its name, and its properties are `parameters`. Raises
    InvalidRequestError.
    """
    subject, resource = (_entity(stated, part, within) for part in ("subject", "resource"))
    action = object_at(stated, "action")
    name = None if action is None else text_at(action, "name", f"{within}action.")
    if action is None or name is None:
        raise InvalidRequestError(f"{within}action.name", "is missing")
    document: Document = {
        **{part: value for part, value in stated.items() if part in _PARTS},
        "action": name,
        "source_agent" if subject["type"] == "agent" else "user": _with_properties(subject, within + "subject."),
    }
    if (target := _TARGETS.get(resource["type"])) is not None:
        made = _with_properties(resource, within + "resource.")
        if target == "tool":
            # It is what its name says: a property is no other name for it.
            made["name"] = resource["id"]
        elif target == "server":
            made.setdefault("name", resource["id"])
        document[target] = made
    if (parameters := object_at(action, "properties")) is not None:
        document["parameters"] = parameters
    return document


def _entity(stated: Document, part: str, within: str) -> dict[str, Any]:
    entity = object_at(stated, part)
    if entity is None:
        raise InvalidRequestError(f"{within}{part}", "is missing")
    for field in ("type", "id"):
        if text_at(entity, field, f"{within}{part}.") is None:
            raise InvalidRequestError(f"{within}{part}.{field}", "is missing")
    return entity


def _with_properties(entity: Document, within: str) -> Document:
    properties = entity.get("properties")
    if properties is not None and type(properties) is not dict:
        raise InvalidRequestError(f"{within}properties", "not a JSON object")
    # Who or what it is says the id, whatever the properties hold.
    return {**(properties or {}), "id": entity["id"]}


def _answer(request: Request, answered: Decision | RequestError) -> EvaluationAnswer:
    return evaluation_answer(request, answered) if isinstance(answered, Decision) else _failed(answered)


def _failed(error: RequestError) -> EvaluationAnswer:
    """A denial that says that there was no decision."""
    answer = refused(error)
    return EvaluationAnswer(
        False,  # noqa: FBT003 (the shape's first field)
        EvaluationContext(error=EvaluationError(answer.status.value, answer.problem.message)),
    )
