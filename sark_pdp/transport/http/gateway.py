"""`/api/v1/gateway/authorize` and `authorize-a2a`: what SARK's gateway asks, in its shapes.

Facts about them are from SARK's own models and services (github.com/apathy-ca/sark, `models/gateway.py`). Its policies
read the flat names, ours the nested ones: a document has both.
"""

from typing import Final

import msgspec

from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Decision, Document, Request
from sark_pdp.transport.http.answers import encode, gateway_answer
from sark_pdp.transport.http.asking import Asking, Control, decoded, object_at, text_at
from sark_pdp.transport.http.endpoint import Call
from sark_pdp.transport.http.policy import agreeing, spelled_out
from sark_pdp.transport.http.single import Single

_CAPABILITIES: Final = {"execute": "agent:invoke", "query": "agent:query", "delegate": "agent:delegate"}
"""What an agent may want of another, and the action that it is where none is named."""
_CONTROL: Final = ("policy", "request_id", "max_age")

_controls: Final = msgspec.json.Decoder(Control)


class _Gateway(Single):
    """One question of the gateway."""

    def __init__(self, asking: Asking, entrypoint: str | None) -> None:
        """`entrypoint` is asked where the body names no policy; None: the one that every endpoint asks."""
        super().__init__(asking)
        self._entrypoint = entrypoint

    def _request(self, call: Call, body: bytes) -> Request:
        document = self._asking.documents.from_json("body", body)
        control = decoded(_controls, "body", body)
        for name in _CONTROL:
            document.pop(name, None)
        if not control.policy and self._entrypoint:
            control = msgspec.structs.replace(control, policy=self._entrypoint)
        return self._asking.request(call, self._document(spelled_out(document)), len(body), control)

    def _encoded(self, request: Request, decision: Decision) -> bytes:
        return encode(gateway_answer(request, decision))

    def _document(self, document: Document) -> Document:
        raise NotImplementedError


class Authorize(_Gateway):
    """May a user do this through the gateway?"""

    path = "/api/v1/gateway/authorize"

    def _document(self, document: Document) -> Document:
        if text_at(document, "action") is None:
            raise InvalidRequestError("action", "is missing")
        tool, server = text_at(document, "tool_name"), text_at(document, "server_name")
        level = text_at(document, "sensitivity_level")
        # SARK's service asks with this object, its examples of policies with the flat names.
        resource = {"server": server, "tool": tool, "sensitivity": level or "medium"}
        made = {
            **document,
            "parameters": object_at(document, "parameters") or {},
            "context": object_at(document, "context") or {},
            "resource": {**resource, **(object_at(document, "resource") or {})},
        }
        if server is not None:
            made["server"] = agreeing(made, "server_name", "server", "name", server)
        if tool is not None:
            made["tool"] = agreeing(made, "tool_name", "tool", "name", tool)
            if level is not None:
                made["tool"] = agreeing(made, "sensitivity_level", "tool", "sensitivity_level", level)
        return made


class AuthorizeAgent(_Gateway):
    """May an agent do this to another one?"""

    path = "/api/v1/gateway/authorize-a2a"

    def _document(self, document: Document) -> Document:
        capability = text_at(document, "capability")
        if capability is not None and capability not in _CAPABILITIES:
            raise InvalidRequestError("capability", f"must be one of {', '.join(_CAPABILITIES)}")
        action = text_at(document, "action") or _CAPABILITIES.get(capability or "")
        if action is None:
            raise InvalidRequestError("capability", "is missing")
        target = _agent(document, "target")
        if environment := document.get("target_environment"):
            target.setdefault("environment", environment)
        context = object_at(document, "context") or {}
        return {
            **document,
            "action": action,
            "source_agent": _agent(document, "source"),
            "target_agent": target,
            "parameters": object_at(document, "parameters") or {},
            "context": {"capability": capability, **context} if capability else context,
        }


def _agent(document: Document, side: str) -> Document:
    """The agent on one side, by its id alone or as an object."""
    name = f"{side}_agent"
    id_ = text_at(document, f"{name}_id")
    agent = dict(object_at(document, name) or {})
    if id_ is not None:
        agent = agreeing(document, f"{name}_id", name, "id", id_)
    if text_at(agent, "id", f"{name}.") is None:
        raise InvalidRequestError(f"{name}_id", "is missing")
    return agent
