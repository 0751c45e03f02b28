"""What `sark-pdp db migrate --registry` applies: tables of its own, or views over a registry that is there already."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.attributes.columns import VIEWS
from sark_pdp.attributes.registry.existing import Existing, find_existing, views_over, watched_in
from sark_pdp.attributes.registry.triggers import OWN, Watched, triggers_are_on, triggers_on
from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.connections import database_error
from sark_pdp.postgres.migrations import STATE, Migration, read_migrations

PART: Final = "registry"

_VIEWS_ARE_THERE: Final = "SELECT " + " AND ".join(f"to_regclass('{it.qualified}') IS NOT NULL" for it in VIEWS)

_DISPENSABLE: Final = {"trigram": "a search by a part of a server's name reads the whole table"}


class Plan(Struct, frozen=True):
    """What there is to do in one database."""

    migrations: list[Migration]
    over: Existing | None
    """The tables of somebody else that the views read, None where they read tables of their own."""


def plan(connection: psycopg.Connection, schema: str, *, triggers: bool) -> Plan:
    """Looks at the database; a registry that somebody else keeps is looked for in `schema`.

    `triggers` puts the triggers that notify of changes on its tables too: nothing else ever touches those. Those that
    are there already are kept up to date in any case, for views and triggers have to read the same columns.
    Raises DatabaseError.
    """
    try:
        has_own = connection.execute("SELECT to_regclass('sark_registry.users') IS NOT NULL").fetchone() == (True,)
        existing = None if has_own else find_existing(connection, schema)
        if not has_own and existing is None:
            _refuse_views(connection, schema)
        watched = [] if existing is None else watched_in(existing)
        triggers_too = triggers or any(_has_triggers(connection, it) for it in watched)
    except psycopg.Error as error:
        raise database_error("the database cannot be looked at", error) from error
    files_of_own = {it.name: it for it in read_migrations(PART, files(__package__))}
    if existing is None:
        if triggers:
            raise DatabaseError(
                f"schema {schema} has no registry for --triggers; tables that this program makes have them"
            )
        files_of_own["views"] = replace(files_of_own["views"], is_there=_VIEWS_ARE_THERE)
        own = [replace(it, dispensable=_DISPENSABLE.get(it.name, "")) for it in files_of_own.values()]
        return Plan([*own, _triggers(OWN)], None)
    views = Migration(PART, STATE, "views", views_over(existing), is_there=_VIEWS_ARE_THERE)
    return Plan([files_of_own["changes"], views, *([_triggers(watched)] if triggers_too else [])], existing)


def _refuse_views(connection: psycopg.Connection, schema: str) -> None:
    """Views over nothing that is known are somebody's own work, or their tables went elsewhere."""
    for view in VIEWS:
        if connection.execute("SELECT to_regclass(%s) IS NOT NULL", [view.qualified]).fetchone() == (True,):
            raise DatabaseError(
                f"there is a view {view.qualified} already, but no registry in schema {schema}: name the schema of its "
                "tables with --existing-schema, or drop it; views of your own need no migration"
            )


def _has_triggers(connection: psycopg.Connection, watched: Watched) -> bool:
    return connection.execute(triggers_are_on([watched]).encode()).fetchone() == (True,)


def _triggers(watched: Sequence[Watched]) -> Migration:
    statements = "".join(map(triggers_on, watched))
    return Migration(PART, STATE, "triggers", statements, is_there=triggers_are_on(watched))
