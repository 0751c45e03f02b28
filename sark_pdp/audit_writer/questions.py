"""What is asked of the stored trail: a page of events, the events of one commit, counts by the hour."""

from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from sark_pdp._proto import audit_pb2
from sark_pdp.audit_writer.filters import Position, conditions, position_of, token_of, where

Pool: TypeAlias = ConnectionPool[psycopg.Connection[Any]]

PAGE: Final = 50
LARGEST_PAGE: Final = 1000
_MOST_COUNTS: Final = 100_000
"""Rows of one answer: about 5 MiB."""
_MOST_BYTES: Final = 3 << 20
"""Of the payloads of one page: a message of gRPC has 4 MiB by default."""
_COLUMNS: Final = sql.SQL("sequence, chain, payload, source, timestamp, id")


class Questions:
    """Asks the database; each method takes a connection of the pool, so any number of threads may call."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def search(self, request: "audit_pb2.SearchRequest") -> "audit_pb2.SearchResponse":
        """One page, newest first; raises InvalidRequestError, or psycopg.Error where the database fails.

        The token names the last event of the page, so what is inserted meanwhile moves nothing.
        """
        found, parameters = conditions(request.filter, "timestamp")
        if request.page_token:
            found.append(sql.SQL("(timestamp, id) < (%s, %s)"))
            parameters.extend(position_of(request.filter, request.page_token))
        size = min(request.page_size or PAGE, LARGEST_PAGE)
        query = sql.SQL("SELECT {} FROM audit_events {} ORDER BY timestamp DESC, id DESC LIMIT %s").format(
            _COLUMNS, where(found)
        )
        with self._pool.connection() as connection:
            rows = connection.execute(query, [*parameters, size + 1], binary=True).fetchall()
        response = audit_pb2.SearchResponse()
        total = 0
        last: Position | None = None
        for row in rows[:size]:
            total += len(row[2])
            if last is not None and total > _MOST_BYTES:
                break
            response.events.append(_event(row))
            last = (row[4], row[5])
        if last is not None and len(response.events) < len(rows):
            response.next_page_token = token_of(request.filter, last)
        return response

    def committed(self, wanted: "audit_pb2.Filter", transaction: int, first: int, last: int) -> "list[audit_pb2.Event]":
        """The events of one transaction that match, oldest first; its times are microseconds since 2000-01-01."""
        found, parameters = conditions(wanted, "timestamp")
        times = sql.SQL("timestamp >= {epoch} + %s * {unit} AND timestamp <= {epoch} + %s * {unit}").format(
            epoch=sql.SQL("timestamptz '2000-01-01 00:00:00+00'"), unit=sql.SQL("interval '1 microsecond'")
        )
        query = sql.SQL("SELECT {} FROM audit_events {} ORDER BY timestamp, id").format(
            _COLUMNS, where([times, sql.SQL("xmin = %s::text::xid"), *found])
        )
        with self._pool.connection() as connection:
            rows = connection.execute(query, [first, last, str(transaction), *parameters], binary=True).fetchall()
        return [_event(row) for row in rows]

    def hourly_counts(self, wanted: "audit_pb2.Filter") -> "audit_pb2.HourlyCountsResponse":
        """Counts of the hours that begin in the filter's time, oldest first. Raises InvalidRequestError."""
        found, parameters = conditions(wanted, "hour", ("event_type", "user_id"))
        query = sql.SQL(
            "SELECT hour, user_id, event_type, count FROM audit_events_hourly {} ORDER BY 1, 3, 2 LIMIT %s"
        ).format(where(found))
        with self._pool.connection() as connection:
            rows = connection.execute(query, [*parameters, _MOST_COUNTS]).fetchall()
        return audit_pb2.HourlyCountsResponse(
            counts=[
                audit_pb2.HourlyCount(
                    hour=hour.isoformat().replace("+00:00", "Z"), user_id=user or "", event_type=kind, count=count
                )
                for hour, user, kind, count in rows
            ]
        )


def _event(row: Any) -> "audit_pb2.Event":
    sequence, chain, payload, source, *_ = row
    return audit_pb2.Event(sequence=sequence, chain=chain, payload=payload, source=source)
