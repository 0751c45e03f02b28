"""Checks the stored trail: that no event was changed, taken out or added, and how far that is proven.

All sources are walked in order, in one snapshot of the database: the rows of `audit_events`, what was set aside in
`audit_rejected`, and the copies in `audit_checkpoints`, which outlive both the retention and a deletion. The server
sorts, here one event at a time is looked at; what is kept is a summary of each source, and the ids in a file.

A day that the retention dropped is known by its missing partition. Days go oldest first: events that are not here are
missing unless the one before them was of such a day; those are counted as expired, and nothing is proven of them.
"""

import hmac
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql

from sark_pdp.audit.chain import FIRST, KEYED, KEYLESS
from sark_pdp.audit.ids import Ids
from sark_pdp.audit.reader import SourceEnd
from sark_pdp.audit.source import Sealed
from sark_pdp.audit.verify import Report, SourceCheck, judge_key, name_of, names, report_of, tell_absent
from sark_pdp.audit_writer import partitions
from sark_pdp.audit_writer.copies import SELECTED as SELECTED_OF_COPY
from sark_pdp.audit_writer.copies import copy_of
from sark_pdp.audit_writer.differing import SELECTED, differing
from sark_pdp.audit_writer.schema import Form, form_of
from sark_pdp.postgres.connections import database_error

_AT_ONCE: Final = 1000
"""Rows that are in memory; one has 8 MiB at most, and mostly 1 KiB."""
_DAY_US: Final = 86_400_000_000
_OUT_OF_ORDER_US: Final = 300_000_000
"""Events are numbered when they are committed: the time of one may be this much before that of its predecessor."""

_EVENT, _REJECTED, _ANCHOR = 0, 1, 2
_TIME: Final = (
    "CASE WHEN isfinite(timestamp)"
    " THEN (extract(epoch FROM timestamp - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint END"
)
_ROWS: Final = f"""
SELECT 0, source, sequence, chain, payload, {_TIME}, {SELECTED} FROM audit_events
UNION ALL
SELECT 1, source, sequence, chain, payload, NULL, NULL FROM audit_rejected
UNION ALL
SELECT 2, source, sequence, chain, payload, {_TIME}, {SELECTED_OF_COPY} FROM audit_checkpoints
ORDER BY 2, 3, 1
"""  # noqa: S608  (constants)
_CHUNKS: Final = (
    "SELECT floor(extract(epoch FROM range_start - timestamptz '2000-01-01 00:00:00+00') / 86400)::int"
    " FROM timescaledb_information.chunks"
    " WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('audit_events')"
)


class _Stored(Struct, frozen=True):
    """One row of the walk."""

    kind: int
    source: str
    sequence: int
    chain: bytes
    payload: bytes
    time_us: int | None
    """Since 2000-01-01; None of a rejected event, and where it is no time."""
    columns: str | None
    """The others, as JSON; None of a rejected event."""


def verify(connection: psycopg.Connection[Any], keys: Sequence[bytes] = ()) -> Report:
    """Recomputes the chain of each source as of now, and compares the columns with the payloads.

    `keys` are the chain keys in use, new and old. Raises DatabaseError where the trail cannot be read.
    """
    checks: dict[str, _StoredCheck] = {}
    try:
        with connection.transaction(), closing(sqlite3.connect("", isolation_level=None)) as file:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            days = _days(connection)
            ids = Ids(file)
            for row in _rows(connection):
                check = checks.get(row.source)
                if check is None:
                    check = checks[row.source] = _StoredCheck(row, keys, days)
                check.take(row, ids)
    except psycopg.Error as error:
        raise database_error("the stored trail cannot be read", error) from error
    _compare(checks, keyed=bool(keys))
    for check in checks.values():
        check.finish()
    return report_of([checks[name].report for name in sorted(checks, key=lambda name: checks[name].report.since)])


def _days(connection: psycopg.Connection[Any]) -> set[int]:
    """Days since 2000-01-01 that the retention has left."""
    if form_of(connection) is Form.PLAIN:
        return partitions.existing_days(connection)
    return {day for (day,) in connection.execute(_CHUNKS)}


def _rows(connection: psycopg.Connection[Any]) -> Iterator[_Stored]:
    with connection.cursor("sark_verify", binary=True) as cursor:
        cursor.itersize = _AT_ONCE
        for row in cursor.execute(sql.SQL(_ROWS)):
            yield _Stored(*row)


class _StoredCheck(SourceCheck):
    """Goes through what is stored of one source."""

    def __init__(self, first: _Stored, keys: Sequence[bytes], days: set[int]) -> None:
        super().__init__(SourceEnd(0, first.source, _algorithm(first, keys), 0, FIRST, 0, FIRST), keys)
        self.started_us: int | None = None
        """When it says that it began."""
        self._days = days
        self._time_us: int | None = None
        """Of the last event that is here or has a copy."""
        self._last = b""
        """The payload of that event."""

    @property
    def tells(self) -> bool:
        """As of a spool: a copy of the first event does, too."""
        return self.started_us is not None

    def take(self, row: _Stored, ids: Ids) -> None:
        """The next row of this source."""
        if row.kind == _EVENT:
            self._stored(row, ids)
        elif row.kind == _REJECTED:
            self._rejected(row)
        else:
            self._anchor(row)

    def ends_at(self, sequence: int, chain: bytes) -> None:
        """Its successor says so: what expired since its last event here is no difference."""
        if sequence >= self._next and self._expired():
            self.missing(sequence)
            self._next, self._chain = sequence + 1, chain
            self._close()

    def finish(self) -> None:
        """Says how it ends."""
        report = self.report
        if not report.events and not report.differences:
            report.end = "expired"
        elif self._stopped:
            report.end = "stopped"

    def missing(self, last: int) -> None:
        """Tells that the events up to this one are not there, or counts them where their day is not."""
        if not self._expired():
            super().missing(last)
            return
        self.report.expired += last - self._next + 1
        self._chain = None

    def _stored(self, row: _Stored, ids: Ids) -> None:
        again = row.sequence < self._next
        self.event(row.sequence, Sealed(row.chain, row.payload), ids)
        for name in differing(row.payload, row.time_us, row.columns or ""):
            self.report.add(f"the column {name} of event {row.sequence} is not what its payload says")
        if not again:
            self._passed(row, row.time_us)

    def _rejected(self, row: _Stored) -> None:
        # Whoever may send for this source can have anything set aside: only what the chain names is an event of it.
        if row.sequence != self._next:
            return
        before = self.report.differences
        self._check_chain(row.sequence, Sealed(row.chain, row.payload))
        self._chain = row.chain if self.report.differences == before else None
        self._next = row.sequence + 1
        self.report.events += 1
        self.report.rejected += 1
        self._close()

    def _anchor(self, row: _Stored) -> None:
        """A copy: of an event that was just here, or of one that is not."""
        copy = copy_of(row.payload, row.sequence)
        if copy is not None:
            for finding in copy.differing(row.source, row.sequence, row.time_us, row.columns or ""):
                self.report.add(finding)
        if row.sequence < self._next:
            known = self._chain or row.chain
            if row.sequence == self._next - 1 and not (
                hmac.compare_digest(known, row.chain) and self._last in {b"", row.payload}
            ):
                self.report.add(f"event {row.sequence} is another one than its copy in audit_checkpoints")
            return
        if row.sequence > self._next:
            self.missing(row.sequence - 1)
        if copy is None:
            self.report.add(f"the copy of event {row.sequence} in audit_checkpoints is not readable")
        else:
            if self._chain is None:
                self._chain = copy.before
            self._check_own(row.sequence, copy.event_type, row.payload)
        self._check_chain(row.sequence, Sealed(row.chain, row.payload))
        time_us = None if copy is None else copy.time_us
        self._next = row.sequence
        self._copy_only(row.sequence, time_us)
        self._next, self._chain = row.sequence + 1, row.chain
        self._passed(row, time_us)

    def _copy_only(self, sequence: int, time_us: int | None) -> None:
        """The event itself is gone: with its day, or alone."""
        if time_us is not None and time_us // _DAY_US not in self._days:
            self.report.expired += 1
        else:
            self.report.add(f"event {sequence} is missing, and only its copy in audit_checkpoints is here")

    def _passed(self, row: _Stored, time_us: int | None) -> None:
        self._time_us = time_us
        self._last = row.payload
        if row.sequence == 1:
            self.started_us = time_us
        self._close()

    def _close(self) -> None:
        """Its end, as far as is known, for its successor to be compared with."""
        self.report.last = self._next - 1
        self.end = msgspec.structs.replace(self.end, sequence=self._next - 1, chain=self._chain or b"")

    def _expired(self) -> bool:
        """Whether what comes after the last event may have gone with a day: then that event's own has gone, too.

        The first event has a copy that outlives its day: without one it was taken out.
        """
        return self._time_us is not None and (self._time_us - _OUT_OF_ORDER_US) // _DAY_US not in self._days


class _Chained(Struct):
    chain_algorithm: str


class _First(Struct):
    details: _Chained


def _algorithm(first: _Stored, keys: Sequence[bytes]) -> str:
    """Of the chain, as the first event says."""
    try:
        told = msgspec.json.decode(first.payload, type=_First).details.chain_algorithm
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        told = ""
    return told if first.sequence == 1 and told in {KEYED, KEYLESS} else KEYED if keys else KEYLESS


def _compare(checks: Mapping[str, _StoredCheck], *, keyed: bool) -> None:
    """Compares the end of each source with what its successor says of it, successors first."""
    successors = {name: it for it in checks.values() if it.tells and (name := name_of(it.previous)) is not None}
    for check in checks.values():
        if check.tells and check.previous is not None and name_of(check.previous) not in checks:
            tell_absent(check)
    # A source is judged once its successor is; a circle, which only a forger makes, vouches for nobody.
    trusted: dict[str, bool] = {}
    for start in checks:
        line = [start]
        while (after := successors.get(line[-1])) is not None and after.end.name not in {*trusted, *line}:
            line.append(after.end.name)
        for name in reversed(line):
            if name not in trusted:
                trusted[name] = _judge(checks[name], successors.get(name), trusted, keyed=keyed)


def _judge(check: _StoredCheck, successor: _StoredCheck | None, trusted: Mapping[str, bool], *, keyed: bool) -> bool:
    named = False
    if successor is not None:
        sequence, chain = successor.previous.get("sequence"), successor.previous.get("chain")
        if type(sequence) is int and type(chain) is str:
            check.ends_at(sequence, _bytes(chain))
        named = names(successor, check)
    return judge_key(
        check.report, keyed=keyed, vouched=named and trusted.get(successor.end.name if successor else "", False)
    )


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
