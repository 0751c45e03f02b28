"""`sark-pdp audit verify --dsn`: nothing in what a writer stored, and every change that was made to it since."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from sark_pdp.audit.chain import FIRST, link
from sark_pdp.audit.source import Source, Tail
from sark_pdp.audit_writer.columns import row_of
from sark_pdp.audit_writer.schema import Form
from sark_pdp.audit_writer.sessions import WRITING, session_of
from sark_pdp.audit_writer.store import EventStore, Rejection
from sark_pdp.cli import main
from sark_pdp.model import Outcome
from sark_pdp.postgres.connections import connect
from tests.fix_audit import NOON, ManualClock, a_record
from tests.fix_postgres import NewDatabase
from tests.fix_store import make_store

KEY = b"k" * 32
LONG_AGO = "timestamp = '2001-01-01 00:00:00+00'"
ODD = {
    "user": {"id": "a\0b" + "x" * 600, "email": "ä@example.com"},
    "tool": {"name": "\x1b[31m"},
    "numbers": [1.0, 1e30, -0.0, True, 1, 12345678901234567890],
    "text": "\0\u2028",
    "context": {"client_ip": "::ffff:10.0.0.1"},
}
DAY_NS = 86_400 * 10**9


def sealed(source: Source, days: int = 0) -> list[Any]:
    """Decisions, one with odd values, and a checkpoint: events 2 to 7 of a source."""
    records = [a_record({"user": {"id": "alice"}, "n": n}, time_ns=NOON + days * DAY_NS) for n in range(3)]
    made = [source.seal(record) for record in records]
    made.append(source.seal(a_record(ODD, outcome=Outcome.DENY, time_ns=NOON + days * DAY_NS)))
    return [*made, source.checkpoint(), source.seal(a_record({"user": {"id": "bob"}}, time_ns=NOON + days * DAY_NS))]


def store_two(dsn: str, key: bytes | None) -> tuple[str, str]:
    """Two runs of a process, the first ended by a kill after 7 events, the second after 14 by a stop."""
    clock = ManualClock()
    first, second = Source("pod", 1, key, clock), Source("pod", 2, key, clock)
    events = [(first.name, [first.started(None), *sealed(first)])]
    started = second.started(Tail(first.name, first.sequence, first.chain))
    run = [started, *sealed(second)]
    clock.time_ns += DAY_NS
    run += [*sealed(second, 1), second.stopped()]
    events.append((second.name, run))
    store = EventStore(lambda: connect(session_of(dsn, WRITING), "test"))
    rows = [
        row_of(name, number, event.chain, event.payload)
        for name, made in events
        for number, event in enumerate(made, 1)
    ]
    store.write(rows)
    store.close()
    return first.name, second.name


class Stored:
    """A trail that a test may change."""

    def __init__(self, dsn: str, key: bytes | None, folder: Path, form: Form) -> None:
        self.dsn = dsn
        self.form = form
        make_store(dsn, form)
        self.first, self.second = store_two(dsn, key)
        self._key = folder / "chain.key"
        self._key.write_bytes(KEY)
        self._key_file = ["--key-file", str(self._key)] if key else []

    def execute(self, statement: str) -> None:
        statement = statement.replace("FIRST", f"source = '{self.first}'").replace(
            "SECOND", f"source = '{self.second}'"
        )
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def compress(self) -> None:
        """All days, where they can be."""
        if self.form is Form.TIMESCALE:
            self.execute("SELECT compress_chunk(c) FROM show_chunks('audit_events') c")

    def drop_first_day(self) -> None:
        """As the retention does."""
        if self.form is Form.TIMESCALE:
            self.execute("SELECT drop_chunks('audit_events', older_than => timestamptz '2026-01-02 00:00:00+00')")
        else:
            self.execute("DROP TABLE audit_events_20260101")

    def verify(self, *arguments: str, keyed: bool = True) -> tuple[int, dict[str, Any]]:
        given = [*(self._key_file if keyed else []), *arguments, "--json"]
        result = CliRunner().invoke(main, ["audit", "verify", "--dsn", self.dsn, *given])
        assert result.exit_code in {0, 1, 2}, result.output
        return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def stored(form: Form, new_database: NewDatabase, tmp_path: Path) -> Stored:
    return Stored(new_database(), KEY, tmp_path, form)


@pytest.fixture
def keyless(form: Form, new_database: NewDatabase, tmp_path: Path) -> Stored:
    return Stored(new_database(), None, tmp_path, form)


def findings(report: dict[str, Any]) -> str:
    return "\n".join(finding for source in report["sources"] for finding in source["findings"])


def test_what_a_writer_stored_verifies(stored: Stored) -> None:
    code, report = stored.verify()
    assert (code, report["events"], findings(report)) == (0, 21, "")
    assert {(it["source"], it["chain"], it["end"]) for it in report["sources"]} == {
        (stored.first, "keyed", "succeeded"),
        (stored.second, "keyed", "stopped"),
    }


def test_without_the_key_nothing_is_said_to_be_proven(stored: Stored) -> None:
    code, report = stored.verify(keyed=False)
    assert (code, report["unchecked"]) == (2, True)


def test_a_keyless_trail_verifies_and_is_called_so(keyless: Stored) -> None:
    code, report = keyless.verify()
    assert (code, {it["chain"] for it in report["sources"]}) == (0, {"keyless"})


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        *(
            (f"UPDATE audit_events SET {column} = {value} WHERE SECOND AND sequence = 3", f"column {column} of event 3")
            for column, value in {
                "user_id": "'eve'",
                "decision": "NULL",
                "request_id": "''",
                "ip_address": "'10.0.0.0/8'",
                "details": "jsonb_set(details, '{input,n}', 'true')",
                "timestamp": "timestamp + interval '1 microsecond'",
                "id": "gen_random_uuid()",
            }.items()
        ),
        ("UPDATE audit_events SET payload = payload || ' ' WHERE FIRST AND sequence = 4", "event 4 was changed"),
        ("UPDATE audit_events SET chain = sha256('') WHERE FIRST AND sequence = 4", "event 4 was changed"),
        ("UPDATE audit_events SET payload = '{' WHERE FIRST AND sequence = 4", "event 4 is not readable"),
        ("UPDATE audit_events SET sequence = 9 WHERE FIRST AND sequence = 4", "event 9 says that it is event 4"),
        ("DELETE FROM audit_events WHERE SECOND AND sequence = 4", "events 4 to 4 are missing"),
        ("DELETE FROM audit_events WHERE FIRST AND sequence > 6", "its successor found its end at event 7"),
        ("DELETE FROM audit_events WHERE SECOND AND sequence > 10", "events 11 to 11 are missing"),
        ("DELETE FROM audit_events WHERE SECOND AND sequence = 14", "only its copy"),
        ("DELETE FROM audit_events WHERE SECOND", "only its copy"),
        ("DELETE FROM audit_events WHERE FIRST; DELETE FROM audit_checkpoints WHERE FIRST", "which is not here"),
        ("DELETE FROM audit_events WHERE SECOND AND sequence <= 3", "events 2 to 3 are missing"),
        ("UPDATE audit_checkpoints SET chain = sha256('') WHERE SECOND AND sequence = 6", "than its copy"),
        ("UPDATE audit_checkpoints SET id = gen_random_uuid() WHERE SECOND AND sequence = 6", "column id of the copy"),
        (
            "UPDATE audit_checkpoints SET event_type = 'x' WHERE SECOND AND sequence = 6",
            "column event_type of the copy",
        ),
        (f"UPDATE audit_checkpoints SET {LONG_AGO} WHERE SECOND AND sequence = 6", "column timestamp of the copy"),
        (
            f"""
            UPDATE audit_checkpoints SET {LONG_AGO} WHERE SECOND AND sequence = 6;
            DELETE FROM audit_events WHERE SECOND AND sequence BETWEEN 2 AND 6
            """,
            "events 2 to 5 are missing",
        ),
        (
            f"""
            UPDATE audit_checkpoints SET {LONG_AGO} WHERE SECOND AND sequence IN (12, 14);
            DELETE FROM audit_events WHERE SECOND AND sequence >= 9
            """,
            "event 14 is missing, and only its copy",
        ),
        *(
            (
                f"""
                INSERT INTO audit_checkpoints (source, sequence, id, timestamp, event_type, chain, payload)
                SELECT source, 5, id, '2001-01-01 00:00:00+00', event_type, chain, {payload}
                FROM audit_events WHERE SECOND AND sequence = {sequence};
                DELETE FROM audit_events WHERE SECOND AND sequence BETWEEN 3 AND 5
                """,
                finding,
            )
            for payload, sequence, finding in (
                ("'{}'", 5, "the copy of event 5 in audit_checkpoints is not readable"),
                ("""'{"details":{}}'""", 5, "events 3 to 4 are missing"),
                ("payload", 5, "the copy of event 5 in audit_checkpoints is not readable"),
                ("payload", 6, "says that it is event 6"),
            )
        ),
        (
            """
            INSERT INTO audit_events
            SELECT gen_random_uuid(), timestamp, source, sequence, chain, payload, event_type, severity
            FROM audit_events WHERE FIRST AND sequence = 3
            """,
            "event 3 is there twice",
        ),
    ],
)
def test_each_change_is_found(stored: Stored, statement: str, finding: str) -> None:
    stored.execute(statement)
    code, report = stored.verify()
    assert code == 1
    assert finding in findings(report)


@pytest.mark.parametrize("year", [2001, 2030])
def test_an_event_cannot_be_moved_to_another_time_to_hide_what_was_before_it(stored: Stored, year: int) -> None:
    """Its payload is changed with it; no day that lies between was ever there."""
    if stored.form is Form.PLAIN:
        stored.execute(
            f"CREATE TABLE moved PARTITION OF audit_events FOR VALUES FROM ('{year}-01-01 00:00+00')"
            f" TO ('{year}-01-02 00:00+00')"
        )
    told = (
        """regexp_replace(convert_from(payload, 'utf8'), '"timestamp":"[^"]*"', '"timestamp":"%d-01-01T00:00:01Z"')"""
    )
    stored.execute(
        f"""
        CREATE TEMPORARY TABLE moving AS SELECT * FROM audit_events WHERE SECOND AND sequence = 4;
        UPDATE moving SET timestamp = '{year}-01-01 00:00:01+00', payload = convert_to({told % year}, 'utf8');
        DELETE FROM audit_events WHERE SECOND AND sequence IN (3, 4);
        INSERT INTO audit_events SELECT * FROM moving
        """
    )
    code, report = stored.verify()
    assert (code, findings(report)) == (1, "events 3 to 3 are missing")


def test_days_that_were_compressed_verify_and_changes_in_them_are_found(stored: Stored) -> None:
    stored.compress()
    code, report = stored.verify()
    assert (code, report["events"], findings(report)) == (0, 21, "")
    stored.execute("UPDATE audit_events SET user_id = 'eve' WHERE FIRST AND sequence = 3")
    stored.execute("DELETE FROM audit_events WHERE SECOND AND sequence = 4")
    stored.compress()
    code, report = stored.verify()
    assert code == 1
    assert "the column user_id of event 3 is not what its payload says" in findings(report)
    assert "events 4 to 4 are missing" in findings(report)


def test_events_that_are_gone_from_days_that_are_here_are_missing_though_others_expired(stored: Stored) -> None:
    stored.drop_first_day()
    stored.execute("DELETE FROM audit_events WHERE SECOND AND sequence = 10")
    code, report = stored.verify()
    assert code == 1
    assert "events 10 to 10 are missing" in findings(report)


def test_a_chain_that_was_recomputed_without_the_key_is_found(stored: Stored) -> None:
    forged, chain = link(None), FIRST
    with psycopg.connect(stored.dsn, autocommit=True) as connection:
        events = connection.execute(
            "SELECT sequence, payload FROM audit_events WHERE source = %s ORDER BY sequence", [stored.second]
        ).fetchall()
        for sequence, payload in events:
            chain = forged(chain, payload)
            for table in ("audit_events", "audit_checkpoints"):
                connection.execute(
                    f"UPDATE {table} SET chain = %s WHERE source = %s AND sequence = %s".encode(),
                    [chain, stored.second, sequence],
                )
    code, report = stored.verify()
    assert code == 1
    assert "event 1 was changed" in findings(report)


def test_days_that_the_retention_dropped_are_no_difference_and_counted(stored: Stored) -> None:
    stored.drop_first_day()
    code, report = stored.verify()
    assert (code, findings(report)) == (0, "")
    by_source = {it["source"]: it for it in report["sources"]}
    assert (by_source[stored.first]["events"], by_source[stored.first]["expired"]) == (0, 7)
    assert (by_source[stored.second]["events"], by_source[stored.second]["expired"]) == (7, 7)
    assert by_source[stored.second]["end"] == "stopped"


def test_what_the_database_refused_belongs_to_the_chain(stored: Stored) -> None:
    with psycopg.connect(stored.dsn) as connection:
        row = connection.execute(
            "DELETE FROM audit_events WHERE source = %s AND sequence = 5 RETURNING chain, payload", [stored.first]
        ).fetchone()
    assert row is not None
    store = EventStore(lambda: connect(session_of(stored.dsn, WRITING), "test"))
    store.write(
        [], [Rejection(stored.first, 5, row[0], row[1], "22000"), Rejection(stored.first, 3, b"", b"forged", "")]
    )
    store.close()
    code, report = stored.verify()
    assert (code, findings(report)) == (0, "")
    assert sum(it["rejected"] for it in report["sources"]) == 1


def test_people_are_told_in_words_and_a_database_without_the_trail_is_an_error(
    stored: Stored, new_database: NewDatabase
) -> None:
    stored.execute("DELETE FROM audit_events WHERE SECOND AND sequence = 4")
    told = CliRunner().invoke(main, ["audit", "verify", "--dsn", stored.dsn])
    assert told.exit_code == 1
    assert "events 4 to 4 are missing" in told.stdout
    empty = CliRunner().invoke(main, ["audit", "verify", "--dsn", new_database()])
    assert empty.exit_code == 2
    assert "db migrate" in empty.output
