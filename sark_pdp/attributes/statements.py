"""The statements that read the registry: one for each of its views, whatever the rows are looked up by.

Each takes one array of text for each kind of key that it looks up by, and returns all rows of a kind as one JSON
array, or null: that costs the server, the wire and this process less than as many rows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Final, TypeAlias

from msgspec import Struct

from sark_pdp.attributes.columns import SERVERS, TOOLS, USERS, View
from sark_pdp.attributes.names import NAMED_SERVER, NAMED_TOOL, SERVER, TOOL, TOOL_OF, USER
from sark_pdp.interfaces import RowKey
from sark_pdp.model import Document

IdTypes: TypeAlias = Mapping[str, str]
"""The type of the id of each view, by the view's name; of tools' `server_id` it is that of servers."""

ID_TYPES: Final = b"""
SELECT json_build_array(c.relname, format_type(a.atttypid, NULL))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'sark_pdp' AND c.relname IN ('users', 'servers', 'tools') AND a.attname = 'id'
"""
"""What `IdTypes` is made of."""

_KINDS: Final = {USER: USERS, TOOL: TOOLS, NAMED_TOOL: TOOLS, TOOL_OF: TOOLS, SERVER: SERVERS, NAMED_SERVER: SERVERS}
_BY_ID: Final = frozenset({USER, TOOL, SERVER})
_OTHER_SERVERS_NAME: Final = "of_server"
"""The column that tells by which server's name a tool was found."""


class Question(Struct, frozen=True):
    """All that is looked up in one view."""

    view: View
    kinds: tuple[str, ...]
    """Of the keys, in the order of the arrays."""
    arrays: tuple[Sequence[str], ...]
    keys: tuple[RowKey, ...]


def questions(keys: Iterable[RowKey]) -> list[Question]:
    """One for each view that has keys."""
    by_kind: dict[str, list[RowKey]] = {}
    for key in keys:
        by_kind.setdefault(key[0], []).append(key)
    views = {_KINDS[kind].name: _KINDS[kind] for kind in by_kind}
    return [_question(view, by_kind) for view in views.values()]


def _question(view: View, by_kind: Mapping[str, list[RowKey]]) -> Question:
    kinds = tuple(kind for kind in _KINDS if kind in by_kind and _KINDS[kind] is view)
    every = tuple(key for kind in kinds for key in by_kind[kind])
    arrays = tuple(array for kind in kinds for array in zip(*(key[1:] for key in by_kind[kind]), strict=True))
    return Question(view, kinds, arrays, every)


@cache
def statement(view: str, kinds: tuple[str, ...], id_type: str, server_id_type: str) -> bytes:
    """Reads the rows of keys of these kinds, some of them perhaps twice."""
    columns = {each.name: ", ".join(_column(each, name) for name in each.columns) for each in (USERS, TOOLS, SERVERS)}
    found = {
        USER: f"FROM sark_pdp.users it WHERE it.id = ANY({{}}::{id_type}[])",
        SERVER: f"FROM sark_pdp.servers it WHERE it.id = ANY({{}}::{id_type}[])",
        NAMED_SERVER: "FROM sark_pdp.servers it WHERE it.name = ANY({}::text[])",
        TOOL: f"FROM sark_pdp.tools it WHERE it.id = ANY({{}}::{id_type}[])",
        NAMED_TOOL: f"FROM unnest({{}}::{server_id_type}[], {{}}::text[]) AS key(server, name)"
        " JOIN sark_pdp.tools it ON it.server_id = key.server AND it.name = key.name",
        TOOL_OF: "FROM unnest({}::text[], {}::text[]) AS key(server, name)"
        " JOIN sark_pdp.servers s ON s.name = key.server"
        " JOIN sark_pdp.tools it ON it.server_id = s.id AND it.name = key.name",
    }
    parts = []
    number = 0
    for kind in kinds:
        source = found[kind]
        numbers = range(number + 1, number + 1 + source.count("{}"))
        number = numbers[-1]
        also = f", s.name AS {_OTHER_SERVERS_NAME}" if kind == TOOL_OF else ""
        read = f"SELECT {columns[view]}{also} {source.format(*(f'${n}' for n in numbers))}"
        parts.append(f"SELECT json_agg(r) FROM ({read}) r")  # noqa: S608  # of the program's own words
    return " UNION ALL ".join(parts).encode()


def _column(view: View, name: str) -> str:
    # An id is of any type that the tables have, where a cast in the view would have hidden its index.
    return f"it.{name}" if name in view.lists or name == "active" else f"it.{name}::text AS {name}"


def by_key(question: Question, rows: Iterable[Document]) -> dict[RowKey, list[Document]]:
    """The rows of each key that has any, without nulls; each row of a key once."""
    found: dict[RowKey, list[Document]] = {}
    kinds = question.kinds
    by_id = kinds[0] if len(kinds) == 1 and kinds[0] in _BY_ID else None
    for row in rows:
        fields = {name: value for name, value in row.items() if value is not None} if None in row.values() else row
        server_name = fields.pop(_OTHER_SERVERS_NAME, None)
        for key in ((by_id, row["id"]),) if by_id else _keys_of(kinds, fields, server_name):
            others = found.get(key)
            if others is None:
                found[key] = [fields]
            elif fields not in others:
                others.append(fields)
    if by_id:
        return found
    asked = frozenset(question.keys)
    return {key: those for key, those in found.items() if key in asked}


def _keys_of(kinds: Collection[str], row: Document, server_name: str | None) -> Iterable[RowKey]:
    id_, name, server_id = row.get("id", ""), row.get("name", ""), row.get("server_id", "")
    for kind in kinds:
        if kind == NAMED_TOOL:
            yield kind, server_id, name
        elif kind == TOOL_OF:
            if server_name is not None:
                yield kind, server_name, name
        else:
            yield kind, name if kind == NAMED_SERVER else id_


def array_literal(values: Iterable[str]) -> bytes:
    """An array of text as PostgreSQL reads it; raises UnicodeEncodeError for lone surrogates."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return ("{" + ",".join(f'"{value}"' for value in escaped) + "}").encode()
