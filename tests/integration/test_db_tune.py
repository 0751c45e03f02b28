"""`sark-pdp db tune`: a real server starts with what it prints, and takes every line of it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from sark_pdp.cli import main
from tests.fix_postgres import PostgresServer


def tuned(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["db", "tune", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def values(configuration: str) -> dict[str, str]:
    lines = [line.partition("#")[0] for line in configuration.splitlines()]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines if line.strip())}


@pytest.fixture
def server(initialized_postgres: Path) -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="sark-pg-", dir="/tmp") as folder:
        made = PostgresServer(Path(folder), initialized_postgres)
        yield made
        made.stop()


def test_a_server_starts_with_it_and_uses_each_value(server: PostgresServer) -> None:
    given = tuned("--memory", "256MiB", "--processors", "2", "--disk", "hdd", "--connections", "40")
    file = server.folder / "data" / "tuned.conf"
    file.write_text(given)
    file.chmod(0o644)
    with (server.folder / "data" / "postgresql.conf").open("a") as main_file:
        main_file.write("include 'tuned.conf'\n")
    server.start(("fsync=off", "listen_addresses="))
    with psycopg.connect(server.dsn()) as connection:
        taken: dict[str, str] = dict(
            connection.execute(
                "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%/tuned.conf' AND applied"
                " AND error IS NULL"
            ).fetchall()
        )
        sources = connection.execute(
            "SELECT count(*) FROM pg_settings WHERE name = ANY(%s) AND source = 'configuration file'", [list(taken)]
        ).fetchone()
        shown = {name: connection.execute("SELECT current_setting(%s)", [name]).fetchone() for name in taken}
    assert taken == values(given)
    assert sources == (len(taken),)
    assert shown["shared_buffers"] == ("64MB",)
    assert shown["max_connections"] == ("40",)
    assert shown["random_page_cost"] == ("4",)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--memory", "64GiB", "--processors", "16", "--connections", "200"),
            {
                "shared_buffers": "16GB",
                "effective_cache_size": "48GB",
                "work_mem": "16MB",
                "maintenance_work_mem": "2GB",
                "max_parallel_workers_per_gather": "4",
                "random_page_cost": "1.1",
                "max_worker_processes": "19",
            },
        ),
        (("--memory", "1GiB", "--processors", "1"), {"max_parallel_workers_per_gather": "0", "max_wal_size": "2GB"}),
        (("--memory", "256MiB", "--processors", "64", "--connections", "10000"), {"work_mem": "256kB"}),
        (
            ("--memory", "8GiB", "--processors", "4", "--timescaledb"),
            {
                "shared_preload_libraries": "'timescaledb'",
                "timescaledb.max_background_workers": "16",
                "max_worker_processes": "23",
            },
        ),
    ],
)
def test_values_follow_from_the_machine(arguments: tuple[str, ...], expected: dict[str, str]) -> None:
    found = values(tuned(*arguments))
    assert {name: found.get(name) for name in expected} == expected


def test_each_line_says_what_it_means() -> None:
    assert all(line.partition("#")[2].strip() for line in tuned().splitlines())


def test_timescaledb_is_loaded_only_where_it_is_asked_for() -> None:
    assert "timescaledb" not in tuned()


@pytest.mark.parametrize("memory", ["16", "128MiB", "much"])
def test_a_memory_of_no_use_is_refused(memory: str) -> None:
    result = CliRunner().invoke(main, ["db", "tune", "--memory", memory])
    assert result.exit_code == 2
    assert "--memory" in result.output
