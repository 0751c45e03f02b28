"""Finds who asked what of whom in a document, for the columns of an audit event.

Two families of documents are known: the SARK document (`user`, `tool`, `server`, `context` …) and that of ext_authz
(`attributes`, `parsed_body`). Callers send odd ones, so nothing here trusts a shape.
"""

from msgspec import Struct

from sark_pdp.model import Document, Json, Origin

_SARK_FIELDS = frozenset({"user", "action", "tool", "tool_name", "server", "server_name", "source_agent"})
_WIDEST_ID = 64
"""Bits; a larger integer is no id."""


class Subjects(Struct, frozen=True, gc=False):
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
    attributes = document.get("attributes")
    if type(attributes) is dict and _SARK_FIELDS.isdisjoint(document):
        return _of_ext_authz(attributes, document, origin)
    get = document.get
    tool, server = get("tool"), get("server")
    user_id, email = _user(get("user"))
    address = agent = None
    context = get("context")
    if type(context) is dict:
        address, agent = text_of(context.get("client_ip")), text_of(context.get("user_agent"))
    return Subjects(
        # An agent acts for itself where no user is named.
        user_id or _id(get("source_agent"), "id") or origin.identity or None,
        email,
        _id(server, "id") or text_of(get("server_name")) or text_of(_object(server).get("name")),
        _id(tool, "name") or text_of(get("tool_name")) or text_of(_object(tool).get("id")),
        text_of(get("action")),
        address or origin.ip_address or None,
        agent or origin.user_agent or None,
    )


def _user(user: Json) -> tuple[str | None, str | None]:
    if type(user) is dict:
        return text_of(user.get("id")), text_of(user.get("email"))
    return text_of(user), None


def _of_ext_authz(attributes: dict[str, Json], document: Document, origin: Origin) -> Subjects:
    """The same of the document that Envoy's requests become, in the names of OPA's Envoy plugin."""
    principal = address = agent = method = tool = None
    source = attributes.get("source")
    if type(source) is dict:
        principal = text_of(source.get("principal"))
        address = text_of(_object(_object(source.get("address")).get("socketAddress")).get("address"))
    body = document.get("parsed_body")
    if type(body) is dict and "jsonrpc" in body:
        method = text_of(body.get("method"))
        tool = text_of(_object(body.get("params")).get("name")) if method == "tools/call" else None
    http = _object(_object(attributes.get("request")).get("http"))
    headers = http.get("headers")
    if type(headers) is dict:
        agent = text_of(headers.get("user-agent"))
    return Subjects(
        principal or origin.identity or None,
        None,
        None,
        tool,
        method or text_of(http.get("method")),
        address or origin.ip_address or None,
        agent or origin.user_agent or None,
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
