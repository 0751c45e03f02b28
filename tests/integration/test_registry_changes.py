"""What the triggers of the registry notify of: exactly the rows whose attributes changed, in bounded payloads."""

import json
from typing import Any

import psycopg
import pytest

from sark_pdp.attributes.registry.triggers import CHANNEL
from tests.fix_registry import SARK, add_rows, migrated


def notified(dsn: str, *statements: str) -> list[dict[str, Any]]:
    """The payloads that a listener gets of these statements, each a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as writer:
        listener.execute(f"LISTEN {CHANNEL}".encode())
        for statement in statements:
            writer.execute(statement.encode())
        # What is committed before comes before.
        writer.execute("SELECT pg_notify(%s, 'end')", [CHANNEL])
        payloads: list[dict[str, Any]] = []
        for notification in listener.notifies(timeout=60):
            if notification.payload == "end":
                return payloads
            assert len(notification.payload.encode()) < 8000
            payloads.append(json.loads(notification.payload))
    raise AssertionError("the end was not heard")


USER, SERVER = "sark_registry.users", "sark_registry.servers"
CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "a role": (f"UPDATE {USER} SET role = 'admin' WHERE id = 'ann'", [{"kind": "user", "changed": ["ann"]}]),
    "the same role again": (f"UPDATE {USER} SET role = role", []),
    "what no decision reads": (f"UPDATE {USER} SET created_at = now() - interval '1 day'", []),
    "a new user": (
        f"INSERT INTO {USER} (id, email, role) VALUES ('eve', 'eve@x', 'viewer')",
        [{"kind": "user", "changed": ["eve"]}],
    ),
    "a user joins a team": (
        "INSERT INTO sark_registry.team_members VALUES ('bob', 'red')",
        [{"kind": "user", "changed": ["bob"]}],
    ),
    "a user is renamed": (
        f"UPDATE {USER} SET id = 'anna' WHERE id = 'ann'",
        [
            {"kind": "user", "changed": ["ann", "anna"]},
            {"kind": "server", "changed": ["s1"]},
        ],
    ),
    "a team is deleted": (
        "DELETE FROM sark_registry.teams WHERE id = 'red'",
        [{"kind": "user", "changed": ["ann"]}, {"kind": "server", "changed": ["s1"]}],
    ),
    "a team is renamed": (
        "UPDATE sark_registry.teams SET id = 'green' WHERE id = 'red'",
        [{"kind": "user", "changed": ["ann"]}, {"kind": "server", "changed": ["s1"]}],
    ),
    "how a team is called": ("UPDATE sark_registry.teams SET name = 'Crimson' WHERE id = 'red'", []),
    "a server": (
        f"UPDATE {SERVER} SET sensitivity_level = 'critical' WHERE id = 's1'",
        [{"kind": "server", "changed": ["s1"]}],
    ),
    "a server goes with its tools": (
        f"DELETE FROM {SERVER} WHERE id = 's1'",
        [{"kind": "server", "changed": ["s1"]}, {"kind": "tool", "changed": [["t1", "s1", "read"]]}],
    ),
    "a tool": (
        "UPDATE sark_registry.tools SET active = false WHERE id = 't1'",
        [{"kind": "tool", "changed": [["t1", "s1", "read"]]}],
    ),
    "a tool gets another name": (
        "UPDATE sark_registry.tools SET name = 'write' WHERE id = 't1'",
        [{"kind": "tool", "changed": [["t1", "s1", "read"], ["t1", "s1", "write"]]}],
    ),
    "a tool moves": (
        "UPDATE sark_registry.tools SET server_id = 's2' WHERE id = 't1'",
        [{"kind": "tool", "changed": [["t1", "s1", "read"], ["t1", "s2", "read"]]}],
    ),
    "everything": (
        "TRUNCATE sark_registry.teams CASCADE",
        [{"kind": kind, "all": True} for kind in ("user", "server", "tool")],
    ),
    "nothing": (f"DELETE FROM {USER} WHERE id = 'nobody'", []),
}


@pytest.mark.parametrize("name", CASES)
def test_exactly_what_changed_is_notified(small_registry: str, name: str) -> None:
    statement, expected = CASES[name]

    told = notified(small_registry, statement)
    assert sorted(map(_in_order, told)) == sorted(map(_in_order, expected))


def _in_order(payload: dict[str, Any]) -> str:
    return json.dumps({key: sorted(value) if isinstance(value, list) else value for key, value in payload.items()})


def _insert(number: int) -> str:
    return (
        f"INSERT INTO {USER} (id, email, role) SELECT 'u' || n, n || '@x', 'viewer' FROM generate_series(1, {number}) n"
    )


def test_many_rows_of_one_statement_come_in_several_payloads(small_registry: str) -> None:
    told = notified(small_registry, _insert(1000))

    assert len(told) > 1
    assert sorted(id_ for payload in told for id_ in payload["changed"]) == sorted(f"u{n}" for n in range(1, 1001))


def test_very_many_rows_of_one_statement_are_told_of_as_all(small_registry: str) -> None:
    statements = (_insert(1001), f"UPDATE {USER} SET role = 'admin'", f"DELETE FROM {USER} WHERE id LIKE 'u%'")

    assert notified(small_registry, *statements) == [{"kind": "user", "all": True}] * 3


def test_an_id_that_no_payload_holds_is_told_of_as_all(small_registry: str) -> None:
    long = f"INSERT INTO {USER} (id, email, role) VALUES (repeat('ä', 4000), 'long@x', 'viewer')"

    assert notified(small_registry, long) == [{"kind": "user", "all": True}]


def test_ids_travel_as_they_are(small_registry: str) -> None:
    odd = "a\"b\\c\n'é☃"
    statement = f"INSERT INTO {USER} (id, email, role) VALUES (E'a\"b\\\\c\\n''é☃', 'odd@x', 'viewer')"

    assert notified(small_registry, statement) == [{"kind": "user", "changed": [odd]}]


def test_whoever_may_write_the_tables_needs_no_right_on_the_schema_of_the_triggers(small_registry: str) -> None:
    with psycopg.connect(small_registry, autocommit=True) as connection:
        role = f"writer_{connection.info.dbname}"
        connection.execute(
            f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA sark_registry TO {role};"
            f"GRANT SELECT, UPDATE ON {USER} TO {role}".encode()
        )
        try:
            told = notified(
                small_registry, f"SET ROLE {role}; UPDATE {USER} SET role = 'admin' WHERE id = 'bob'; RESET ROLE"
            )
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert told == [{"kind": "user", "changed": ["bob"]}]


@pytest.fixture
def foreign(database: str) -> str:
    """A database with the tables of another program."""
    return add_rows(database, SARK)


def test_tables_of_another_program_notify_where_that_is_asked_for(foreign: str) -> None:
    migrated(foreign)
    change = "UPDATE mcp_servers SET status = 'REGISTERED'"
    assert notified(foreign, change) == []

    migrated(foreign, "--triggers")
    told = notified(
        foreign,
        "UPDATE mcp_tools SET invocation_count = invocation_count + 1",
        "UPDATE users SET extra_metadata = '{\"last_login\": 1}'",
        "UPDATE mcp_tools SET sensitivity_level = 'CRITICAL'",
        "DELETE FROM user_teams",
    )
    ann, server, tool = (f"{n}0000000-0000-0000-0000-00000000000{n}" for n in (1, 3, 4))
    assert told == [
        {"kind": "tool", "changed": [[tool, server, "read_file"]]},
        {"kind": "user", "changed": [ann]},
    ]


def test_a_program_that_changes_its_columns_can_still_write_and_all_is_told_of(foreign: str) -> None:
    migrated(foreign, "--triggers")
    told = notified(
        foreign,
        "ALTER TABLE mcp_servers RENAME sensitivity_level TO level",
        "UPDATE mcp_servers SET level = 'LOW'",
        "ALTER TABLE user_teams RENAME user_id TO member",
        "DELETE FROM user_teams",
    )
    assert told == [{"kind": "server", "all": True}, {"kind": "user", "all": True}]


def test_triggers_that_are_there_follow_the_columns_of_the_views(foreign: str) -> None:
    migrated(foreign, "--triggers")
    add_rows(foreign, "ALTER TABLE mcp_servers ADD visibility varchar(20) DEFAULT 'INTERNAL'")
    migrated(foreign)

    assert [each["kind"] for each in notified(foreign, "UPDATE mcp_servers SET visibility = 'PUBLIC'")] == ["server"]
    assert migrated(foreign).stderr.endswith("nothing to do\n")


def test_triggers_that_were_dropped_are_put_back_when_asked_for(foreign: str) -> None:
    migrated(foreign, "--triggers")
    add_rows(foreign, "DROP FUNCTION sark_pdp.mcp_servers_changed CASCADE")
    change = "UPDATE mcp_servers SET status = 'REGISTERED'"
    assert notified(foreign, change) == []

    migrated(foreign, "--triggers")
    assert [each["kind"] for each in notified(foreign, "UPDATE mcp_servers SET status = 'ACTIVE'")] == ["server"]


def test_a_name_in_other_capitals_is_another_name_whatever_the_type_says(foreign: str) -> None:
    add_rows(foreign, "CREATE EXTENSION citext; ALTER TABLE mcp_tools ALTER name TYPE citext")
    migrated(foreign, "--triggers")

    [told] = notified(foreign, "UPDATE mcp_tools SET name = 'Read_File'")
    assert {name for _, _, name in told["changed"]} == {"read_file", "Read_File"}
