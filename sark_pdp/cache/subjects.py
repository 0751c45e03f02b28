"""Subjects: what an answer or an attribute is about, as text. Each has a generation; invalidating one replaces it.

    all                     everything
    attributes              whatever was read of the registry
    policy:<entrypoint>     answers of this entrypoint
    data:<a/b>              answers of entrypoints that read this path of data, or something below it
    under:<a/b>             answers of entrypoints that read exactly this path, so whatever lies below it too
    user:<id>  server:<id>  tool:<id>
    named:<n>:<server><name>    a tool by its name on a server whose id has n characters
    named::<name>               the same where the server is not told

An id counts where the projected input holds it. A policy that reads roles but no ids gives its answers to roles: they
are shared among users, and when the roles of one change, the key of its answers changes with them.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NewType

from sark_pdp.model import Document, Entrypoint, Json
from sark_pdp.projection import Path

Subject = NewType("Subject", str)
"""One of the above."""

ALL: Final = Subject("all")
ATTRIBUTES: Final = Subject("attributes")
"""Every entry of the registry's rows counts it; the publisher replaces it where it may have missed a change."""

_LONG: Final = 200
"""Characters of an id; a longer one counts by its digest."""
_WIDEST: Final = 64
"""Bits; a larger integer is no id."""


def policy(entrypoint: str) -> Subject:
    """The answers of one entrypoint."""
    return Subject(f"policy:{entrypoint}")


def user(id_: str) -> Subject:
    """What is about this user."""
    return Subject(f"user:{_short(id_)}")


def server(id_: str) -> Subject:
    """What is about this server, its tools included where the input tells the server."""
    return Subject(f"server:{_short(id_)}")


def tool(id_: str) -> Subject:
    """What is about this tool where the input tells its id."""
    return Subject(f"tool:{_short(id_)}")


def named(server_id: str | None, name: str) -> Subject:
    """What is about the tool of this name where the input tells its server, or does not (None)."""
    if server_id is None:
        return Subject(f"named::{_short(name)}")
    server_id = _short(server_id)
    return Subject(f"named:{len(server_id)}:{server_id}{_short(name)}")


def of_named_tool(server_id: str, name: str) -> tuple[Subject, ...]:
    """What to invalidate for the tool of this name on this server: answers for it may not have been told the server."""
    return named(server_id, name), named(None, name)


def of_data_root(root: Path) -> tuple[Subject, ...]:
    """What to invalidate where data at `root` changed: what reads it, something below it, or something around it."""
    return _data(root), *(_under(root[:length]) for length in range(len(root)))


def of_entrypoint(entrypoint: Entrypoint) -> tuple[Subject, ...]:
    """What every answer of it counts."""
    data = {_data(path[:length]) for path in entrypoint.reads_data for length in range(len(path) + 1)}
    under = {_under(path) for path in entrypoint.reads_data}
    return ALL, policy(entrypoint.name), *sorted(data), *sorted(under)


def of_ids(projected: Document) -> Iterator[Subject]:
    """What an answer counts for the ids in its projected input."""
    user_value, server_value, tool_value = (projected.get(field) for field in ("user", "server", "tool"))
    user_id, server_id = _id(user_value, "id"), _id(server_value, "id")
    tool_id = _text(tool_value.get("id")) if type(tool_value) is dict else None
    name = _id(tool_value, "name") or _text(projected.get("tool_name"))
    if user_id is not None:
        yield user(user_id)
    if server_id is not None:
        yield server(server_id)
    if tool_id is not None:
        yield tool(tool_id)
    if name is not None:
        yield named(server_id, name)


def _id(value: Json, field: str) -> str | None:
    """The field of an object; where policies use a bare string or number in its place, that."""
    return _text(value.get(field)) if type(value) is dict else _text(value)


def _text(value: Json) -> str | None:
    if type(value) is str:
        return value or None
    return str(value) if type(value) is int and value.bit_length() <= _WIDEST else None


def _short(id_: str) -> str:
    return id_ if len(id_) <= _LONG else f"#{sha256(id_.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _data(path: Path) -> Subject:
    return Subject(f"data:{'/'.join(path)}")


def _under(path: Path) -> Subject:
    return Subject(f"under:{'/'.join(path)}")
