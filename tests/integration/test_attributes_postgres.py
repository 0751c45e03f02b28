"""The registry in a real PostgreSQL: what is found, with how many queries, and what happens while it is away."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from sark_pdp.attributes.names import NAMED_SERVER, NAMED_TOOL, SERVER, TOOL, TOOL_OF, USER
from sark_pdp.attributes.postgres import PostgresSource
from sark_pdp.attributes.statements import questions, statement
from sark_pdp.errors import AttributesError, DeadlineExceededError, SettingsError
from sark_pdp.interfaces import RowKey
from sark_pdp.model import NO_DEADLINE, Deadline, Document, Seconds
from sark_pdp.observability.database import DatabaseMetrics
from tests.fix_attributes import FakeRegistry, a_source, fill, wait_until
from tests.fix_postgres import NewDatabase, StartPostgres

TEAMS: list[Document] = [{"id": "t1", "name": "One"}]
USERS: list[Document] = [
    {"id": "alice", "email": "alice@x", "role": "developer", "roles": ["developer", 'odd "\\, {role}']},
    {"id": "o\"d,d\\{}'é", "email": "odd@x", "role": "admin", "active": False},
]
SERVERS: list[Document] = [
    {"id": "s1", "name": "files", "owner_id": "alice", "team_id": "t1", "status": "active"},
    {"id": "s2", "name": "mail"},
    {"id": "s3", "name": "mail"},
]
TOOLS: list[Document] = [
    {"id": "1", "server_id": "s1", "name": "read", "sensitivity_level": "high", "managers": ["alice"]},
    {"id": "2", "server_id": "s2", "name": "read"},
    {"id": "3", "server_id": "s3", "name": "send"},
]
ALICE = {
    "id": "alice",
    "email": "alice@x",
    "role": "developer",
    "roles": ["developer", 'odd "\\, {role}'],
    "teams": ["t1"],
    "permissions": [],
    "active": True,
}
FILES = {
    "id": "s1",
    "name": "files",
    "owner_id": "alice",
    "team_id": "t1",
    "managed_by_team": "t1",
    "visibility": "internal",
    "environment": "production",
    "sensitivity_level": "medium",
    "status": "active",
}
READ = {
    "id": "1",
    "server_id": "s1",
    "name": "read",
    "sensitivity_level": "high",
    "managers": ["alice"],
    "active": True,
}


@pytest.fixture
def source(registry: str) -> Iterator[tuple[PostgresSource, DatabaseMetrics]]:
    fill(
        registry,
        teams=TEAMS,
        users=USERS,
        team_members=[{"user_id": "alice", "team_id": "t1"}],
        servers=SERVERS,
        tools=TOOLS,
    )
    with a_source(registry) as made:
        yield made


def test_rows_are_found_by_each_kind_of_key_with_one_query_for_each_table(
    source: tuple[PostgresSource, DatabaseMetrics],
) -> None:
    reader, metrics = source
    keys: list[RowKey] = [
        *((USER, "alice"), (USER, "bob"), (USER, USERS[1]["id"]), (USER, "ALICE"), (USER, "\ud800")),
        *((TOOL, "1"), (NAMED_TOOL, "s1", "read"), (NAMED_TOOL, "s1", "send"), (TOOL_OF, "files", "read")),
        *((TOOL_OF, "mail", "read"), (SERVER, "s1"), (NAMED_SERVER, "files"), (NAMED_SERVER, "mail")),
    ]
    found = reader.read(keys, NO_DEADLINE)
    assert found[USER, "alice"] == [ALICE]
    assert [row["active"] for row in found[USER, str(USERS[1]["id"])]] == [False]
    assert found[TOOL, "1"] == found[NAMED_TOOL, "s1", "read"] == found[TOOL_OF, "files", "read"] == [READ]
    assert found[SERVER, "s1"] == found[NAMED_SERVER, "files"] == [FILES]
    assert sorted(row["id"] for row in found[NAMED_SERVER, "mail"]) == ["s2", "s3"]
    assert [row["id"] for row in found[TOOL_OF, "mail", "read"]] == ["2"]
    assert len(found) == 9
    assert metrics.queries() == {("select", "users"): 1, ("select", "tools"): 1, ("select", "servers"): 1}


def test_the_fake_registry_of_other_tests_finds_the_same(source: tuple[PostgresSource, DatabaseMetrics]) -> None:
    reader, _ = source
    keys: list[RowKey] = [
        *((TOOL, row["id"]) for row in TOOLS),
        *((SERVER, row["id"]) for row in SERVERS),
        *((kind, place, name) for kind, places in ((NAMED_TOOL, ("s1", "s2", "s4")), (TOOL_OF, ("files", "mail", "x")))
          for place in places for name in ("read", "send")),
        *((NAMED_SERVER, name) for name in ("files", "mail", "x")),
    ]  # fmt: skip
    real = reader.read(keys, NO_DEADLINE)
    fake = FakeRegistry(tool=TOOLS, server=SERVERS).read(keys, NO_DEADLINE)

    def ids(found: Any) -> dict[RowKey, list[str]]:
        return {key: sorted(row["id"] for row in rows) for key, rows in found.items()}

    assert ids(real) == ids(fake)


def test_foreign_tables_with_other_types_of_ids_are_read_by_their_index(new_database: NewDatabase) -> None:
    dsn = new_database()
    one = "0b8a2a4e-6f0f-4f6e-9c55-000000000001"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            CREATE SCHEMA sark_pdp;
            CREATE TABLE people (id uuid PRIMARY KEY, email text);
            CREATE TABLE things (id bigint PRIMARY KEY, server_id uuid, name varchar(100));
            CREATE VIEW sark_pdp.users AS SELECT id, email, NULL::text AS role, NULL::text[] AS roles,
                NULL::text[] AS teams, NULL::text[] AS permissions, NULL::boolean AS active FROM people;
            CREATE VIEW sark_pdp.servers AS SELECT id, email AS name, NULL::text AS owner_id, NULL::text AS team_id,
                NULL::text AS managed_by_team, NULL::text AS visibility, NULL::text AS environment,
                NULL::text AS sensitivity_level, NULL::text AS status FROM people;
            CREATE VIEW sark_pdp.tools AS SELECT id, server_id, name, NULL::text AS sensitivity_level,
                NULL::text AS owner, NULL::text[] AS managers, NULL::text AS team, NULL::boolean AS active FROM things;
        """)
        connection.execute("INSERT INTO people VALUES (%s, 'p')", [one])
        connection.execute("INSERT INTO things VALUES (7, %s, 'x')", [one])
    with a_source(dsn) as (reader, _):
        found = reader.read(
            [
                *((USER, one), (USER, "alice"), (USER, one.upper()), (TOOL, "7"), (TOOL, "07"), (TOOL, "x")),
                *((NAMED_TOOL, one, "x"), (NAMED_TOOL, "x", "x"), (TOOL_OF, "p", "x"), (SERVER, one)),
            ],
            NO_DEADLINE,
        )
    thing = {"id": "7", "server_id": one, "name": "x"}
    assert found == {
        (USER, one): [{"id": one, "email": "p"}],
        (TOOL, "7"): [thing],
        (NAMED_TOOL, one, "x"): [thing],
        (TOOL_OF, "p", "x"): [thing],
        (SERVER, one): [{"id": one, "name": "p"}],
    }


PLANS: list[tuple[RowKey, ...]] = [
    ((USER, "user-000100"),),
    tuple((USER, f"user-{number:06d}") for number in range(100)),
    ((TOOL, "tool-1"),),
    ((NAMED_TOOL, "server-00001", "x"),),
    ((TOOL_OF, "backup-00001", "x"),),
    ((SERVER, "server-00001"),),
    ((NAMED_SERVER, "backup-00001"),),
    ((TOOL, "tool-1"), (NAMED_TOOL, "server-00001", "x"), (TOOL_OF, "backup-00001", "x")),
]


def test_every_lookup_goes_by_an_index(registry: str) -> None:
    """With as many rows as make a plan by index the better one, prepared as they are used."""
    with psycopg.connect(registry, autocommit=True) as connection:
        connection.execute("""
            INSERT INTO sark_registry.users (id, email, role)
                SELECT 'user-' || lpad(n::text, 6, '0'), n::text, 'developer' FROM generate_series(1, 5000) n;
            INSERT INTO sark_registry.servers (id, name)
                SELECT 'server-' || lpad(n::text, 5, '0'), 'backup-' || lpad(n::text, 5, '0')
                FROM generate_series(1, 3000) n;
            INSERT INTO sark_registry.tools (id, server_id, name)
                SELECT 'tool-' || n, 'server-' || lpad((n % 3000 + 1)::text, 5, '0'), 'x' || n
                FROM generate_series(1, 10000) n;
            INSERT INTO sark_registry.teams (id, name) VALUES ('t', 'T');
            INSERT INTO sark_registry.team_members (user_id, team_id) SELECT id, 't' FROM sark_registry.users;
            ANALYZE;
        """)
        connection.execute("SET plan_cache_mode = force_generic_plan")
        for number, keys in enumerate(PLANS):
            (question,) = questions(keys)
            sql = statement(question.view.name, question.kinds, "text", "text").decode()
            places = ", ".join("NULL" for _ in question.arrays)
            types = ", ".join("text[]" for _ in question.arrays)
            connection.execute(f"PREPARE p{number} ({types}) AS {sql}".encode())
            rows = connection.execute(f"EXPLAIN (COSTS OFF) EXECUTE p{number} ({places})".encode()).fetchall()
            explained = "\n".join(row for (row,) in rows)
            assert "Index" in explained, explained
            assert "Seq Scan" not in explained, explained


def test_a_registry_that_is_away_at_the_start_is_found_when_it_comes(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    dsn = server.dsn()
    server.stop()
    with a_source(dsn, timeout=Seconds(0.3)) as (reader, _):
        wait_until(lambda: reader.away, "the notice that it is away")
        assert "No such file" in reader.problem
        with pytest.raises(AttributesError, match=r"^the registry cannot be reached$"):
            reader.read([(USER, "alice")], NO_DEADLINE)
        server.start()
        # There are no views yet, and whoever asks is not told of it in the database's words.
        wait_until(lambda: "views" in reader.problem, "the notice that there are no views")
        with pytest.raises(AttributesError, match=r"^the registry cannot be reached$"):
            reader.read([(USER, "alice")], NO_DEADLINE)


def test_a_server_that_restarts_between_two_questions_is_not_away(registry: str) -> None:
    fill(registry, users=USERS)
    with a_source(registry) as (reader, _):
        assert reader.read([(USER, "alice")], NO_DEADLINE)
        with psycopg.connect(registry, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE application_name = 'sark-pdp' AND datname = current_database()"
            )
        assert reader.read([(USER, "alice")], NO_DEADLINE)


def test_a_frozen_server_costs_no_more_than_the_timeout_and_then_nothing(
    start_postgres: StartPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_postgres()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for view, columns in VIEWS_OF_NOTHING.items():
            connection.execute(
                f"CREATE SCHEMA IF NOT EXISTS sark_pdp; CREATE VIEW sark_pdp.{view} AS {columns}".encode()
            )
    with a_source(server.dsn(), timeout=Seconds(0.5)) as (reader, _):
        wait_until(lambda: _reads(reader), "an answer")
        server.freeze()
        try:
            with pytest.raises((AttributesError, DeadlineExceededError)):
                reader.read([(USER, "alice")], Deadline(time.monotonic() + 0.1))
            wait_until(lambda: reader.away, "the notice that it is away")
            with pytest.raises(AttributesError):
                reader.read([(USER, "alice")], NO_DEADLINE)
        finally:
            server.thaw()
        wait_until(lambda: _reads(reader), "an answer")


def _reads(reader: PostgresSource) -> bool:
    try:
        reader.read([(USER, "alice")], NO_DEADLINE)
    except AttributesError:
        return False
    return True


def _nothing(columns: Document) -> str:
    return "SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind in columns.items()) + " WHERE false"


VIEWS_OF_NOTHING = {
    "users": _nothing(
        dict.fromkeys(("id", "email", "role"), "text")
        | dict.fromkeys(("roles", "teams", "permissions"), "text[]")
        | {"active": "boolean"}
    ),
    "servers": _nothing(dict.fromkeys(FILES, "text")),
    "tools": _nothing(
        dict.fromkeys(("id", "server_id", "name", "sensitivity_level", "owner", "team"), "text")
        | {"managers": "text[]", "active": "boolean"}
    ),
}


def test_a_connection_string_that_cannot_be_read_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingsError) as refused, a_source("postgresql://u:secret@[bad/db"):
        pass
    assert "secret" not in str(refused.value)
