"""`sark-pdp publisher` as a process: a row changes in PostgreSQL, and a sidecar answers anew."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sark_pdp.client import Client
from sark_pdp.client.answers import Answer
from tests.fix_bundles import until
from tests.fix_publisher import PublisherProcess
from tests.fix_redis import RedisProcess
from tests.fix_registry import add_rows
from tests.fix_serve import Serve

PATIENCE = 60.0
ROWS = """
INSERT INTO sark_registry.users (id, email, role) VALUES ('ann', 'ann@x', 'viewer'), ('bob', 'bob@x', 'admin');
INSERT INTO sark_registry.servers (id, name, visibility, sensitivity_level, status) VALUES
    ('s1', 'files', 'public', 'low', 'active');
INSERT INTO sark_registry.tools (id, server_id, name) VALUES ('t1', 's1', 'read');
"""


@pytest.fixture
def mac_key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n")
    return file


@pytest.fixture
def filled(registry: str) -> str:
    """The DSN of a registry with the rows above."""
    return add_rows(registry, ROWS)


@pytest.fixture
def publisher(
    sark_pdp: Path, tmp_path: Path, filled: str, redis_server: RedisProcess, redis_prefix: str
) -> Iterator[PublisherProcess]:
    """One that runs and is ready."""
    settings = {"attributes.postgres_dsn": filled, "cache.l2.url": redis_server.url, "cache.l2.prefix": redis_prefix}
    started = PublisherProcess(sark_pdp, tmp_path, settings)
    try:
        until(lambda: started.get("/readyz")[0] == 200)
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_a_change_of_a_row_changes_the_answer(
    publisher: PublisherProcess,
    serve: Serve,
    filled: str,
    redis_server: RedisProcess,
    redis_prefix: str,
    mac_key_file: Path,
) -> None:
    """What is kept lives for an hour here: only an invalidation makes a sidecar look again."""
    sidecar = serve(
        {
            "attributes.postgres_dsn": filled,
            "attributes.ttl": "1h",
            "attributes.l1.ttl": "1h",
            "attributes.timeout": "20s",
            "cache.l1.ttl": "1h",
            "cache.l2.url": redis_server.url,
            "cache.l2.prefix": redis_prefix,
            "cache.l2.mac_key_file": str(mac_key_file),
            "cache.l2.timeout": "1s",
        }
    )
    sidecar.wait_ready()

    with Client(sidecar.grpc, timeout=PATIENCE) as client:

        def ask(user: str) -> Answer:
            return client.check(user={"id": user}, action="tool:list", tool={"id": "t1"})

        def wait_answer(*, allow: bool, after: str) -> Answer:
            with psycopg.connect(filled, autocommit=True) as connection:
                connection.execute(after.encode())
            deadline = time.monotonic() + PATIENCE
            while (answer := ask("ann")).allow is not allow:
                assert time.monotonic() < deadline, (after, answer, publisher.log)
                time.sleep(0.02)
            return answer

        until(lambda: ask("ann").allow)
        # A change of the server reaches its tools, which say nothing of their own sensitivity.
        wait_answer(allow=False, after="UPDATE sark_registry.servers SET sensitivity_level = 'critical'")
        wait_answer(allow=True, after="UPDATE sark_registry.users SET role = 'admin' WHERE id = 'ann'")
        refused = wait_answer(allow=False, after="UPDATE sark_registry.tools SET active = false")
        assert "not active" in refused.reason
        assert not ask("bob").allow


def test_it_tells_what_it_does_and_ends_when_told_to(publisher: PublisherProcess, filled: str) -> None:
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute("UPDATE sark_registry.users SET role = 'developer' WHERE id = 'ann'")
    until(lambda: 'sark_publisher_notifications_total{kind="user"} 1.0' in publisher.get("/metrics")[1])

    assert publisher.get("/healthz")[0] == 200
    assert "sark_publisher_listening 1.0" in publisher.get("/metrics")[1]
    publisher.process.send_signal(signal.SIGTERM)
    assert publisher.process.wait(PATIENCE) == 0
    assert "listening to the registry" in publisher.log
    assert "Traceback" not in publisher.log
    assert "no table of the database" not in publisher.log


def test_it_warns_of_a_database_where_nothing_tells_of_changes(
    sark_pdp: Path, tmp_path: Path, database: str, redis_server: RedisProcess, redis_prefix: str
) -> None:
    settings = {"attributes.postgres_dsn": database, "cache.l2.url": redis_server.url, "cache.l2.prefix": redis_prefix}
    started = PublisherProcess(sark_pdp, tmp_path, settings)
    try:
        until(lambda: "no table of the database tells of changes" in started.log)
    finally:
        started.process.kill()
        started.process.wait()


def test_it_is_not_ready_while_what_it_needs_is_away(sark_pdp: Path, tmp_path: Path) -> None:
    away = {"attributes.postgres_dsn": "host=/nonexistent", "cache.l2.url": "unix:///nonexistent/redis.sock"}
    started = PublisherProcess(sark_pdp, tmp_path, away)
    try:
        until(lambda: started.get("/readyz")[0] == 503)
        until(lambda: "cannot be reached (host=/nonexistent)" in started.get("/readyz")[1])
        assert started.get("/healthz")[0] == 200
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(PATIENCE) == 0
    finally:
        started.process.kill()
        started.process.wait()
