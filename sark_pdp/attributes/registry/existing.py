"""Views over a registry that somebody else's program keeps: SARK's tables `users`, `mcp_servers` and `mcp_tools`.

Its columns vary with its version. What is missing becomes null; of teams only ids count, for anybody may choose a name.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import sql

from sark_pdp.attributes.columns import SERVERS, TOOLS, USERS, View
from sark_pdp.attributes.registry.triggers import Watched
from sark_pdp.errors import DatabaseError

_COLUMNS: Final = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""

_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "users": ("users", "principals"),
    "servers": ("mcp_servers",),
    "tools": ("mcp_tools",),
    "members": ("user_teams",),
}
"""What the table behind each view may be called; the first that is there counts."""

_NAMES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "users": {"active": ("is_active", "active")},
    "servers": {"managed_by_team": ("managed_by_team", "team_id")},
    "tools": {"owner": ("owner", "owner_id"), "team": ("team", "team_id"), "active": ("is_active", "active")},
}
"""What a column of a view may be called, where it is not the same."""

_LOWERED: Final = frozenset({"sensitivity_level", "status", "visibility", "environment"})
"""An enumeration's names come in capitals from some programs."""
_NATIVE: Final = frozenset({("users", "id"), ("servers", "id"), ("tools", "id"), ("tools", "server_id")})
"""Looked up by: a cast would hide them from the index of the table."""

_NO_TEXT: Final = r"\\u(0000|[dD][89a-fA-F])"
"""Escapes that JSON may have and text may not; one row that has them must not make the others unreadable."""

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "users": ("id",),
    "servers": ("id",),
    "tools": ("id", "server_id", "name"),
    "members": ("user_id", "team_id"),
}

Columns = Mapping[str, str]
"""Types by name, of one table."""


class Existing(Struct, frozen=True):
    """The tables that were found in one schema."""

    schema: str
    names: Mapping[str, str]
    """Of the table behind each view, and of `members`."""
    columns: Mapping[str, Columns]
    """By the same keys."""

    def table(self, key: str) -> str:
        """Quoted, with its schema."""
        return f"{_quoted(self.schema)}.{_quoted(self.names[key])}"

    @property
    def tables(self) -> list[str]:
        """For people."""
        return [f"{self.schema}.{name}" for name in self.names.values()]


def find_existing(connection: psycopg.Connection, schema: str) -> Existing | None:
    """The registry in this schema, None where there is none; raises DatabaseError where only a part of it is there."""
    candidates = [name for names in _TABLES.values() for name in names]
    found: dict[str, dict[str, str]] = {}
    for table, column, type_name in connection.execute(_COLUMNS, [schema, candidates]):
        found.setdefault(table, {})[column] = type_name
    names = {key: next((name for name in known if name in found), "") for key, known in _TABLES.items()}
    # Many programs have a table of users; one of servers is this registry's alone.
    if not names["servers"] and not names["tools"]:
        return None
    missing = [" or ".join(_TABLES[key]) for key in ("users", "servers", "tools") if not names[key]]
    if missing:
        raise DatabaseError(f"schema {schema} has a part of a registry, but no table {' and no table '.join(missing)}")
    present = {key: name for key, name in names.items() if name}
    for key, name in present.items():
        if lacking := [column for column in _NEEDED[key] if column not in found[name]]:
            raise DatabaseError(f"table {schema}.{name} has no column {' and no column '.join(lacking)}")
    return Existing(schema, present, {key: found[name] for key, name in present.items()})


def views_over(existing: Existing) -> str:
    """The statements that make the three views."""
    made = []
    for view in (USERS, SERVERS, TOOLS):
        columns = ",\n    ".join(f"{_expression(existing, view, name)} AS {_quoted(name)}" for name in view.columns)
        table = existing.table(view.name)
        made.append(f"CREATE OR REPLACE VIEW {view.qualified} AS\nSELECT\n    {columns}\nFROM {table} AS it;\n")
    return "\n".join(made)


def watched_in(existing: Existing) -> list[Watched]:
    """Its tables, for triggers on them."""
    entries = {
        "users": ("user", "to_jsonb(id::text)"),
        "servers": ("server", "to_jsonb(id::text)"),
        "tools": ("tool", "jsonb_build_array(id::text, server_id::text, name)"),
        "members": ("user", "to_jsonb(user_id::text)"),
    }
    return [
        Watched(existing.table(key), kind, entry, _compared(existing, key))
        for key, (kind, entry) in entries.items()
        if key in existing.names
    ]


def _compared(existing: Existing, key: str) -> Sequence[str]:
    if key == "members":
        sources = dict.fromkeys(("user_id", "team_id"))
    else:
        view = next(view for view in (USERS, SERVERS, TOOLS) if view.name == key)
        sources = dict.fromkeys(source for name in view.columns if (source := _source(existing, view, name)))
    # As text, for not every type can be compared, and to some a capital letter makes no difference.
    return [f'{_quoted(name)}::text COLLATE "C" AS {_quoted(name)}' for name in sources]


def _source(existing: Existing, view: View, name: str) -> str | None:
    """The column of the table."""
    columns = existing.columns[view.name]
    return next((each for each in _NAMES[view.name].get(name, (name,)) if each in columns), None)


def _expression(existing: Existing, view: View, name: str) -> str:
    source = _source(existing, view, name)
    if view is USERS and name == "teams" and "members" in existing.names:
        members = existing.table("members")
        return f"ARRAY(SELECT team_id::text FROM {members} AS member WHERE member.user_id = it.id ORDER BY team_id)"  # noqa: S608 (quoted names)
    type_name = "text[]" if name in view.lists else "boolean" if name == "active" else "text"
    if source is None:
        return f"NULL::{type_name}"
    column = f"it.{_quoted(source)}"
    if name in view.lists:
        return _list(column, existing.columns[view.name][source])
    if (view.name, name) in _NATIVE:
        return column
    return f"lower({column}::text)" if name in _LOWERED else f"{column}::{type_name}"


def _list(column: str, type_name: str) -> str:
    """An array of text from an array, or from an array in JSON without what is no text; null from other types."""
    if type_name.endswith("[]"):
        return f"{column}::text[]"
    if type_name not in {"json", "jsonb"}:
        return "NULL::text[]"
    array = f"CASE WHEN json_typeof({column}::json) = 'array' THEN {column}::json ELSE '[]' END"
    elements = f"json_array_elements({array}) AS element(json)"
    return f"ARRAY(SELECT element.json #>> '{{}}' FROM {elements} WHERE element.json::text !~ '{_NO_TEXT}')"  # noqa: S608 (quoted names)


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
