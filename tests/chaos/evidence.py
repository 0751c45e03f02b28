"""What a run left behind, as the judge needs it: the table, the spools, what clients kept, and who was killed when."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from msgspec import Struct

from sark_pdp.audit.reader import SourceEnd, SpoolReader
from sark_pdp.audit.source import GAP
from tests.chaos.asking import Answer, read_answers
from tests.chaos.watching import Committed
from tests.chaos.world import ON_FULL, Absence, Death, World

_ROWS: Final = """
SELECT id::text, source, sequence, chain, extract(epoch FROM timestamp)::float8, coalesce(decision, ''),
    coalesce(request_id, '') FROM audit_events ORDER BY source, sequence
"""
_GAPS: Final = "SELECT source, details FROM audit_events WHERE event_type = %s"
_REJECTED: Final = "SELECT source, sequence, reason FROM audit_rejected ORDER BY source, sequence"


class Row(Struct, frozen=True):
    """One of the table."""

    id: str
    source: str
    sequence: int
    chain: bytes
    time: float
    """Seconds since the epoch."""
    decision: str
    request_id: str


class Gap(Struct, frozen=True):
    """Records that a sidecar confessed to have dropped. Times in seconds since the epoch."""

    sidecar: int
    dropped: int
    first: float
    last: float


class Phase(Struct, frozen=True):
    """Between two points in time of the monotonic clock."""

    label: str
    """`calm`, `central` or `local`."""
    start: float
    end: float


class Evidence(Struct, frozen=True, kw_only=True):
    """All of it. Lists with an entry for each sidecar are in their order."""

    rows: Sequence[Row]
    rejected: Sequence[tuple[str, int, str]] = ()
    gaps: Sequence[Gap] = ()
    ends: Sequence[SourceEnd] = ()
    """Of the sources that spools remember."""
    committed: dict[tuple[str, int], Committed]
    """Seen in spools, by source and sequence number."""
    differing: Sequence[tuple[str, int]] = ()
    answers: Sequence[Sequence[Answer]]
    on_full: Sequence[str] = ON_FULL
    deaths: Sequence[Death] = ()
    absences: Sequence[Absence] = ()
    phases: Sequence[Phase] = ()


def collect(world: World, phases: Sequence[Phase]) -> Evidence:
    """After `drain`."""
    with psycopg.connect(world.database.dsn()) as connection:
        rows = [Row(*row) for row in connection.execute(_ROWS.encode())]
        gaps = [_gap(source, details) for source, details in connection.execute(_GAPS, [GAP])]
        rejected = [(source, sequence, reason) for source, sequence, reason in connection.execute(_REJECTED)]
    ends: list[SourceEnd] = []
    for spool in world.spools:
        with SpoolReader(spool) as reader:
            ends += reader.snapshot().sources
    return Evidence(
        rows=rows,
        rejected=rejected,
        gaps=gaps,
        ends=ends,
        committed={place: found for watch in world.watches for place, found in watch.committed.items()},
        differing=[place for watch in world.watches for place in watch.differing],
        answers=[read_answers(file) for file in world.answers],
        deaths=world.deaths,
        absences=world.absences,
        phases=phases,
    )


def _gap(source: str, details: dict[str, Any]) -> Gap:
    return Gap(sidecar_of(source), details["dropped"], details["first_ns"] / 1e9, details["last_ns"] / 1e9)


def sidecar_of(source: str) -> int:
    """The number in `sidecar-1/0123456789abcdef`."""
    return int(source.partition("/")[0].removeprefix("sidecar-"))
