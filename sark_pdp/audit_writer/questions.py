"""What is asked of the stored trail: a page of events, the events of one commit, counts by the hour."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from sark_pdp._proto import audit_pb2
from sark_pdp.audit_writer.filters import Position, conditions, position_of, token_of, where
from sark_pdp.audit_writer.tail import Commit
from sark_pdp.errors import SarkError

Pool: TypeAlias = ConnectionPool[psycopg.Connection[Any]]

PAGE: Final = 50
LARGEST_PAGE: Final = 1000
MOST_COUNTS: Final = 50_000
"""Rows of one answer: about 2.5 MiB, unless the ids of users are long."""
_MOST_BYTES: Final = 3 << 20
"""Of the payloads of one page, unless it has one event alone: a message of gRPC has 4 MiB by default."""
_CANCEL_SECONDS: Final = 5.0
# The server keeps to the limit of bytes: a thousand events of some MiB must not be in the memory of a writer.
_BOUNDED: Final = """
SELECT sequence, chain, payload, source, timestamp, id, selected FROM (
    SELECT *, count(*) OVER () AS selected,
        sum(octet_length(payload)) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT sequence, chain, payload, source, timestamp, id FROM audit_events {where} ORDER BY {order} LIMIT %s
    ) AS page
) AS sized
WHERE total <= %s OR total = octet_length(payload) ORDER BY {order} LIMIT %s
"""
_NEWEST_FIRST: Final = sql.SQL("timestamp DESC, id DESC")
_OLDEST_FIRST: Final = sql.SQL("timestamp, id")


class TooManyError(SarkError):
    """An answer would be too long; the message says of what to ask less."""


class GivenUpError(SarkError):
    """Nobody waits for the answer any more."""


class Asked:
    """One question, which the one who asked may give up. `give_up` may be called by another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._given_up = threading.Event()

    @contextmanager
    def connection(self, pool: Pool) -> Iterator[psycopg.Connection[Any]]:
        """A connection to ask over. Raises GivenUpError where that is of no use any more."""
        with pool.connection() as connection:
            with self._lock:
                if self._given_up.is_set():
                    raise GivenUpError("the question was given up")
                self._connection = connection
            try:
                yield connection
            finally:
                with self._lock:
                    self._connection = None
                    if self._given_up.is_set():
                        # What cancels the query may come after it, and must not meet the next one.
                        connection.close()

    def give_up(self) -> None:
        """The database is told to stop, which frees the thread that waits for it. May take a while; never raises."""
        with self._lock:
            self._given_up.set()
            if self._connection is not None:
                with suppress(psycopg.Error, OSError):
                    self._connection.cancel_safe(timeout=_CANCEL_SECONDS)


class Questions:
    """Asks the database; each method takes a connection of the pool, so any number of threads may call.

    Each raises InvalidRequestError for what cannot be asked, psycopg.Error where the database fails, and GivenUpError.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def search(self, asked: Asked, request: "audit_pb2.SearchRequest") -> "audit_pb2.SearchResponse":
        """One page, newest first.

        The token names the last event of the page, so what is inserted meanwhile moves nothing.
        """
        found, parameters = conditions(request.filter, "timestamp")
        if request.page_token:
            found.append(sql.SQL("(timestamp, id) < (%s, %s)"))
            parameters.extend(position_of(request.filter, request.page_token))
        size = min(request.page_size or PAGE, LARGEST_PAGE)
        events, last = self._page(asked, found, parameters, _NEWEST_FIRST, size)
        token = "" if last is None else token_of(request.filter, last)
        return audit_pb2.SearchResponse(events=events, next_page_token=token)

    def committed(
        self, asked: Asked, wanted: "audit_pb2.Filter", commit: Commit, after: Position | None
    ) -> "tuple[list[audit_pb2.Event], Position | None]":
        """Events of one transaction that match, oldest first, and after which one there are more, if there are."""
        times = sql.SQL("timestamp >= {epoch} + %s * {unit} AND timestamp <= {epoch} + %s * {unit}").format(
            epoch=sql.SQL("timestamptz '2000-01-01 00:00:00+00'"), unit=sql.SQL("interval '1 microsecond'")
        )
        found: list[Any] = [times, sql.SQL("xmin = %s::text::xid")]
        parameters: list[Any] = [commit.first, commit.last, str(commit.transaction)]
        selected, values = conditions(wanted, "timestamp")
        if after is not None:
            selected.append(sql.SQL("(timestamp, id) > (%s, %s)"))
            values.extend(after)
        return self._page(asked, [*found, *selected], [*parameters, *values], _OLDEST_FIRST, LARGEST_PAGE)

    def hourly_counts(self, asked: Asked, wanted: "audit_pb2.Filter") -> "audit_pb2.HourlyCountsResponse":
        """Counts of the hours that begin in the filter's time, oldest first: all of them, or TooManyError."""
        found, parameters = conditions(wanted, "hour", ("event_type", "user_id"))
        query = sql.SQL(
            "SELECT hour, user_id, event_type, count FROM audit_events_hourly {} ORDER BY 1, 3, 2 LIMIT %s"
        ).format(where(found))
        with asked.connection(self._pool) as connection:
            rows = connection.execute(query, [*parameters, MOST_COUNTS + 1]).fetchall()
        if len(rows) > MOST_COUNTS:
            raise TooManyError(f"these are more than {MOST_COUNTS:,} counts; ask for a shorter time")
        return audit_pb2.HourlyCountsResponse(
            counts=[
                audit_pb2.HourlyCount(
                    hour=hour.isoformat().replace("+00:00", "Z"), user_id=user or "", event_type=kind, count=count
                )
                for hour, user, kind, count in rows
            ]
        )

    def _page(
        self, asked: Asked, found: list[Any], parameters: list[Any], order: sql.SQL, size: int
    ) -> "tuple[list[audit_pb2.Event], Position | None]":
        """So many events at most, and the position of the last one where there are more."""
        query = sql.SQL(_BOUNDED).format(where=where(found), order=order)
        with asked.connection(self._pool) as connection:
            rows = connection.execute(query, [*parameters, size + 1, _MOST_BYTES, size], binary=True).fetchall()
        events = [audit_pb2.Event(sequence=row[0], chain=row[1], payload=row[2], source=row[3]) for row in rows]
        more = bool(rows) and len(rows) < rows[-1][6]
        return events, (rows[-1][4], rows[-1][5]) if more else None
