"""Databases with the tables of the audit trail, in the form that a test asks for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
import uuid_utils
from psycopg_pool import ConnectionPool

from sark_pdp.audit_writer.columns import Row, row_of
from sark_pdp.audit_writer.maintenance import Keeping, maintain
from sark_pdp.audit_writer.questions import Questions
from sark_pdp.audit_writer.schema import Form, form_of, migrations, offers_timescale
from sark_pdp.audit_writer.sessions import ASKING, MAINTAINING, WRITING, session_of
from sark_pdp.audit_writer.store import EventStore
from sark_pdp.postgres.connections import connect
from sark_pdp.postgres.migrations import migrate
from tests.fix_postgres import NewDatabase, PostgresServer

KEEPING = Keeping(timedelta(days=90), timedelta(days=7))
SOURCE = "pod-1/0123456789abcdef"


class Trail:
    """A database with the tables, and what works on it."""

    def __init__(self, dsn: str, form: Form) -> None:
        self.dsn = dsn
        self.form = form
        self.store = EventStore(lambda: connect(session_of(dsn, WRITING), "test"))
        self.pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            session_of(dsn, ASKING), min_size=1, max_size=2, kwargs={"autocommit": True}, open=True
        )
        self.questions = Questions(self.pool)

    def all(self, query: str) -> list[Any]:
        with connect(session_of(self.dsn, MAINTAINING), "test") as connection:
            found = connection.execute(query.encode())
            return found.fetchall() if found.description else []

    def maintain(self, keeping: Keeping = KEEPING) -> bool:
        with connect(session_of(self.dsn, MAINTAINING), "test") as connection:
            return maintain(connection, keeping)

    def compress(self) -> int:
        """Compresses what TimescaleDB would compress later; how many days these were."""
        if self.form is Form.PLAIN:
            return 0
        return len(self.all("SELECT compress_chunk(c, true) FROM show_chunks('audit_events') c"))

    def drop_expired(self) -> None:
        """What the retention does: a pass of a writer, or a job of TimescaleDB."""
        if self.form is Form.PLAIN:
            assert self.maintain()
            return
        self.run_jobs("audit_events", "policy_retention")

    def run_jobs(self, table: str, procedure: str) -> None:
        """Runs a policy of TimescaleDB now, and waits for its end."""
        jobs = self.all(
            "SELECT job_id FROM timescaledb_information.jobs"
            f" WHERE hypertable_name = '{table}' AND proc_name = '{procedure}'"
        )
        assert len(jobs) == 1
        self.all(f"CALL run_job({jobs[0][0]})")

    def close(self) -> None:
        self.pool.close()
        self.store.close()


def make_store(dsn: str, form: Form) -> None:
    """The tables, empty; nothing happens to them that the test does not do."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert len(list(migrate(connection, migrations(form)))) >= 2
        assert form_of(connection) is form
        if form is Form.TIMESCALE:
            # Policies run when the test says so.
            connection.execute("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs")


@pytest.fixture(scope="session")
def has_timescale(postgres_server: PostgresServer) -> bool:
    """Whether the server offers it."""
    with psycopg.connect(postgres_server.dsn()) as connection:
        return offers_timescale(connection)


@pytest.fixture(params=list(Form), ids=lambda form: str(form.value))
def form(request: pytest.FixtureRequest, has_timescale: bool) -> Form:
    """Each form of the store."""
    found: Form = request.param
    if found is Form.TIMESCALE and not has_timescale:
        pytest.skip("no timescaledb is loaded here; `make test-timescale PG_CONFIG=…` runs on a server with it")
    return found


@pytest.fixture
def trail(form: Form, new_database: NewDatabase) -> Iterator[Trail]:
    """An empty trail of each form."""
    dsn = new_database()
    make_store(dsn, form)
    made = Trail(dsn, form)
    yield made
    made.close()


def now() -> datetime:
    return datetime.now(UTC)


def event(sequence: int, **columns: Any) -> Row:
    """A row of a decision; `chain` and `payload` are stored as they are."""
    values = {
        "id": str(uuid_utils.uuid7()),
        "timestamp": now().isoformat().replace("+00:00", "Z"),
        "source": SOURCE,
        "sequence": sequence,
        "event_type": "authorization_denied",
        "severity": "medium",
        "user_id": "alice",
        "user_email": None,
        "server_id": "srv-1",
        "tool_name": "search",
        "decision": "deny",
        "policy_id": "sark/mcp/decision",
        "policy_revision": "r1",
        "ip_address": "10.0.0.7",
        "user_agent": "test",
        "request_id": f"request-{sequence}",
        "details": {"reason": "no"},
        **columns,
    }
    return row_of(values["source"], sequence, sequence.to_bytes(32), msgspec.json.encode(values))
