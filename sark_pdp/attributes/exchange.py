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
            _result(pgconn, deadline)
            if len(connection.prepared) < _MOST_STATEMENTS:
                connection.prepared[statement] = name
        pgconn.send_query_prepared(name, arrays)
        result = _result(pgconn, deadline)
        return [result.get_value(row, 0) or b"" for row in range(result.ntuples)]
    except psycopg.Error as error:
        connection.close()
        raise ExchangeError(str(error), "") from error
    except BaseException:
        connection.close()
        raise


def _result(pgconn: pq.abc.PGconn, deadline: Deadline) -> pq.abc.PGresult:
    poller = select.poll()
    poller.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        _wait(poller, deadline)
        pgconn.consume_input()
    poller.modify(pgconn.socket, select.POLLIN)
    results = []
    while True:
        while pgconn.is_busy():
            _wait(poller, deadline)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        results.append(result)
    if not results:
        raise ExchangeError("the connection gave no result", "")
    for result in results:
        if result.status not in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK}:
            sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
            raise ExchangeError(result.error_message.decode("utf-8", "replace").strip(), sqlstate.decode())
    return results[-1]


def _wait(poller: select.poll, deadline: Deadline) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not poller.poll(max(left * 1000, 1)):
        raise ExchangeTimeoutError
