"""Finds who asked what of whom in a document, for the columns of an audit event.

Two families of documents are known: the SARK document (`user`, `tool`, `server`, `context` …) and that of ext_authz
(`attributes`, `parsed_body`). Callers send odd ones, so nothing here trusts a shape.
"""

from msgspec import Struct

from sark_pdp.model import Document, Json, Origin

_SARK_FIELDS = frozenset({"user", "action", "tool", "tool_name", "server", "server_name", "source_agent"})
_WIDEST_ID = 64
"""Bits; a larger integer is no id."""


class Subjects(Struct, frozen=True):
    """What the columns of an event say of a request; None where the document does not tell."""

    user_id: str | None
    user_email: str | None
    server_id: str | None
    tool_name: str | None
    action: str | None
    ip_address: str | None
    user_agent: str | None


def subjects_of(document: Document, origin: Origin) -> Subjects:
    """The subjects of a document; what it does not tell is taken from what the transport saw."""
    # Whoever fills in a SARK document must not be able to hide its user behind attributes of no meaning there.
    if type(document.get("attributes")) is dict and document.keys().isdisjoint(_SARK_FIELDS):
        return _of_ext_authz(document, origin)
    user = document.get("user")
    tool = document.get("tool")
    server = document.get("server")
    context = _object(document.get("context"))
    return Subjects(
        # An agent acts for itself where no user is named.
        _id(user, "id") or _id(document.get("source_agent"), "id") or origin.identity or None,
        text_of(user.get("email")) if type(user) is dict else None,
        _id(server, "id") or text_of(document.get("server_name")) or text_of(_object(server).get("name")),
        _id(tool, "name") or text_of(document.get("tool_name")) or text_of(_object(tool).get("id")),
        text_of(document.get("action")),
        text_of(context.get("client_ip")) or origin.ip_address or None,
        text_of(context.get("user_agent")) or origin.user_agent or None,
    )


def _of_ext_authz(document: Document, origin: Origin) -> Subjects:
    """The same of the document that Envoy's requests become, in the names of OPA's Envoy plugin."""
    attributes = _object(document["attributes"])
    source = _object(attributes.get("source"))
    address = _object(_object(source.get("address")).get("socketAddress"))
    http = _object(_object(attributes.get("request")).get("http"))
    body = _object(document.get("parsed_body"))
    method = text_of(body.get("method")) if "jsonrpc" in body else None
    params = _object(body.get("params"))
    return Subjects(
        text_of(source.get("principal")) or origin.identity or None,
        None,
        None,
        text_of(params.get("name")) if method == "tools/call" else None,
        method or text_of(http.get("method")),
        text_of(address.get("address")) or origin.ip_address or None,
        text_of(_object(http.get("headers")).get("user-agent")) or origin.user_agent or None,
    )


def _object(value: Json) -> dict[str, Json]:
    return value if type(value) is dict else {}


def _id(value: Json, field: str) -> str | None:
    """The field of an object; where policies use a bare string or number in its place, that."""
    return text_of(value.get(field)) if type(value) is dict else text_of(value)


def text_of(value: Json) -> str | None:
    """A non-empty string, or an integer as one; None for anything else."""
    if type(value) is str:
        return value or None
    if type(value) is int and value.bit_length() <= _WIDEST_ID:
        return str(value)
    return None
