"""What `verify` finds: nothing in what was written, and every change of it."""

import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sark_pdp.audit.chain import link
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.segments import pack, unpack
from sark_pdp.audit.source import Sealed, Source
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.spool_file import DATABASE
from sark_pdp.audit.verify import Report, verify
from sark_pdp.errors import AuditError
from tests.fix_audit import ManualClock, a_record, write_source

KEY = b"k" * 32
NEW_KEY = b"n" * 32
KEYS = st.sampled_from([None, KEY])
RUNS = st.lists(st.tuples(st.lists(st.integers(1, 4), max_size=4), st.booleans()), min_size=1, max_size=3)
"""Of each source: the sizes of its segments, and whether it stopped in order."""

CHANCES = st.integers(0, 1 << 32).map(random.Random)
"""What is chosen with them depends on where commits fell, so nothing may be drawn on the way."""

quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def a_spool(runs: list[tuple[list[int], bool]], key: bytes | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for segments, stopped in runs:
            write_source(directory, segments, key, stopped=stopped)
        yield directory


def verified(directory: Path, *keys: bytes | None) -> Report:
    with SpoolReader(directory) as reader:
        return verify(reader, [key for key in keys if key])


def execute(directory: Path, statement: str, *parameters: Any) -> list[Any]:
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as database:
        return database.execute(statement, parameters).fetchall()


@quick
@given(RUNS, KEYS)
def test_what_was_written_verifies(runs: list[tuple[list[int], bool]], key: bytes | None) -> None:
    with a_spool(runs, key) as directory:
        report = verified(directory, key)
    assert (report.differences, report.unchecked) == (0, False)
    assert report.events == sum(1 + sum(segments) + stopped for segments, stopped in runs)
    for index, (source, (_, stopped)) in enumerate(zip(report.sources, runs, strict=True)):
        followed = index + 1 < len(runs)
        assert source.end == ("stopped" if stopped else "succeeded" if followed else "unproven")
        assert source.chain == ("keyed" if key else "keyless")


Tamper = Callable[[list[list[Any]], random.Random], bool]
"""Changes the rows [position, source, first, events] in place; False where there is nothing to change."""


def pick(rows: list[list[Any]], chance: random.Random) -> tuple[list[Any], int]:
    """A segment's events and one place in them."""
    events = chance.choice(rows)[3]
    return events, chance.randrange(len(events))


def flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ chance.randrange(1, 256)]) + data[place + 1 :]


def change_payload(rows: list[list[Any]], chance: random.Random) -> bool:
    events, place = pick(rows, chance)
    events[place] = [events[place][0], flipped(events[place][1], chance)]
    return True


def change_chain(rows: list[list[Any]], chance: random.Random) -> bool:
    events, place = pick(rows, chance)
    events[place] = [flipped(events[place][0], chance), events[place][1]]
    return True


def delete_event(rows: list[list[Any]], chance: random.Random) -> bool:
    events, place = pick(rows, chance)
    del events[place]
    return True


def delete_segment(rows: list[list[Any]], chance: random.Random) -> bool:
    del rows[chance.randrange(len(rows))]
    return True


def repeat_event(rows: list[list[Any]], chance: random.Random) -> bool:
    events, place = pick(rows, chance)
    events.insert(place, events[place])
    return True


def repeat_segment(rows: list[list[Any]], chance: random.Random) -> bool:
    rows.append([rows[-1][0] + 1, *chance.choice(rows)[1:]])
    return True


def swap_events(rows: list[list[Any]], chance: random.Random) -> bool:
    (one, i), (other, j) = pick(rows, chance), pick(rows, chance)
    one[i], other[j] = other[j], one[i]
    return one is not other or i != j


def swap_segments(rows: list[list[Any]], chance: random.Random) -> bool:
    one, other = chance.choice(rows), chance.choice(rows)
    one[1:], other[1:] = other[1:], one[1:]
    return one is not other and one[1] == other[1]


def renumber(rows: list[list[Any]], chance: random.Random) -> bool:
    chance.choice(rows)[2] += chance.choice([-1, 1, 7])
    return True


def another_source(rows: list[list[Any]], chance: random.Random) -> bool:
    chance.choice(rows)[1] += chance.choice([-1, 1, 7])
    return True


TAMPERS: list[Tamper] = [
    *(change_payload, change_chain, delete_event, delete_segment, repeat_event, repeat_segment),
    *(swap_events, swap_segments, renumber, another_source),
]


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
@settings(quick, max_examples=15)
@given(RUNS, KEYS, CHANCES)
def test_every_change_of_events_is_found(
    tamper: Tamper, runs: list[tuple[list[int], bool]], key: bytes | None, chance: random.Random
) -> None:
    with a_spool(runs, key) as directory:
        rows = [list(row) for row in execute(directory, "SELECT position, source, first, events FROM segments")]
        for row in rows:
            row[3] = [[event.chain, event.payload] for event in unpack(row[3]) or []]
        if not tamper(rows, chance):
            return
        execute(directory, "DELETE FROM segments")
        for row in rows:
            row[3] = pack(row[3])
            execute(directory, "INSERT INTO segments VALUES (?, ?, ?, ?)", *row)
        assert verified(directory, key).differences


@quick
@given(RUNS, KEYS, CHANCES)
def test_every_changed_byte_of_a_segment_that_changes_an_event_is_found(
    runs: list[tuple[list[int], bool]], key: bytes | None, chance: random.Random
) -> None:
    with a_spool(runs, key) as directory:
        position, blob = chance.choice(execute(directory, "SELECT position, events FROM segments"))
        changed = flipped(blob, chance)
        # One that makes a repetition begin at another place of the same content changes nothing.
        assume(unpack(changed) != unpack(blob))
        execute(directory, "UPDATE segments SET events = ? WHERE position = ?", changed, position)
        assert verified(directory, key).differences


@pytest.mark.parametrize("column", ["name", "algorithm", "sequence", "chain", "number"])
@settings(quick, max_examples=10)
@given(RUNS, KEYS, CHANCES)
def test_every_change_of_what_is_said_of_a_source_is_found(
    column: str, runs: list[tuple[list[int], bool]], key: bytes | None, chance: random.Random
) -> None:
    with a_spool(runs, key) as directory:
        number, value = chance.choice(execute(directory, f"SELECT number, {column} FROM sources"))
        changed = value + 7 if type(value) is int else flipped(value, chance) if type(value) is bytes else value + "x"
        execute(directory, f"UPDATE sources SET {column} = ? WHERE number = ?", changed, number)
        assert verified(directory, key).differences


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def test_a_difference_says_where_it_is(directory: Path) -> None:
    write_source(directory, [3, 3])
    execute(directory, "DELETE FROM segments WHERE first = 2")
    report = verified(directory)
    assert report.sources[0].findings == ["events 2 to 4 are missing"]
    # What cannot be compared for want of the event before is no difference of its own.
    assert report.differences == 1


def test_many_differences_are_counted_and_the_first_are_told(directory: Path) -> None:
    write_source(directory, [100], KEY)
    report = verified(directory, NEW_KEY)
    assert report.differences == 102
    assert len(report.sources[0].findings) == 20


def test_an_end_that_was_cut_off_consistently_is_unproven_until_a_successor_names_it(directory: Path) -> None:
    source = write_source(directory, [2, 2], stopped=False)
    blob = execute(directory, "SELECT events FROM segments WHERE first = 2")[0][0]
    last = (unpack(blob) or [])[-1].chain

    def cut() -> None:
        execute(directory, "DELETE FROM segments WHERE source = 1 AND first > 3")
        execute(directory, "UPDATE sources SET sequence = 3, chain = ? WHERE number = 1", last)

    write_source(directory, [], name="next")
    cut()
    assert verified(directory).sources[0].findings == [
        "its successor found its end at event 5, or with another chain value"
    ]
    execute(directory, "DELETE FROM segments WHERE source = 2")
    execute(directory, "DELETE FROM sources WHERE number = 2")
    report = verified(directory)
    assert (report.differences, report.sources[0].end, report.sources[0].last) == (0, "unproven", 3)
    assert source.sequence == 5


def test_a_source_that_is_named_and_not_there_is_missed(directory: Path) -> None:
    first = write_source(directory, [1])
    write_source(directory, [1])
    execute(directory, "DELETE FROM segments WHERE source = 1")
    execute(directory, "DELETE FROM sources WHERE number = 1")
    assert verified(directory).sources[0].findings == [f"it names a source before it, {first.name}, which is not here"]


def test_without_its_key_a_chain_is_unchecked(directory: Path) -> None:
    write_source(directory, [2], KEY)
    report = verified(directory)
    assert (report.differences, report.unchecked, report.sources[0].chain) == (0, True, "unchecked")


def test_a_replaced_key_is_given_beside_the_new_one(directory: Path) -> None:
    write_source(directory, [2], KEY)
    write_source(directory, [2], NEW_KEY)
    assert verified(directory, NEW_KEY).differences > 0
    report = verified(directory, NEW_KEY, KEY)
    assert (report.differences, report.unchecked) == (0, False)


def test_keyless_sources_before_the_first_key_are_vouched_for(directory: Path) -> None:
    write_source(directory, [2])
    write_source(directory, [2], stopped=False)
    write_source(directory, [2], KEY)
    report = verified(directory, KEY)
    assert report.differences == 0
    assert [source.chain for source in report.sources] == ["keyless", "keyless", "keyed"]


def test_a_keyless_source_that_no_key_vouches_for_may_be_a_forgery(directory: Path) -> None:
    write_source(directory, [2], KEY)
    write_source(directory, [2])
    report = verified(directory, KEY)
    assert report.sources[1].findings == ["it was chained without a key, and no later source that has one names it"]


def test_a_record_that_came_twice_shows_by_its_id(directory: Path) -> None:
    spool = Spool(directory, 2**30)
    source = Source("pod", spool.next_number, None, ManualClock())
    record = a_record()
    spool.append(source.segment([source.started(None), source.seal(record), source.seal(record)]))
    spool.close()
    assert verified(directory).sources[0].findings == [f"event 3 has the id of another one, {record.id}"]


@pytest.mark.parametrize("details", [b'"details":5', b'"nothing":{}', b'"details":{"dropped":' + b"[" * 5000])
def test_an_own_event_without_its_details_is_a_difference(directory: Path, details: bytes) -> None:
    spool = Spool(directory, 2**30)
    source = Source("pod", spool.next_number, None, ManualClock())
    first, gap = source.started(None), source.gap(5, 1, 2)
    payload = gap.payload[: gap.payload.index(b'"details"')] + details + b"}"
    forged = Sealed(link(None)(first.chain, payload), payload)
    spool.append(source.segment([first, forged]))
    spool.close()
    assert "event 2 is not readable" in verified(directory).sources[0].findings


def test_dropped_records_are_told_and_are_no_difference(directory: Path) -> None:
    spool = Spool(directory, 2**30)
    source = Source("pod", spool.next_number, None, ManualClock())
    spool.append(source.segment([source.started(None), source.gap(5, 1, 2), source.gap(7, 3, 4), source.stopped()]))
    spool.close()
    report = verified(directory)
    assert (report.differences, report.sources[0].dropped) == (0, 12)


def test_a_spool_can_be_verified_while_it_is_written(directory: Path) -> None:
    spool = Spool(directory, 2**30)
    try:
        source = Source("pod", spool.next_number, None, ManualClock())
        with SpoolReader(directory) as reader:
            assert verify(reader).events == 0
            spool.append(source.segment([source.started(None)]))
            assert verify(reader).events == 1
            spool.append(source.segment([source.seal(a_record()) for _ in range(3)]))
            report = verify(reader)
            assert (report.events, report.differences, report.sources[0].end) == (4, 0, "unproven")
    finally:
        spool.close()


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "holds no audit spool"), (b"not a database" * 100, "cannot be read")]
)
def test_what_is_no_spool_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(AuditError, match=problem) as caught:
        SpoolReader(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_database_of_something_else_is_not_read(tmp_path: Path) -> None:
    execute(tmp_path, "CREATE TABLE t (a)")
    with pytest.raises(AuditError, match="is not an audit spool of this version"):
        SpoolReader(tmp_path)


@pytest.mark.parametrize(
    ("table", "copied", "change"),
    [
        ("segments", "CREATE TABLE loose AS SELECT * FROM segments", "UPDATE segments SET events = 'text'"),
        ("segments", "CREATE TABLE loose AS SELECT * FROM segments", "UPDATE segments SET events = NULL"),
        ("segments", "CREATE TABLE loose AS SELECT * FROM segments", "UPDATE segments SET first = 'one'"),
        ("sources", "CREATE TABLE loose AS SELECT * FROM sources", "UPDATE sources SET sequence = 'many'"),
        ("sources", "CREATE TABLE loose AS SELECT * FROM sources", "UPDATE sources SET name = x'ff'"),
        ("sources", "CREATE TABLE loose AS SELECT * FROM sources", "UPDATE sources SET chain = '00'"),
    ],
)
def test_a_row_of_other_types_than_a_writer_stores_is_refused(
    directory: Path, table: str, copied: str, change: str
) -> None:
    """Whoever can write to the file can also change what its columns take."""
    write_source(directory, [2])
    for statement in (copied, f"DROP TABLE {table}", f"ALTER TABLE loose RENAME TO {table}"):
        execute(directory, statement)
    assert verified(directory).differences == 0
    execute(directory, change)
    with pytest.raises(AuditError, match="holds a row that no writer stores: Expected"):
        verified(directory)
