"""Days of the store: late events, policies, migrations, and who may do what; in both forms, as in test_audit_store."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sark_pdp.audit_writer import partitions
from sark_pdp.audit_writer.maintenance import Keeping
from sark_pdp.audit_writer.schema import Form, form_to_migrate, migrations
from sark_pdp.audit_writer.sessions import MAINTAINING, session_of
from sark_pdp.audit_writer.store import Written
from sark_pdp.audit_writer.verify import verify
from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.connections import connect
from sark_pdp.postgres.migrations import migrate
from tests.fix_postgres import NewDatabase
from tests.fix_store import Trail, event, make_store, now

OTHER = "pod-2/0123456789abcdef"
WIDE = {letter: 0x1F600 + letter for letter in range(97, 123)}
"""Letters as characters of four bytes."""


def ago(**given: float) -> str:
    return (now() - timedelta(**given)).isoformat()


@pytest.mark.parametrize("age", [timedelta(days=-400), timedelta(days=3), timedelta(days=100), timedelta(days=15000)])
def test_an_event_of_any_day_is_stored(trail: Trail, age: timedelta) -> None:
    assert trail.store.write([event(1), event(2, timestamp=(now() - age).isoformat())]) == Written(inserted=2)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_day_that_a_clock_can_name_are_days_too(trail: Trail, time: str) -> None:
    rows = [event(1), event(2, timestamp=time)]
    assert trail.store.write(rows) == Written(inserted=2)
    assert trail.store.write(rows) == Written(duplicates=2)
    assert trail.maintain()
    assert trail.all("SELECT count(*) FROM audit_events WHERE sequence = 1") == [(1,)]
    assert sum(row[0] for row in trail.all("SELECT count FROM audit_events_hourly WHERE user_id = 'alice'")) >= 1


def test_a_batch_may_be_about_more_days_than_one_transaction_has_room_for(trail: Trail) -> None:
    rows = [event(day, timestamp=ago(days=day)) for day in range(1, 80)]
    assert trail.store.write(rows, []) == Written(inserted=len(rows))
    assert trail.store.write(rows, []) == Written(duplicates=len(rows))


def test_late_events_are_stored_once_in_days_that_are_compressed(trail: Trail) -> None:
    stored = [
        event(number, timestamp=ago(days=10, seconds=number), user_id=f"u{number % 3}") for number in range(1, 50)
    ]
    trail.store.write(stored)
    assert (trail.compress() > 0) is (trail.form is Form.TIMESCALE)
    late = [event(100 + number, timestamp=ago(days=10, seconds=number), user_id=None) for number in range(20)]
    assert trail.store.write([*stored, *late]) == Written(inserted=20, duplicates=49)
    trail.compress()
    assert trail.store.write([*late, *stored]) == Written(duplicates=69)
    found = trail.all("SELECT sequence, payload FROM audit_events ORDER BY sequence")
    assert found == [(row.sequence, row.payload) for row in (*stored, *late)]


def test_a_late_event_whose_place_a_compressed_one_has_is_rejected(trail: Trail) -> None:
    stored = [event(1, timestamp=ago(days=10)), event(2, timestamp=ago(days=10), user_id=None)]
    trail.store.write(stored)
    trail.compress()
    for number, row in enumerate(stored, 3):
        there = msgspec.json.decode(row.payload)
        for user in (there["user_id"], "mallory"):
            other = event(number, id=there["id"], timestamp=there["timestamp"], source=OTHER, user_id=user)
            assert trail.store.write([other, stored[0]]).inserted == 0
    rejected = trail.all("SELECT source, sequence, code FROM audit_rejected ORDER BY sequence")
    assert rejected == [(OTHER, 3, "23505"), (OTHER, 4, "23505")]
    assert trail.all("SELECT count(*) FROM audit_events") == [(2,)]


def test_no_limit_on_what_is_decompressed_holds_late_events_up(trail: Trail) -> None:
    database = trail.all("SELECT current_database()")[0][0]
    if trail.form is Form.TIMESCALE:
        trail.all(f"ALTER DATABASE {database} SET timescaledb.max_tuples_decompressed_per_dml_transaction = 1")
    rows = [event(number, timestamp=ago(days=10)) for number in range(1, 101)]
    trail.store.write(rows)
    trail.compress()
    assert trail.store.write([*rows, event(101, timestamp=ago(days=10))]) == Written(inserted=1, duplicates=100)


def test_an_event_older_than_the_retention_is_stored_and_goes_with_its_day(trail: Trail) -> None:
    old = ago(days=92)
    trail.store.write([event(1), event(2, timestamp=old)])
    trail.drop_expired()
    assert trail.all("SELECT sequence FROM audit_events") == [(1,)]
    if trail.form is Form.PLAIN:
        # The day has no partition now, which the store does not know yet.
        with pytest.raises(psycopg.errors.CheckViolation):
            trail.store.write([event(3, timestamp=old)])
    assert trail.store.write([event(3, timestamp=old)]).inserted == 1
    trail.drop_expired()
    assert trail.all("SELECT sequence FROM audit_events") == [(1,)]


def test_a_batch_that_takes_too_long_is_halved_and_stored(trail: Trail) -> None:
    trail.all(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM new) > 8 THEN PERFORM pg_sleep(60); END IF; RETURN NULL; END $$"
    )
    trail.all(
        "CREATE TRIGGER slow AFTER INSERT ON audit_events REFERENCING NEW TABLE AS new FOR EACH STATEMENT"
        " EXECUTE FUNCTION slow()"
    )
    trail.store.ping()
    assert trail.store._connection is not None
    # Instead of 25 s.
    trail.store._connection.execute("SET statement_timeout = '3s'")
    rows = [event(number) for number in range(1, 17)]
    assert trail.store.write(rows) == Written(inserted=16)
    assert trail.all("SELECT count(*) FROM audit_rejected") == [(0,)]


def test_what_is_counted_by_the_hour_includes_late_hours_and_those_that_nobody_counted_yet(trail: Trail) -> None:
    for hours in (30, 6, 0):
        trail.store.write([event(hours + 1, timestamp=ago(hours=hours))])
    refresh(trail)
    trail.store.write([event(100, timestamp=ago(hours=30)), event(101, timestamp=ago(hours=6)), event(102)])
    refresh(trail)
    trail.maintain()
    found = trail.all("SELECT count FROM audit_events_hourly WHERE user_id = 'alice' ORDER BY hour")
    assert [row[0] for row in found][:2] == [2, 2]
    assert sum(row[0] for row in found) == 6
    assert trail.all("SELECT count(*) FROM audit_late_hours WHERE hour < now() - interval '70 minutes'") == [(0,)]


def test_an_event_with_the_longest_names_is_counted_and_keeps_no_day_from_going(trail: Trail) -> None:
    """Random ones: an index packs what repeats."""
    long = [bytes(random.choices(range(97, 123), k=512)).decode().translate(WIDE) for _ in range(2)]
    early = event(1, timestamp=ago(minutes=10), event_type=long[0], user_id=long[1])
    trail.store.write([early, event(2, timestamp=ago(days=200))])
    for _ in range(2):
        assert trail.maintain()
    trail.drop_expired()
    assert trail.all("SELECT sequence FROM audit_events") == [(1,)]
    counted = trail.all("SELECT user_id, count FROM audit_events_hourly WHERE hour > now() - interval '1 day'")
    assert counted == [(long[1], 1)]


def test_whoever_holds_the_lock_of_days_holds_nobody_up_whose_days_are_there(trail: Trail) -> None:
    """A writer may stand still with it; its session ends then, but not at once."""
    assert trail.store.write([event(1)]) == Written(inserted=1)
    with connect(session_of(trail.dsn, MAINTAINING), "test") as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", [partitions._LOCK])
        trail.store.close()
        assert trail.store.write([event(2)]) == Written(inserted=1)
        assert other.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("25s",)


def test_only_the_last_hour_is_counted_when_asked(trail: Trail) -> None:
    trail.store.write([event(hours + 1, timestamp=ago(hours=hours)) for hours in (30, 3, 2, 1)])
    assert trail.maintain()
    trail.store.write([event(100, timestamp=ago(hours=2))])
    assert trail.maintain()
    counts = "audit_hourly_counts"
    if trail.form is Form.TIMESCALE:
        trail.all("ALTER MATERIALIZED VIEW audit_events_hourly SET (timescaledb.materialized_only = true)")
        counts = "audit_events_hourly"
    found = trail.all(f"SELECT count FROM {counts} WHERE hour < now() - interval '70 minutes' ORDER BY hour")
    expected = trail.all(
        "SELECT count(*) FROM audit_events WHERE date_trunc('hour', timestamp, 'UTC') < now() - interval '70 minutes'"
        " GROUP BY date_trunc('hour', timestamp, 'UTC') ORDER BY date_trunc('hour', timestamp, 'UTC')"
    )
    assert found == expected
    assert len(found) >= 3


def refresh(trail: Trail) -> None:
    """What the policy of the aggregate does each hour, or a pass of a writer each minute."""
    if trail.form is Form.PLAIN:
        trail.maintain()
    else:
        trail.run_jobs("audit_events_hourly", "policy_refresh_continuous_aggregate")


def policies(trail: Trail) -> dict[tuple[str, str], dict[str, Any]]:
    found = trail.all(
        "SELECT hypertable_name, proc_name, config, schedule_interval::text FROM timescaledb_information.jobs"
        " WHERE hypertable_name LIKE 'audit%'"
    )
    return {(table, name): {**config, "every": every} for table, name, config, every in found}


def test_the_days_and_policies_are_those_of_the_design(trail: Trail) -> None:
    trail.store.write([event(1), event(2, timestamp=ago(days=5))])
    assert trail.maintain()
    # Those of the two events, and on plain PostgreSQL three ahead, or four when a day ends meanwhile.
    assert len(days(trail)) in ({2} if trail.form is Form.TIMESCALE else {5, 6})
    for since, until in days(trail):
        assert (until - since, since.astimezone(UTC).time().isoformat()) == (timedelta(days=1), "00:00:00")
    if trail.form is Form.PLAIN:
        return
    found = policies(trail)
    assert found["audit_events", "policy_compression"]["compress_after"] == "7 days"
    assert found["audit_events", "policy_retention"]["drop_after"] == "90 days"
    assert found["audit_events_hourly", "policy_retention"]["drop_after"] == "90 days"
    refreshed = found["audit_events_hourly", "policy_refresh_continuous_aggregate"]
    assert (refreshed["start_offset"], refreshed["end_offset"], refreshed["every"]) == (
        "03:00:00",
        "01:00:00",
        "01:00:00",
    )
    segments = trail.all(
        "SELECT attname FROM timescaledb_information.compression_settings"
        " WHERE hypertable_name = 'audit_events' AND segmentby_column_index IS NOT NULL ORDER BY segmentby_column_index"
    )
    assert segments == [("user_id",), ("event_type",)]
    assert trail.all("SELECT materialized_only FROM timescaledb_information.continuous_aggregates") == [(False,)]


def days(trail: Trail) -> list[tuple[datetime, datetime]]:
    """The beginning and end of each partition."""
    if trail.form is Form.TIMESCALE:
        return trail.all(
            "SELECT range_start, range_end FROM timescaledb_information.chunks WHERE hypertable_name = 'audit_events'"
        )
    found = trail.all(
        "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'audit_events'::regclass"
    )
    bounds = (text.split("'") for (text,) in found)
    return sorted((datetime.fromisoformat(parts[1]), datetime.fromisoformat(parts[3])) for parts in bounds)


def test_what_is_configured_counts_and_not_what_was_before(trail: Trail) -> None:
    trail.store.write([event(1), event(2, timestamp=ago(days=40)), event(3, timestamp=ago(days=20))])
    assert trail.maintain(Keeping(timedelta(days=30), timedelta(days=2)))
    if trail.form is Form.TIMESCALE:
        trail.run_jobs("audit_events", "policy_retention")
        found = policies(trail)
        assert found["audit_events", "policy_compression"]["compress_after"] == "2 days"
        for table in ("audit_events", "audit_events_hourly"):
            assert found[table, "policy_retention"]["drop_after"] == "30 days"
        jobs = trail.all("SELECT job_id FROM timescaledb_information.jobs ORDER BY 1")
        assert trail.maintain(Keeping(timedelta(days=30), timedelta(days=2)))
        assert trail.all("SELECT job_id FROM timescaledb_information.jobs ORDER BY 1") == jobs
    assert trail.all("SELECT sequence FROM audit_events ORDER BY sequence") == [(1,), (3,)]


def test_two_that_migrate_at_once_take_turns_and_a_third_has_nothing_to_do(
    form: Form, new_database: NewDatabase
) -> None:
    dsn = new_database()
    both_there = Barrier(2, timeout=60)

    def run(_: int) -> int:
        with connect(dsn, "test") as connection:
            both_there.wait()
            return len(list(migrate(connection, migrations(form))))

    with ThreadPoolExecutor(2) as pool:
        applied = sorted(pool.map(run, range(2)))
    assert applied[0] == 0
    assert applied[1] >= 2
    with connect(dsn, "test") as connection:
        assert form_to_migrate(connection) is form
        assert list(migrate(connection, migrations(form))) == []


def test_a_timescaledb_that_loses_events_is_refused_and_nothing_is_left(new_database: NewDatabase) -> None:
    with connect(new_database(), "test") as connection:
        # No old one can be had; what the catalogue says of it is all that counts.
        connection.execute("SET allow_system_table_mods = on")
        connection.execute(
            "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)"
            " SELECT 4000000, 'timescaledb', oid, 'public'::regnamespace, false, '2.17.2-dev' FROM pg_roles"
            " WHERE rolname = current_user"
        )
        with pytest.raises(DatabaseError, match=r"TimescaleDB 2\.17\.2-dev loses events; 2\.18\.0 or newer is needed"):
            list(migrate(connection, migrations(Form.TIMESCALE)))
        assert connection.execute("SELECT to_regclass('audit_events')").fetchone() == (None,)


def test_a_database_in_another_encoding_is_refused(new_database: NewDatabase) -> None:
    with (
        connect(new_database(encoding="LATIN1"), "test") as connection,
        pytest.raises(DatabaseError, match="UTF8"),
    ):
        form_to_migrate(connection)


@pytest.fixture
def role(form: Form, new_database: NewDatabase) -> Iterator[tuple[str, str, str]]:
    """A database that belongs to a role of no privileges: its DSN as a superuser, as the owner, and as another one."""
    dsn = new_database()
    owner, auditor = f"owner_{uuid4().hex}", f"auditor_{uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in (owner, auditor):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(owner)
            )
        )
    yield dsn, make_conninfo(dsn, user=owner), make_conninfo(dsn, user=auditor)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(connection.info.dbname))
        )
        for name in (owner, auditor):
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_owner_of_the_database_can_do_all_and_who_may_read_three_tables_can_verify(
    form: Form, role: tuple[str, str, str]
) -> None:
    _, owner, auditor = role
    make_store(owner, form)
    trail = Trail(owner, form)
    try:
        trail.store.write([event(1), event(2, timestamp=ago(days=10))])
        assert trail.maintain()
        trail.compress()
        trail.store.write([event(3, timestamp=ago(days=10))])
        with connect(owner, "test") as connection:
            for table in ("audit_events", "audit_rejected", "audit_checkpoints"):
                connection.execute(
                    sql.SQL("GRANT SELECT ON {} TO {}").format(
                        sql.Identifier(table), sql.Identifier(str(conninfo_to_dict(auditor)["user"]))
                    )
                )
        with connect(auditor, "test") as connection:
            assert [it.events for it in verify(connection).sources] == [3]
    finally:
        trail.close()
