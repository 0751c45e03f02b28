"""Puts what the registry says into a document, in the place of what the caller said."""

from typing import Final

from msgspec import Struct

from sark_pdp.attributes.columns import SERVERS, TOOLS, USERS
from sark_pdp.attributes.names import NAMED_SERVER, SERVER, Names
from sark_pdp.model import Document

_USER_FIELDS: Final = USERS.owned
_TOOL_FIELDS: Final = TOOLS.owned
_SERVER_FIELDS: Final = SERVERS.owned

_OTHER_SERVER: Final = "the tool is not on the server that the request names"
_TWO_TOOLS: Final = "the request names two tools"
_TWO_SERVERS: Final = "the request names two servers"


class Rows(Struct, frozen=True, gc=False):
    """What the registry says of one request, as fields of sections; None for a section that was not looked up."""

    user: Document | None
    tool: Document | None
    server: Document | None
    """Empty where the registry knows no server of the tool: the caller does not speak for one either."""


def contradiction(names: Names, rows: Rows) -> str:
    """How the request contradicts itself or the registry about what it is about; empty where it does not.

    Whoever could name one tool to the registry and another to the policy could borrow the attributes of the first.
    """
    tool, server, named = rows.tool, rows.server, names.server
    if tool is not None and names.tool_names and names.tool_names[0] != tool.get("name"):
        return _TWO_TOOLS
    if server:
        if named is not None and named[1] != server.get("id" if named[0] == SERVER else "name"):
            return _OTHER_SERVER
        if names.server_names and names.server_names[0] != server.get("name"):
            return _TWO_SERVERS
    return ""


def is_renamed(names: Names, server: Document | None) -> bool:
    """Whether the server that once had the name in the request has another one."""
    named = names.server
    return bool(server) and named is not None and named[0] == NAMED_SERVER and (server or {}).get("name") != named[1]


def completed(document: Document, rows: Rows, *, trust_caller: bool) -> Document:
    """The document that is decided on. Where the caller is trusted, the registry only adds what he left out."""
    made = document.copy()
    if rows.user is not None:
        made["user"] = _section(document.get("user"), rows.user, _USER_FIELDS, trust_caller)
    if rows.tool is not None:
        made["tool"] = _section(document.get("tool"), rows.tool, _TOOL_FIELDS, trust_caller)
    if rows.server is not None and (rows.server or "server" in document):
        made["server"] = _section(document.get("server"), rows.server, _SERVER_FIELDS, trust_caller)
    return made


def _section(said: object, row: Document, owned: frozenset[str], trust_caller: bool) -> Document:  # noqa: FBT001
    if type(said) is not dict:
        return row
    if trust_caller:
        return {**row, **said}
    # Documents are never changed, so a section that adds nothing of its own is the row itself.
    if said.keys() <= owned:
        return row
    return {**{name: value for name, value in said.items() if name not in owned}, **row}
