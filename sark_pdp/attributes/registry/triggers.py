"""Writes the triggers that tell the publisher, row by row, what of the registry changed.

They run once a statement, so that a bulk change costs one look at all its rows. A function of each compares only the
columns that decisions depend on: a counter beside them may change with every call. A team is seen in the rows that
name it: whoever joins or leaves is told of, and where a team is deleted, its members and what it managed.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from psycopg import sql

from sark_pdp.attributes.columns import SCHEMA

_TEMPLATE: Final = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('{channel}', '{{"kind": "{kind}", "all": true}}');
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM {schema}.notify_changed('{kind}', ARRAY(
            SELECT DISTINCT {entry} FROM (
                (SELECT {compared} FROM before EXCEPT SELECT {compared} FROM after)
                UNION ALL (SELECT {compared} FROM after EXCEPT SELECT {compared} FROM before)
            ) AS changed LIMIT {limit}
        ));
    ELSIF TG_OP = 'INSERT' THEN
        PERFORM {schema}.notify_changed('{kind}', ARRAY(SELECT DISTINCT {entry} FROM after LIMIT {limit}));
    ELSE
        PERFORM {schema}.notify_changed('{kind}', ARRAY(SELECT DISTINCT {entry} FROM before LIMIT {limit}));
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- A column was renamed, say. Whoever writes the table must not fail for that, and no change may go untold.
    RAISE LOG 'what changed in % is not told row by row: %', TG_TABLE_NAME, SQLERRM;
    PERFORM pg_notify('{channel}', '{{"kind": "{kind}", "all": true}}');
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER {name}_inserted AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS after EXECUTE FUNCTION {function}();
CREATE OR REPLACE TRIGGER {name}_updated AFTER UPDATE ON {table}
    REFERENCING OLD TABLE AS before NEW TABLE AS after EXECUTE FUNCTION {function}();
CREATE OR REPLACE TRIGGER {name}_deleted AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS before EXECUTE FUNCTION {function}();
CREATE OR REPLACE TRIGGER {name}_truncated AFTER TRUNCATE ON {table}
    EXECUTE FUNCTION {function}();
"""

CHANNEL: Final = "sark_pdp_changes"
"""What is notified on."""

TRIGGERS: Final = "sark_pdp_"
"""What the names of all triggers begin with."""

_EVENTS: Final = ("inserted", "updated", "deleted", "truncated")
"""What the names of those on one table end with."""

_LIMIT: Final = 1001
"""One more than `notify_changed` takes before it tells of all."""


class Watched(Struct, frozen=True):
    """A table whose changes are told of."""

    table: str
    """Quoted, with its schema."""
    kind: str
    """`user`, `server` or `tool`: what an entry names."""
    entry: str
    """The entry of a row: SQL that gives jsonb."""
    compared: Sequence[str]
    """SQL over one row: an update of anything else is not told of. With what `entry` reads."""


def triggers_are_on(watched: Sequence[Watched]) -> str:
    """A query for whether all of them are there."""
    tables = ", ".join(f"to_regclass({sql.Literal(it.table).as_string(None)})" for it in watched)
    return (
        f"SELECT count(*) = {len(_EVENTS) * len(watched)} FROM pg_trigger "  # noqa: S608 (quoted names)
        f"WHERE starts_with(tgname, '{TRIGGERS}') AND tgrelid IN ({tables})"
    )


def triggers_on(watched: Watched) -> str:
    """The statements; they may be applied again."""
    table = watched.table.rpartition(".")[2].strip('"')
    return _TEMPLATE.format(
        function=f"{SCHEMA}.{table}_changed",
        name=f"{TRIGGERS}{table}",
        table=watched.table,
        kind=watched.kind,
        entry=watched.entry,
        compared=", ".join(watched.compared),
        limit=_LIMIT,
        channel=CHANNEL,
        schema=SCHEMA,
    )


OWN: Final = (
    Watched(
        "sark_registry.users",
        "user",
        "to_jsonb(id)",
        ("id", "email", "role", "roles", "permissions", "active"),
    ),
    Watched("sark_registry.team_members", "user", "to_jsonb(user_id)", ("user_id", "team_id")),
    Watched(
        "sark_registry.servers",
        "server",
        "to_jsonb(id)",
        ("id", "name", "owner_id", "team_id", "visibility", "environment", "sensitivity_level", "status"),
    ),
    Watched(
        "sark_registry.tools",
        "tool",
        "jsonb_build_array(id, server_id, name)",
        ("id", "server_id", "name", "sensitivity_level", "owner", "managers", "team_id", "active"),
    ),
)
"""The tables that `db migrate --registry` makes."""
