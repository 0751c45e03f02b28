"""One connection to PostgreSQL that listens, and notices when nobody is at the other end any more.

A thread that waits in a query cannot be told that the server has been silent for too long. So queries are sent and
their results taken as they come, and a small one is sent now and then to see whether there is an answer.
"""

import logging
import select
import time
from typing import Final

import psycopg
from psycopg import pq

from sark_pdp.attributes.registry.triggers import CHANNEL, TRIGGERS
from sark_pdp.errors import DatabaseError
from sark_pdp.postgres.connections import connect, database_error

_LISTEN: Final = f"LISTEN {CHANNEL}; SELECT count(*) FROM pg_trigger WHERE starts_with(tgname, '{TRIGGERS}')"  # noqa: S608 (constants)
_ASK_EVERY: Final = 5.0
_PATIENCE: Final = 10.0
"""Seconds that a query may take; a server that is slower is taken for lost."""
_BAD: Final = frozenset({pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE, pq.ExecStatus.NONFATAL_ERROR})

_log = logging.getLogger(__name__)


class Listening:
    """Used by one thread. After a DatabaseError it is of no use any more, but to be closed."""

    def __init__(self, dsn: str, ask_every: float = _ASK_EVERY, patience: float = _PATIENCE) -> None:
        """Connects, within what the connection string or the driver allows; raises DatabaseError or SettingsError."""
        self._connection = connect(dsn, "sark-pdp publisher")
        self._ask_every, self._patience = ask_every, patience
        self._asked_at: float | None = None
        self._answered_at = float("-inf")
        self._broken: psycopg.Error | None = None
        try:
            self._ask(_LISTEN)
        except psycopg.Error as error:
            self.close()
            raise database_error("the registry cannot be listened to", error) from error

    @property
    def established(self) -> bool:
        """Whether whatever changes from now on will be heard."""
        return self._answered_at > float("-inf")

    def wait(self, timeout: float) -> list[str]:
        """The payloads of what was notified, at once where there are some, else within `timeout` seconds.

        Raises DatabaseError where the connection broke, or the server does not answer: what came before is told first.
        """
        if self._broken is None:
            try:
                self._read(timeout)
            except psycopg.Error as error:
                self._broken = error
        payloads = self._payloads()
        if self._broken is not None and not payloads:
            raise database_error("PostgreSQL is lost", self._broken) from self._broken
        if not payloads and self._asked_at is not None and time.monotonic() - self._asked_at > self._patience:
            raise DatabaseError(f"PostgreSQL did not answer within {self._patience:g} s")
        return payloads

    def close(self) -> None:
        """Never waits for the server."""
        self._connection.close()

    def _read(self, timeout: float) -> None:
        if self._asked_at is None and time.monotonic() - self._answered_at >= self._ask_every:
            self._ask("SELECT 1")
        select.select([self._connection.fileno()], [], [], timeout)
        self._connection.pgconn.consume_input()
        self._take_results()

    def _ask(self, query: str) -> None:
        self._connection.pgconn.send_query(query.encode())
        self._asked_at = time.monotonic()

    def _take_results(self) -> None:
        connection = self._connection.pgconn
        while self._asked_at is not None and not connection.is_busy():
            result = connection.get_result()
            if result is None:
                self._asked_at, self._answered_at = None, time.monotonic()
            elif result.status in _BAD:
                message = result.error_message.decode("utf-8", "replace").strip()
                raise psycopg.OperationalError(message)
            elif not self.established and result.get_value(0, 0) == b"0":
                _log.warning(
                    "no table of the database tells of changes: run `sark-pdp db migrate --registry`, "
                    "with --triggers for tables of another program"
                )

    def _payloads(self) -> list[str]:
        payloads = []
        while (notification := self._connection.pgconn.notifies()) is not None:
            payloads.append(notification.extra.decode("utf-8", "replace"))
        return payloads
