"""`sark-pdp db migrate --registry`: tables and views on a real PostgreSQL, once, together, and over what is there."""

import threading
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import sark_pdp.attributes.registry
from sark_pdp.attributes.columns import VIEWS
from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.migrations import Migration, migrate, pending, read_migrations
from tests.fix_postgres import NewDatabase
from tests.fix_registry import SARK, db, migrated

CATALOGUE = """
SELECT relname, relkind::text, attname, format_type(atttypid, atttypmod), relacl::text, relowner, reltuples,
    ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid ORDER BY 1),
    ARRAY(SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = c.oid ORDER BY 1)
FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 2, 3
"""


def shape(connection: psycopg.Connection) -> dict[str, dict[str, str]]:
    """The columns and types of what schema sark_pdp has."""
    found: dict[str, dict[str, str]] = {}
    query = """
        SELECT relname, attname, format_type(atttypid, atttypmod)
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = 'sark_pdp'::regnamespace AND relkind = 'v' ORDER BY attnum
    """
    for view, column, type_name in connection.execute(query):
        found.setdefault(view, {})[column] = type_name
    return found


def expected_shape() -> dict[str, dict[str, str]]:
    def type_of(column: str, lists: frozenset[str]) -> str:
        return "text[]" if column in lists else "boolean" if column == "active" else "text"

    return {view.name: {column: type_of(column, view.lists) for column in view.columns} for view in VIEWS}


def test_makes_the_views_that_sidecars_read_and_has_nothing_to_do_the_second_time(database: str) -> None:
    first, second = migrated(database), migrated(database)

    assert "the schema is up to date" in first.stderr
    assert second.stderr == "nothing to do\n"
    with psycopg.connect(database) as connection:
        assert shape(connection) == expected_shape()


def test_a_dry_run_changes_nothing_and_prints_statements_that_do_it(new_database: NewDatabase) -> None:
    looked_at, by_hand = new_database(), new_database()
    printed = migrated(looked_at, "--dry-run").stdout

    with psycopg.connect(looked_at) as connection:
        assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'sark%'").fetchone() == (0,)
    with psycopg.connect(by_hand) as connection:
        connection.execute(printed.encode())
        assert shape(connection) == expected_shape()
    assert migrated(by_hand).stderr == "nothing to do\n"
    assert migrated(by_hand, "--dry-run").stdout == ""


LOOKUPS = {
    "user by id": ("SELECT * FROM sark_pdp.users WHERE id = 'user-000001'", "users_pkey"),
    "server by id": ("SELECT * FROM sark_pdp.servers WHERE id = ANY('{server-00001,server-00002}')", "servers_pkey"),
    "tool by id": ("SELECT * FROM sark_pdp.tools WHERE id = ANY('{tool-000001,tool-000002}')", "tools_pkey"),
    "tool by server and name": (
        "SELECT * FROM sark_pdp.tools WHERE server_id = 'server-00001' AND name = 'read_files_0'",
        "tools_server_id_name_key",
    ),
    "teams of a user": ("SELECT teams FROM sark_pdp.users WHERE id = 'user-000001'", "team_members_pkey"),
    "user by email": ("SELECT * FROM sark_registry.users WHERE email = 'user-000001@example.com'", "users_email"),
    "active users by role": ("SELECT id FROM sark_registry.users WHERE role = 'admin' AND active", "users_role_where"),
    "members of a team": ("SELECT * FROM sark_registry.team_members WHERE team_id = 'team-00001'", "team_members_team"),
    "servers by status": ("SELECT id FROM sark_registry.servers WHERE status = 'unhealthy'", "servers_status"),
    "servers by owner": ("SELECT id FROM sark_registry.servers WHERE owner_id = 'user-000001'", "servers_owner"),
    "servers by team": ("SELECT id FROM sark_registry.servers WHERE team_id = 'team-00001'", "servers_team"),
    "active servers by team": (
        "SELECT id FROM sark_registry.servers WHERE team_id = 'team-00001' AND status = 'active'",
        "servers_team_where_active",
    ),
    "servers by a part of the name": ("SELECT id FROM sark_registry.servers WHERE name LIKE '%yment%'", "trigram"),
    "tools by name": ("SELECT id FROM sark_registry.tools WHERE name = 'read_files_0'", "tools_name"),
    "tools by sensitivity": ("SELECT id FROM sark_registry.tools WHERE sensitivity_level = 'low'", "tools_sensitivity"),
}


def test_what_the_registry_is_asked_has_an_index(database: str) -> None:
    """Sequential scans are made expensive, so that the plan does not depend on how few rows there are."""
    migrated(database)
    assert db("seed", "--dsn", database, "--servers=300", "--tools=900", "--users=600").exit_code == 0

    with psycopg.connect(database) as connection:
        connection.execute("SET enable_seqscan = off")
        plans = {
            name: "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}".encode()))
            for name, (query, _) in LOOKUPS.items()
        }
    assert {name: plan for name, plan in plans.items() if LOOKUPS[name][1] not in plan} == {}


def test_two_that_migrate_at_the_same_time_take_turns(database: str) -> None:
    migrations = read_migrations("registry", files(sark_pdp.attributes.registry))
    applied: list[str] = []

    def one() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            applied.extend(done.migration.title for done in migrate(connection, migrations))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(applied) == sorted(migration.title for migration in migrations)


ONE = Migration("trial", 1, "one", "CREATE TABLE one (x int)")
TWO = Migration("trial", 2, "two", "CREATE TABLE two (x int); SELECT 1 / 0")
STATE = Migration("trial", 0, "state", "CREATE OR REPLACE VIEW state AS SELECT 1 AS x")


def test_a_failed_migration_leaves_nothing_and_what_came_before_stays(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(DatabaseError, match="trial 0002 two cannot be applied: division by zero"):
            list(migrate(connection, [ONE, TWO]))

        assert connection.execute("SELECT to_regclass('one') IS NOT NULL, to_regclass('two')").fetchone() == (
            True,
            None,
        )
        assert pending(connection, [ONE, TWO]) == [TWO]


def test_what_describes_a_state_is_applied_again_when_it_changed(database: str) -> None:
    changed = Migration("trial", 0, "state", "CREATE OR REPLACE VIEW state AS SELECT 1 AS x, 2 AS y")
    with psycopg.connect(database, autocommit=True) as connection:
        for migrations, expected in (([STATE], 1), ([STATE], 0), ([changed], 1), ([changed], 0)):
            assert len(list(migrate(connection, migrations))) == expected
        assert connection.execute("SELECT * FROM state").fetchone() == (1, 2)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ([Migration("trial", 1, "one", "CREATE TABLE other ()")], "trial 0001 one was applied with other statements"),
        ([], None),
        ([Migration("trial", 2, "two", "SELECT 1")], "migrated by a newer program, for it has trial 0001 one"),
    ],
    ids=["another content", "another part", "a newer database"],
)
def test_a_database_of_another_version_is_refused(database: str, known: list[Migration], says: str | None) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        list(migrate(connection, [ONE]))
        if says is None:
            assert list(migrate(connection, known)) == []
            return
        with pytest.raises(DatabaseError, match=says):
            list(migrate(connection, known))


def test_what_the_server_cannot_do_is_left_out_told_of_and_tried_again(database: str) -> None:
    impossible = Migration("trial", 1, "search", "CREATE EXTENSION no_such_extension", dispensable="it is slow")
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2):
            outcome = list(migrate(connection, [impossible, Migration("trial", 2, "next", "SELECT 1")]))
            assert outcome[0].skipped.endswith("without it it is slow")
        assert [done.migration.name for done in outcome] == ["search"]


def test_over_sarks_own_tables_there_are_only_views_and_they_stay_as_they_are(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SARK.encode())
        before = connection.execute(CATALOGUE.encode()).fetchall()
        result = migrated(database)

        assert "public.mcp_servers" in result.stderr
        assert connection.execute(CATALOGUE.encode()).fetchall() == before
        assert connection.execute("SELECT to_regnamespace('sark_registry')").fetchone() == (None,)
        rows = {
            view.name: connection.execute(f"SELECT {', '.join(view.columns)} FROM {view.qualified}".encode()).fetchall()
            for view in VIEWS
        }
    ann, payments, server, tool = (f"{n}0000000-0000-0000-0000-00000000000{n}" for n in (1, 2, 3, 4))
    assert [[_text(value) for value in row] for row in rows["users"]] == [
        [ann, "ann@example.com", "developer", None, [payments], None, True]
    ]
    assert [[_text(value) for value in row] for row in rows["servers"]] == [
        [server, "files", ann, payments, payments, None, None, "high", "active"]
    ]
    assert [[_text(value) for value in row] for row in rows["tools"]] == [
        [tool, server, "read_file", "low", None, ["ann", "bob"], None, None]
    ]
    assert migrated(database).stderr.endswith("nothing to do\n")


def _text(value: object) -> object:
    return value if value is None or isinstance(value, bool | list) else str(value)


def test_views_over_other_tables_follow_columns_that_come_later(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SARK.encode())
        migrated(database)
        connection.execute("ALTER TABLE mcp_servers ADD visibility varchar(20) DEFAULT 'INTERNAL'")
        migrated(database)
        assert connection.execute("SELECT visibility FROM sark_pdp.servers").fetchone() == ("internal",)


def test_a_view_that_was_dropped_is_made_again(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SARK.encode())
        migrated(database)
        # As for a column of another type: the statements of the views stay the same.
        connection.execute("DROP VIEW sark_pdp.tools; ALTER TABLE mcp_tools ALTER name TYPE text")
        migrated(database)
        assert connection.execute("SELECT name FROM sark_pdp.tools").fetchone() == ("read_file",)


def test_json_that_is_no_text_does_not_make_the_row_unreadable(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SARK.encode())
        migrated(database)
        for written, read in LISTS.items():
            connection.execute("UPDATE mcp_tools SET managers = %s::json", [written])
            assert connection.execute("SELECT managers FROM sark_pdp.tools").fetchone() == (read,), written


LISTS = {
    '["ann", "bob"]': ["ann", "bob"],
    r'["b\u00f6b", "\"ann\"", "a\\b"]': ["b\u00f6b", '"ann"', "a\\b"],
    "[]": [],
    '{"ann": 1}': [],
    '"ann"': [],
    r'["ann\u0000", "bob"]': ["bob"],
    r'["\ud800", "bob"]': ["bob"],
}


def test_a_schema_without_a_registry_is_refused_where_it_was_named(database: str) -> None:
    result = db("migrate", "--registry", "--dsn", database, "--existing-schema", "srak")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "--existing-schema srak: there are no tables mcp_servers and mcp_tools" in result.stderr
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regnamespace('sark_pdp')").fetchone() == (None,)


def test_views_of_somebodys_own_are_not_replaced(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA sark_pdp; CREATE VIEW sark_pdp.users AS SELECT 'ann' AS id")
        result = db("migrate", "--registry", "--dsn", database)

        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "there is a view sark_pdp.users already, but no registry in schema public" in result.stderr
        assert connection.execute("SELECT * FROM sark_pdp.users").fetchone() == ("ann",)


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ("CREATE TABLE users (id int); CREATE TABLE mcp_servers (id int)", "but no table mcp_tools"),
        ("CREATE TABLE mcp_tools (id int)", "but no table users or principals and no table mcp_servers"),
        (
            "CREATE TABLE users (id int); CREATE TABLE mcp_servers (id int); CREATE TABLE mcp_tools (id int)",
            "table public.mcp_tools has no column server_id and no column name",
        ),
    ],
    ids=["no tools", "tools alone", "tools of no server"],
)
def test_a_part_of_a_registry_is_refused_and_nothing_is_made(database: str, tables: str, says: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(tables.encode())
        result = db("migrate", "--registry", "--dsn", database)

        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
        assert connection.execute("SELECT to_regnamespace('sark_pdp')").fetchone() == (None,)


def test_somebody_elses_users_are_not_taken_for_a_registry(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (name text)")
        migrated(database)
        assert connection.execute("SELECT to_regclass('sark_registry.users') IS NOT NULL").fetchone() == (True,)


def test_a_password_is_taken_from_a_file_or_the_environment_but_not_from_the_command_line(
    database: str, tmp_path: Path
) -> None:
    secret = make_conninfo(database, password="hunter2")
    file = tmp_path / "dsn"
    file.write_text(f"{secret}\n")

    typed = db("migrate", "--registry", "--dsn", secret)
    assert (typed.exit_code, "--dsn holds a password" in typed.stderr) == (2, True)
    assert "hunter2" not in typed.output
    assert db("migrate", "--registry", "--dsn-file", str(file)).exit_code == 0
    assert db("migrate", "--registry", SARK_DB_DSN=secret).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no database is named: give --dsn or --dsn-file, or set SARK_DB_DSN"),
        (("--dsn", "postgres//u:hunter2@h"), "cannot be read; expected postgresql://"),
        (("--dsn", "host=no..host"), "PostgreSQL cannot be reached (host=no..host): there can be no host of this name"),
        (("--dsn", "host=/nonexistent dbname=x"), "PostgreSQL cannot be reached (dbname=x host=/nonexistent):"),
        (("--dsn-file", "/nonexistent"), "/nonexistent: cannot be read: No such file or directory"),
        (("--dsn-file", "/dev/null"), "/dev/null: does not hold one line"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_of_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    result = db("migrate", "--registry", *arguments)

    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.output


def test_a_user_who_may_not_is_told_so(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        role = f"reader_{connection.info.dbname}"
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            result = db("migrate", "--registry", "--dsn", make_conninfo(database, user=role))
        finally:
            connection.execute(f"DROP ROLE {role}".encode())
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "the record of migrations cannot be kept: permission denied" in result.stderr
