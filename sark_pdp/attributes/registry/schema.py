"""What `sark-pdp db migrate --registry` applies: tables of its own, or views over a registry that is there already."""

from importlib.resources import files
from typing import Final

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.attributes.registry.existing import Existing, find_existing, views_over, watched_in
from sark_pdp.attributes.registry.triggers import OWN, triggers_on
from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.connections import database_error
from sark_pdp.postgres.migrations import STATE, Migration, read_migrations

PART: Final = "registry"

_DISPENSABLE: Final = {"trigram": "a search by a part of a server's name reads the whole table"}


class Plan(Struct, frozen=True):
    """What there is to do in one database."""

    migrations: list[Migration]
    over: Existing | None
    """The tables of somebody else that the views read, None where they read tables of their own."""


def plan(connection: psycopg.Connection, schema: str, *, triggers: bool) -> Plan:
    """Looks at the database; a registry that somebody else keeps is looked for in `schema`.

    `triggers` puts the triggers that notify of changes on its tables too: nothing else ever touches those.
    Raises DatabaseError.
    """
    try:
        has_own = connection.execute("SELECT to_regclass('sark_registry.users') IS NOT NULL").fetchone() == (True,)
        existing = None if has_own else find_existing(connection, schema)
    except psycopg.Error as error:
        raise database_error("the database cannot be looked at", error) from error
    files_of_own = {it.name: it for it in read_migrations(PART, files(__package__))}
    if existing is None:
        if triggers:
            raise DatabaseError(
                f"schema {schema} has no registry for --triggers; tables that this program makes have them"
            )
        own = [replace(it, dispensable=_DISPENSABLE.get(it.name, "")) for it in files_of_own.values()]
        return Plan([*own, _state("triggers", "".join(map(triggers_on, OWN)))], None)
    over = [files_of_own["changes"], _state("views", views_over(existing))]
    if triggers:
        over.append(_state("triggers", "".join(map(triggers_on, watched_in(existing)))))
    return Plan(over, existing)


def _state(name: str, statements: str) -> Migration:
    return Migration(PART, STATE, name, statements)
