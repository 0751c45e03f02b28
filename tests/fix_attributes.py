"""A registry in memory and in a real PostgreSQL, and the tiers above it."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sark_pdp.attributes.decider import AttributedDecider
from sark_pdp.attributes.entries import Entry, Shared
from sark_pdp.attributes.names import NAMED_SERVER, NAMED_TOOL, SERVER, TOOL, TOOL_OF, USER
from sark_pdp.attributes.postgres import PostgresOptions, PostgresSource
from sark_pdp.attributes.registry.schema import plan
from sark_pdp.attributes.resolution import Resolver
from sark_pdp.attributes.tiers import AttributeTiers, Lifetimes
from sark_pdp.cache.generations import LocalGenerations
from sark_pdp.errors import AttributesError
from sark_pdp.interfaces import Decider, Generations, RowKey
from sark_pdp.model import Deadline, Document, Seconds
from sark_pdp.observability.database import DatabaseMetrics
from sark_pdp.postgres.migrations import migrate

if TYPE_CHECKING:
    # A plugin of its own, which pytest has to load before anybody else does.
    from tests.fix_postgres import NewDatabase, PostgresServer

LIFETIMES = Lifetimes(Seconds(10.0), Seconds(60.0), Seconds(300.0))
PATIENT = Seconds(20.0)
"""A reading that is not about haste."""


class FakeRegistry:
    """Rows by section. May be away, and counts what it is asked."""

    def __init__(self, **sections: Sequence[Document]) -> None:
        self.rows: dict[str, list[Document]] = {
            name: list(sections.get(name, ())) for name in ("user", "tool", "server")
        }
        self.away = False
        self.asked: list[list[RowKey]] = []

    def read(self, keys: Collection[RowKey], deadline: Deadline) -> Mapping[RowKey, Sequence[Document]]:
        """As `PostgresSource` does."""
        del deadline
        if self.away:
            raise AttributesError("the registry cannot be reached")
        self.asked.append(list(keys))
        return {key: rows for key in keys if (rows := self._of(key))}

    def _of(self, key: RowKey) -> list[Document]:
        match key:
            case (kind, id_) if kind in {USER, TOOL, SERVER}:
                return [row for row in self.rows[kind] if row["id"] == id_]
            case (kind, name) if kind == NAMED_SERVER:
                return [row for row in self.rows["server"] if row.get("name") == name]
            case (kind, server, name) if kind in {NAMED_TOOL, TOOL_OF}:
                ids = [row["id"] for row in self.rows["server"] if row.get("name") == server]
                servers = [server] if kind == NAMED_TOOL else ids
                return [r for r in self.rows["tool"] if r.get("server_id") in servers and r.get("name") == name]
        raise AssertionError(key)


class DictStore:
    """Both an `EntryStore` and, under other keys, a `SharedStore`; never forgets."""

    capacity = 1000
    run_id = b"run"

    def __init__(self) -> None:
        self.entries: dict[Any, Any] = {}
        self.reads = 0

    def get(self, key: RowKey) -> Entry | None:
        found: Entry | None = self.entries.get(key)
        return found

    def put(self, key: RowKey, entry: Entry) -> None:
        self.entries[key] = entry

    def __len__(self) -> int:
        return len(self.entries)

    def get_many(self, keys: Sequence[bytes], waited: Seconds) -> list[Shared | None]:
        del waited
        self.reads += 1
        return [self.entries.get(key) for key in keys]

    def put_later(self, items: Sequence[tuple[bytes, Shared]], run_id: bytes | None) -> None:
        assert run_id == self.run_id
        self.entries.update(items)


def subjects_of(key: RowKey) -> tuple[str, ...]:
    """What an entry counts on, in names of this test."""
    return "all", " ".join(key)


class Above:
    """The tiers over a source, each part at hand."""

    def __init__(
        self,
        source: Any,
        *,
        shared: DictStore | None = None,
        generations: Generations | None = None,
        lifetimes: Lifetimes = LIFETIMES,
    ) -> None:
        self.source, self.shared, self.memory = source, shared, DictStore()
        self.generations = generations or LocalGenerations()
        self.tiers = AttributeTiers(source, self.memory, shared, self.generations, subjects_of, lifetimes)
        self.resolver = Resolver(self.tiers)

    def decider(self, below: Decider, *, trust_caller: bool = False) -> AttributedDecider:
        """The layer as it is used."""
        return AttributedDecider(below, self.resolver, trust_caller=trust_caller)


@pytest.fixture(scope="session")
def registry_template(postgres_server: "PostgresServer") -> str:
    """The name of a database with an empty registry, to make others of."""
    name = "registry_template"
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(postgres_server.dsn(name), autocommit=True) as connection:
        for _ in migrate(connection, plan(connection, "public", triggers=False).migrations):
            pass
    return name


@pytest.fixture
def registry(registry_template: str, new_database: "NewDatabase") -> str:
    """The DSN of a database with an empty registry."""
    return new_database(registry_template)


def fill(dsn: str, **tables: Sequence[Document]) -> None:
    """Adds rows to the tables of a registry."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in ("teams", "users", "team_members", "servers", "tools"):
            for row in tables.get(table, ()):
                names, places = ", ".join(row), ", ".join("%s" for _ in row)
                connection.execute(
                    f"INSERT INTO sark_registry.{table} ({names}) VALUES ({places})".encode(),
                    list(row.values()),
                )


@contextmanager
def a_source(dsn: str, **options: Any) -> Iterator[tuple[PostgresSource, DatabaseMetrics]]:
    """Started, and closed at the end."""
    metrics = DatabaseMetrics()
    given = {"password_file": None, "pool_size": 2, "pool_overflow": 0, "timeout": PATIENT, **options}
    source = PostgresSource(PostgresOptions(dsn, **given), metrics)
    source.start()
    try:
        yield source, metrics
    finally:
        source.close()


def wait_until(holds: Any, what: str) -> None:
    """Polls for at most 30 s."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)
