"""A registry to try things with, and to measure: the same rows for the same number, copied in bulk."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import psycopg
from msgspec import Struct
from psycopg import sql

from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.connections import database_error

_SCHEMA: Final = "sark_registry"
_REPORT_EVERY: Final = 1000
_USERS_PER_TEAM: Final = 25
_ROLES: Final = ("viewer", "developer", "oncall", "admin")
_ROLE_WEIGHTS: Final = (30, 60, 8, 2)
_LEVELS: Final = ("low", "medium", "high", "critical")
_LEVEL_WEIGHTS: Final = (35, 40, 20, 5)
_STATUSES: Final = ("active", "registered", "inactive", "unhealthy", "decommissioned")
_STATUS_WEIGHTS: Final = (90, 4, 3, 2, 1)
_ENVIRONMENTS: Final = ("production", "staging", "test", "development")
_VISIBILITIES: Final = ("public", "internal", "private")
_PURPOSES: Final = ("search", "tickets", "payments", "deploy", "metrics", "documents", "calendar", "inventory")
_VERBS: Final = ("list", "read", "create", "update", "delete", "search", "export", "run")
_NOUNS: Final = ("files", "tickets", "orders", "users", "reports", "jobs", "tables", "events", "pages", "alerts")

Row: TypeAlias = tuple[Any, ...]
Report: TypeAlias = Callable[[str, int, int], None]
"""Told of a table how many rows are written, of how many."""


class Sizes(Struct, frozen=True):
    """How many rows there shall be."""

    servers: int
    tools: int
    users: int

    @property
    def teams(self) -> int:
        """Enough for the users."""
        return max(1, self.users // _USERS_PER_TEAM)


class _Table(Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    rows: Iterable[Row]
    total: int


def seed(connection: psycopg.Connection, sizes: Sizes, number: int, *, replace: bool, report: Report) -> None:
    """Fills the tables of `db migrate --registry` in one transaction; `number` chooses the rows.

    Raises DatabaseError: there are no such tables, or they hold rows and `replace` is false. Nothing is changed then.
    """
    try:
        with connection.transaction():
            _empty(connection, replace=replace)
            for table in _tables(sizes, number):
                _copy(connection, table, report)
        connection.execute(
            b"ANALYZE sark_registry.teams, sark_registry.users, sark_registry.team_members, "
            b"sark_registry.servers, sark_registry.tools"
        )
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise DatabaseError(
            "the database has no registry of this program's own: run `sark-pdp db migrate --registry` first"
        ) from error
    except psycopg.Error as error:
        raise database_error("the registry cannot be filled", error) from error


def _empty(connection: psycopg.Connection, *, replace: bool) -> None:
    tables = ("teams", "users", "team_members", "servers", "tools")
    if replace:
        names = sql.SQL(", ").join(sql.Identifier(_SCHEMA, name) for name in tables)
        connection.execute(sql.SQL("TRUNCATE {}").format(names))
        return
    for name in tables:
        row = connection.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(_SCHEMA, name))
        ).fetchone()
        if row == (True,):
            raise DatabaseError(
                f"{_SCHEMA}.{name} holds rows; give --replace to delete all rows of the registry and make others"
            )


def _copy(connection: psycopg.Connection, table: _Table, report: Report) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(_SCHEMA, table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    if table.total:
        report(table.name, 0, table.total)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for index, row in enumerate(table.rows, 1):
            copy.write_row(row)
            if index % _REPORT_EVERY == 0 and index < table.total:
                report(table.name, index, table.total)
    report(table.name, table.total, table.total)


def _tables(sizes: Sizes, number: int) -> Iterator[_Table]:
    """In the order of their references; each has random numbers of its own, so that one size changes no other table."""
    chance = {name: random.Random(f"{number} {name}") for name in ("users", "members", "servers", "tools")}  # noqa: S311 (sample data)
    yield _Table("teams", ("id", "name"), ((_team(i), f"Team {i}") for i in range(sizes.teams)), sizes.teams)
    yield _Table(
        "users",
        ("id", "email", "role", "roles", "permissions", "active"),
        (_user_row(chance["users"], i) for i in range(sizes.users)),
        sizes.users,
    )
    yield _Table("team_members", ("user_id", "team_id"), _members(chance["members"], sizes), sizes.users)
    yield _Table(
        "servers",
        ("id", "name", "owner_id", "team_id", "visibility", "environment", "sensitivity_level", "status"),
        (_server_row(chance["servers"], i, sizes) for i in range(sizes.servers)),
        sizes.servers,
    )
    yield _Table(
        "tools",
        ("id", "server_id", "name", "sensitivity_level", "owner", "managers", "team_id", "active"),
        (_tool_row(chance["tools"], i, sizes) for i in range(sizes.tools)),
        sizes.tools,
    )


def _user(index: int) -> str:
    return f"user-{index:06d}"


def _team(index: int) -> str:
    return f"team-{index:05d}"


def _server(index: int) -> str:
    return f"server-{index:05d}"


def _user_row(chance: random.Random, index: int) -> Row:
    role = chance.choices(_ROLES, _ROLE_WEIGHTS)[0]
    roles = [role, *(["oncall"] if role == "developer" and chance.random() < 0.1 else [])]
    permissions = [f"tool:invoke:{chance.choice(_VERBS)}_{chance.choice(_NOUNS)}"] if chance.random() < 0.05 else []
    return (_user(index), f"{_user(index)}@example.com", role, roles, permissions, chance.random() > 0.02)


def _members(chance: random.Random, sizes: Sizes) -> Iterator[Row]:
    """A team for each user."""
    for index in range(sizes.users):
        yield _user(index), _team(chance.randrange(sizes.teams))


def _server_row(chance: random.Random, index: int, sizes: Sizes) -> Row:
    return (
        _server(index),
        f"{chance.choice(_PURPOSES)}-{index:05d}",
        _user(chance.randrange(sizes.users)) if sizes.users else None,
        _team(chance.randrange(sizes.teams)),
        chance.choice(_VISIBILITIES),
        chance.choice(_ENVIRONMENTS),
        chance.choices(_LEVELS, _LEVEL_WEIGHTS)[0],
        chance.choices(_STATUSES, _STATUS_WEIGHTS)[0],
    )


def _tool_row(chance: random.Random, index: int, sizes: Sizes) -> Row:
    """Dealt to the servers in turn; within one the names differ by their number."""
    server, turn = index % sizes.servers, index // sizes.servers
    verb, noun = _VERBS[(server + turn) % len(_VERBS)], chance.choice(_NOUNS)
    owner = _user(chance.randrange(sizes.users)) if sizes.users else None
    return (
        f"tool-{index:06d}",
        _server(server),
        f"{verb}_{noun}_{turn}",
        chance.choices((*_LEVELS, None), (*_LEVEL_WEIGHTS, 10))[0],
        owner,
        [_user(chance.randrange(sizes.users))] if sizes.users and chance.random() < 0.2 else [],
        _team(chance.randrange(sizes.teams)),
        chance.random() > 0.02,
    )
