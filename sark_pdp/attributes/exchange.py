"""One statement on one connection, within a deadline.

The driver waits for a server as long as the server likes: one that is frozen or cut off would hold a call forever. So
this waits by itself, on the socket, through the driver's interface to libpq.
"""

import select
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq

from sark_pdp.model import Deadline

_DONE = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})
_MOST_STATEMENTS = 64
"""That stay prepared on a connection; there are not that many."""


class ExchangeError(Exception):
    """The server refused the statement, or the connection failed; the text is the server's, not for clients."""

    def __init__(self, text: str, sqlstate: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate
        """Empty where the connection failed."""

    @property
    def lost(self) -> bool:
        """Whether it was the connection alone that ended, with or without a word from the server."""
        return not self.sqlstate or self.sqlstate.startswith(("08", "57P"))


class ExchangeTimeoutError(Exception):
    """The answer did not come in time; the connection is of no use any more."""


class PreparingConnection(psycopg.Connection[Any]):
    """Knows the statements that it has prepared. Of one thread at a time."""

    def __init__(self, pgconn: pq.abc.PGconn, row_factory: Any = psycopg.rows.tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.prepared: dict[bytes, bytes] = {}
        self.readable = select.poll()
        self.readable.register(pgconn.socket, select.POLLIN)


def exchange(
    connection: PreparingConnection, statement: bytes, arrays: Sequence[bytes], deadline: Deadline
) -> list[bytes]:
    """The first column of the rows of a statement, prepared the first time; whatever is raised, it is closed then.

    Raises ExchangeError or ExchangeTimeoutError.
    """
    pgconn = connection.pgconn
    try:
        name = connection.prepared.get(statement)
        if name is None:
            name = b"sark%d" % len(connection.prepared)
            pgconn.send_prepare(name, statement)
            _result(connection, deadline)
            if len(connection.prepared) < _MOST_STATEMENTS:
                connection.prepared[statement] = name
        pgconn.send_query_prepared(name, arrays)
        result = _result(connection, deadline)
        return [result.get_value(row, 0) or b"" for row in range(result.ntuples)]
    except psycopg.Error as error:
        connection.close()
        raise ExchangeError(str(error), "") from error
    except BaseException:
        connection.close()
        raise


def _result(connection: PreparingConnection, deadline: Deadline) -> pq.abc.PGresult:
    pgconn = connection.pgconn
    if pgconn.flush():
        _flush(pgconn, deadline)
    found = None
    while True:
        while pgconn.is_busy():
            _wait(connection.readable, deadline)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        if result.status not in _DONE:
            sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
            raise ExchangeError(result.error_message.decode("utf-8", "replace").strip(), sqlstate.decode())
        found = result
    if found is None:
        raise ExchangeError("the connection gave no result", "")
    return found


def _flush(pgconn: pq.abc.PGconn, deadline: Deadline) -> None:
    either = select.poll()
    either.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        _wait(either, deadline)
        # A server that talks before it listens on is heard, or both would wait.
        pgconn.consume_input()


def _wait(poller: select.poll, deadline: Deadline) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not poller.poll(max(left * 1000, 1)):
        raise ExchangeTimeoutError
