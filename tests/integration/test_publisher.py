"""The publisher between a real PostgreSQL and a real Redis: what changes there is invalidated here, whatever breaks."""

import contextlib
import select
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from sark_pdp.attributes.registry.triggers import CHANNEL
from sark_pdp.cache.redis_connection import RedisServer
from sark_pdp.cache.redis_generations import RedisGenerations
from sark_pdp.cache.redis_link import RedisLink
from sark_pdp.cache.subjects import ATTRIBUTES, named, server, tool, user
from sark_pdp.errors import DatabaseError
from sark_pdp.model import Seconds
from sark_pdp.publisher.listening import Listening
from sark_pdp.publisher.metrics import PublisherMetrics
from sark_pdp.publisher.publisher import Publisher
from tests.fix_bundles import until
from tests.fix_postgres import NewDatabase, PostgresServer, StartPostgres
from tests.fix_redis import RedisProcess, RedisProxy
from tests.fix_registry import add_rows, migrated

EVERYTHING = (
    *(ATTRIBUTES, user("ann"), user("bob"), server("s1"), server("s2")),
    *(tool("t1"), tool("t2"), named("s1", "read"), named(None, "read"), named("s2", "run"), named(None, "run")),
)
CONNECTION = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'sark-pdp publisher' AND datname = current_database()"
)


def execute(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class Shared:
    """The generations in Redis."""

    def __init__(self, redis: RedisProcess, prefix: str) -> None:
        self._redis, self._keys = redis, [f"{prefix}:generation:{subject}" for subject in EVERYTHING]
        self._seen: dict[str, bytes | None] = dict.fromkeys(EVERYTHING)
        self._disturbed = 0
        self.publishers: list[PublisherMetrics] = []

    def changed(self) -> set[str]:
        """Which subjects have another generation than at the last look."""
        before, self._seen = self._seen, dict(zip(EVERYTHING, self._redis.ask("MGET", *self._keys), strict=True))
        return {subject for subject, generation in self._seen.items() if before[subject] != generation}

    def wait_changed(self, *subjects: str) -> None:
        """Until these changed since the last wait, and nothing else.

        Unless a publisher lost PostgreSQL or Redis meanwhile, as on a machine that stands still, and all is read anew.
        """
        seen: set[str] = set()

        def disturbed() -> bool:
            return sum(each.failures.value + each.connections.value for each in self.publishers) > self._disturbed

        def complete() -> bool:
            seen.update(self.changed())
            return seen.issuperset(subjects) or (ATTRIBUTES in seen and disturbed())

        until(complete)
        assert seen == set(subjects) or (ATTRIBUTES in seen and disturbed())
        self._disturbed = sum(each.failures.value + each.connections.value for each in self.publishers)


@pytest.fixture
def shared(redis_server: RedisProcess, redis_prefix: str) -> Shared:
    return Shared(redis_server, redis_prefix)


Publish = Callable[..., Publisher]


@pytest.fixture
def publish(small_registry: str, redis_server: RedisProcess, redis_prefix: str, shared: Shared) -> Iterator[Publish]:
    """Starts a publisher that is stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(dsn: str = small_registry, url: str = redis_server.url, **limits: float) -> Publisher:
            """`limits` are those of `Listening`."""
            link = RedisLink(RedisServer(url=url), Seconds(10.0))
            link.start()
            running.callback(link.close)
            generations = RedisGenerations(link, redis_prefix, Seconds(10.0))
            metrics = PublisherMetrics()
            publisher = Publisher(lambda: Listening(dsn, **limits), generations.invalidate, metrics)
            shared.publishers.append(metrics)
            publisher.start()
            running.callback(publisher.close, Seconds(30.0))
            return publisher

        yield start


def _new_registry(postgres: PostgresServer) -> str:
    migrated(postgres.dsn())
    return add_rows(postgres.dsn())


def wait_publishing(publisher: Publisher, shared: Shared) -> None:
    """What may have been missed before it listened is read anew once."""
    until(lambda: publisher.problem is None)
    shared.wait_changed(ATTRIBUTES)


CHANGES = {
    "UPDATE sark_registry.users SET role = 'admin' WHERE id = 'ann'": {user("ann")},
    "INSERT INTO sark_registry.team_members VALUES ('bob', 'red')": {user("bob")},
    "UPDATE sark_registry.servers SET sensitivity_level = 'low' WHERE id = 's1'": {server("s1")},
    "UPDATE sark_registry.tools SET active = false WHERE id = 't1'": {
        tool("t1"),
        named("s1", "read"),
        named(None, "read"),
    },
    "DELETE FROM sark_registry.servers WHERE id = 's2'": {
        *(server("s2"), tool("t2"), named("s2", "run"), named(None, "run"))
    },
    "TRUNCATE sark_registry.tools": {ATTRIBUTES},
    f"SELECT pg_notify('{CHANNEL}', 'nonsense')": {ATTRIBUTES},
}


def test_a_change_invalidates_exactly_what_it_is_about(small_registry: str, shared: Shared, publish: Publish) -> None:
    wait_publishing(publish(), shared)
    for statement, subjects in CHANGES.items():
        execute(small_registry, statement)
        shared.wait_changed(*subjects)


def test_a_change_while_nobody_listened_is_made_good_by_reading_everything_anew(
    small_registry: str, shared: Shared, publish: Publish
) -> None:
    wait_publishing(publish(), shared)
    [(first,)] = execute(small_registry, CONNECTION)
    # In one transaction: the publisher cannot listen again before the change is there.
    execute(
        small_registry,
        f"SELECT pg_terminate_backend({first}); UPDATE sark_registry.users SET role = 'admin' WHERE id = 'ann'",
    )
    shared.wait_changed(ATTRIBUTES)

    execute(small_registry, "UPDATE sark_registry.users SET role = 'viewer' WHERE id = 'ann'")
    shared.wait_changed(user("ann"))


def test_a_server_that_says_nothing_any_more_is_noticed(
    start_postgres: StartPostgres, shared: Shared, publish: Publish
) -> None:
    postgres = start_postgres()
    publisher = publish(_new_registry(postgres), ask_every=0.2, patience=1.0)
    wait_publishing(publisher, shared)

    postgres.freeze()
    until(lambda: publisher.problem is not None)
    assert "PostgreSQL" in str(publisher.problem)

    postgres.thaw()
    wait_publishing(publisher, shared)


def test_a_server_that_is_away_at_first_is_waited_for(
    start_postgres: StartPostgres, shared: Shared, publish: Publish
) -> None:
    postgres: PostgresServer = start_postgres()
    dsn = _new_registry(postgres)
    postgres.stop()
    publisher = publish(dsn)
    until(lambda: "cannot be reached" in str(publisher.problem))

    postgres.start()
    wait_publishing(publisher, shared)


def test_what_redis_did_not_take_is_made_good_when_it_does(
    small_registry: str, shared: Shared, publish: Publish, redis_proxy: RedisProxy
) -> None:
    publisher = publish(url=redis_proxy.url)
    wait_publishing(publisher, shared)

    redis_proxy.refuse()
    execute(small_registry, "UPDATE sark_registry.users SET role = 'admin' WHERE id = 'ann'")
    until(lambda: publisher.problem == "Redis does not take invalidations")
    assert shared.changed() == set()

    redis_proxy.accept_again()
    shared.wait_changed(ATTRIBUTES)
    until(lambda: publisher.problem is None)


def test_what_redis_did_not_take_does_not_wait_for_postgresql_too(
    start_postgres: StartPostgres, shared: Shared, publish: Publish, redis_proxy: RedisProxy
) -> None:
    postgres = start_postgres()
    dsn = _new_registry(postgres)
    publisher = publish(dsn, url=redis_proxy.url)
    wait_publishing(publisher, shared)

    redis_proxy.refuse()
    execute(dsn, "UPDATE sark_registry.users SET role = 'admin' WHERE id = 'ann'")
    until(lambda: publisher.problem == "Redis does not take invalidations")
    postgres.stop()
    redis_proxy.accept_again()
    shared.wait_changed(ATTRIBUTES)
    until(lambda: "PostgreSQL" in str(publisher.problem))


def hear(listening: Listening) -> list[str]:
    """The next payloads."""
    deadline = time.monotonic() + 60.0
    while not (payloads := listening.wait(1.0)):
        assert time.monotonic() < deadline, "nothing was heard"
    return payloads


def test_what_came_before_the_connection_broke_is_heard(small_registry: str) -> None:
    with contextlib.closing(Listening(small_registry)) as listening:
        until(lambda: listening.wait(1.0) == [] and listening.established)
        execute(small_registry, "UPDATE sark_registry.users SET role = 'admin' WHERE id = 'ann'")
        select.select([listening._connection.fileno()], [], [], 60.0)
        execute(small_registry, f"SELECT pg_terminate_backend(pid, 60000) FROM ({CONNECTION}) AS it")

        assert hear(listening) == ['{"kind": "user", "changed": ["ann"]}']
        with pytest.raises(DatabaseError, match="PostgreSQL is lost"):
            listening.wait(1.0)


def test_ids_are_heard_as_they_are_whatever_the_database_is_kept_in(new_database: NewDatabase) -> None:
    dsn = new_database(encoding="LATIN1")
    migrated(dsn)
    with contextlib.closing(Listening(dsn)) as listening:
        until(lambda: listening.wait(1.0) == [] and listening.established)
        with psycopg.connect(dsn, client_encoding="utf8") as connection:
            connection.execute("INSERT INTO sark_registry.users (id, email, role) VALUES ('zoë', 'zoe@x', 'viewer')")
        heard = hear(listening)
    assert heard == ['{"kind": "user", "changed": ["zoë"]}']


def test_of_two_publishers_one_may_go(small_registry: str, shared: Shared, publish: Publish) -> None:
    first, second = publish(), publish()
    until(lambda: first.problem is None and second.problem is None)
    shared.wait_changed(ATTRIBUTES)
    first.close(Seconds(30.0))

    execute(small_registry, "UPDATE sark_registry.servers SET status = 'inactive' WHERE id = 's1'")
    shared.wait_changed(server("s1"))
    assert second.problem is None
