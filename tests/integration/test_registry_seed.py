"""`sark-pdp db seed`: the same rows for the same number, and never over somebody's rows."""

import contextlib
import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from click.testing import Result

from tests.fix_postgres import NewDatabase
from tests.fix_registry import db, migrated

SIZES = ("--servers=40", "--tools=2500", "--users=1200")


def seeded(dsn: str, *arguments: str) -> Result:
    migrated(dsn)
    return db("seed", "--dsn", dsn, *SIZES, *arguments)


def content(dsn: str) -> dict[str, str]:
    """A digest of the rows of each view, and of how many there are."""
    digest = "SELECT count(*) || md5(string_agg(row::text, '|' ORDER BY row::text)) FROM (SELECT * FROM {}) AS row"
    with psycopg.connect(dsn) as connection:
        rows = {name: connection.execute(digest.format(f"sark_pdp.{name}").encode()).fetchone() for name in NAMES}
    return {name: row[0] for name, row in rows.items() if row is not None}


NAMES = ("users", "servers", "tools")


def test_fills_the_registry_and_tells_how_far_it_is(database: str) -> None:
    result = seeded(database)

    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [
        "teams: 48 rows",
        "users: 1,200 rows",
        "team_members: 1,200 rows",
        "servers: 40 rows",
        "tools: 2,500 rows",
    ]
    with psycopg.connect(database) as connection:
        counted = [connection.execute(f"SELECT count(*) FROM sark_pdp.{name}".encode()).fetchone() for name in NAMES]
        teams = connection.execute("SELECT DISTINCT cardinality(teams) FROM sark_pdp.users").fetchall()
        owned = connection.execute(
            "SELECT count(*) FROM sark_pdp.tools t JOIN sark_pdp.servers s ON s.id = server_id JOIN sark_pdp.users u"
            " ON u.id = t.owner WHERE s.owner_id IS NOT NULL"
        ).fetchone()
    assert (counted, teams, owned) == ([(1200,), (40,), (2500,)], [(1,)], (2500,))


def test_the_same_number_makes_the_same_rows_and_another_number_others(new_database: NewDatabase) -> None:
    first, again, other = new_database(), new_database(), new_database()
    for dsn, number in ((first, "7"), (again, "7"), (other, "8")):
        assert seeded(dsn, "--seed", number).exit_code == 0

    assert content(first) == content(again)
    assert all(content(first)[name] != content(other)[name] for name in NAMES)


def test_rows_that_are_there_are_only_replaced_when_it_is_asked_for(database: str) -> None:
    assert seeded(database).exit_code == 0
    before = content(database)

    refused = db("seed", "--dsn", database, "--users=1", "--servers=1", "--tools=0")
    assert refused.exit_code == 2
    assert "sark_registry.teams holds rows; give --replace" in refused.stderr
    assert content(database) == before

    replaced = db("seed", "--dsn", database, "--users=1", "--servers=1", "--tools=0", "--replace")
    assert replaced.exit_code == 0
    assert replaced.stderr.splitlines()[-2:] == ["servers: 1 rows", "tools: 0 rows"]
    assert content(database)["users"].startswith("1")


@pytest.mark.parametrize("arguments", [(), ("--replace",)], ids=["fill", "replace"])
def test_only_tables_of_this_program_are_filled(database: str, arguments: tuple[str, ...]) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (id text)")
    result = db("seed", "--dsn", database, *arguments)

    assert result.exit_code == 2
    assert "run `sark-pdp db migrate --registry` first" in result.stderr


def test_on_a_terminal_bars_show_how_far_it_is(registry: str, sark_pdp: Path) -> None:
    ours, its = os.openpty()
    command = [str(sark_pdp), "db", "seed", "--dsn", registry, *SIZES]
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 (a descriptor)
        process = subprocess.Popen(command, stderr=its, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
        os.close(its)
        shown = b""
        # The terminal of a process that ended cannot be read any more.
        with contextlib.suppress(OSError):
            while piece := terminal.read(65536):
                shown += piece
        assert process.wait(60) == 0
    assert b"tools" in shown
    assert b"100%" in shown
