"""Finds which rows of the registry a document is about.

    user                 by its id
    tool                 by its id, else by the id of its server and its name, else by the names of both
    server               that of the tool, else by its id, else by its name

Sections and the names that a gateway sends beside them (`tool_name`, `server_name`) are known. A section that is no
object has no attributes, and is left alone. A server that is being registered is not in the registry yet.
"""

from typing import Final, TypeAlias, TypeGuard

from msgspec import Struct

from sark_pdp.interfaces import RowKey
from sark_pdp.model import Document, Json

USER: Final = "user"
TOOL: Final = "tool"
NAMED_TOOL: Final = "named tool"
"""With the server's id and the tool's name."""
TOOL_OF: Final = "tool of"
"""With the server's name and the tool's name."""
SERVER: Final = "server"
NAMED_SERVER: Final = "named server"

_REGISTERING: Final = "server:register"
_MOST_CHARACTERS: Final = 512
"""Of an id or a name; a longer one is in no registry."""

_NO_USER: Final = "the request tells no id of its user that the registry could know"
_NO_TOOL: Final = "the request tells neither an id of its tool nor a name and a server that the registry could know"
_NO_SERVER: Final = "the request tells neither an id nor a name of its server that the registry could know"


class Names(Struct, frozen=True, gc=False):
    """What a document tells of the rows that it is about; None for a section that it does not have."""

    user: RowKey | None
    tool: RowKey | None
    server: RowKey | None
    """As the caller names it; where there is a tool, the server of that counts."""
    registering: bool
    """What is said of the server is the caller's to say."""
    tool_names: tuple[str, ...] = ()
    """What the tool must be called, besides what its key says."""
    server_names: tuple[str, ...] = ()
    """The same of the server."""


Named: TypeAlias = Names | str | None


def names_of(document: Document) -> Named:
    """The rows; why there cannot be any, as a reason for a denial; None where the document has none of the sections."""
    get = document.get
    user, tool, server = get("user"), get("tool"), get("server")
    tool_name, server_name = get("tool_name"), get("server_name")
    if user is None and tool is None and server is None and tool_name is None and server_name is None:
        return None
    user_key: RowKey | None = None
    if type(user) is dict:
        id_ = user.get("id")
        if not _is_name(id_):
            return _NO_USER
        user_key = (USER, id_)
    registering = get("action") == _REGISTERING
    server_key: RowKey | None = None
    if not registering and (type(server) is dict or server_name is not None):
        server_key = _server(server if type(server) is dict else {}, server_name)
        # A tool may still tell it.
        if server_key is None and type(tool) is not dict and tool_name is None:
            return _NO_SERVER
    if type(tool) is not dict and tool_name is None:
        if user_key is None and server_key is None:
            return None
        return Names(user_key, None, server_key, registering, (), _told(server_name))
    tool_key = _tool(tool if type(tool) is dict else {}, tool_name, server_key)
    if tool_key is None:
        return _NO_TOOL
    return Names(user_key, tool_key, server_key, registering, _told(tool_name), _told(server_name))


def _server(section: Document, server_name: Json) -> RowKey | None:
    id_ = section.get("id")
    if id_ is not None:
        return (SERVER, id_) if _is_name(id_) else None
    name = section.get("name", server_name)
    return (NAMED_SERVER, name) if _is_name(name) else None


def _tool(section: Document, tool_name: Json, server: RowKey | None) -> RowKey | None:
    id_ = section.get("id")
    if id_ is not None:
        return (TOOL, id_) if _is_name(id_) else None
    name = section.get("name", tool_name)
    if not _is_name(name):
        return None
    if server is None:
        server_id = section.get("server_id")
        return (NAMED_TOOL, server_id, name) if _is_name(server_id) else None
    return (NAMED_TOOL if server[0] == SERVER else TOOL_OF, server[1], name)


def _told(name: Json) -> tuple[str, ...]:
    # One that is no text differs from every name, as it must.
    return () if name is None else (name,)


def _is_name(value: Json) -> TypeGuard[str]:
    return type(value) is str and 0 < len(value) <= _MOST_CHARACTERS and "\0" not in value
