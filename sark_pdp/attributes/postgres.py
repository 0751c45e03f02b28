"""The registry in PostgreSQL, read through its three views."""

import logging
import random
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from sark_pdp.attributes.exchange import ExchangeError, ExchangeTimeoutError, PreparingConnection, exchange
from sark_pdp.attributes.statements import ID_TYPES, IdTypes, Question, array_literal, by_key, questions, statement
from sark_pdp.attributes.typed_ids import can_be
from sark_pdp.errors import AttributesError, DeadlineExceededError
from sark_pdp.interfaces import RowKey
from sark_pdp.model import Deadline, Document, Seconds
from sark_pdp.observability.database import DatabaseMetrics
from sark_pdp.postgres.connections import parse_dsn

_APPLICATION: Final = "sark-pdp"
_MAX_LIFETIME: Final = 1800.0
"""Seconds that a connection is used; a pool in front of the server, or its certificate, may have changed meanwhile."""
_RECONNECTING: Final = 1.0
"""Seconds that the pool itself tries to connect; after that it does so whenever the watch asks it for a connection."""
_WATCH: Final = (0.2, 5.0)
"""Seconds between looks at a registry that is away: at first, and at most."""
_LOOK: Final = 10.0
"""Seconds between looks at one that answers; they find it away before a request does."""
_AWAY: Final = "the registry cannot be reached"
_BUSY: Final = "the registry is not read in time, because too many requests wait for it"
_TOO_LATE: Final = "the deadline passed while the registry was read"
_decode: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode

_log = logging.getLogger(__name__)


class PostgresOptions(Struct, frozen=True):
    """How it is reached."""

    dsn: str
    password_file: Path | None
    """Read for each connection."""
    pool_size: int
    pool_overflow: int
    """Connections that are added while all are in use."""
    timeout: Seconds
    """The longest that one reading may take."""


class PostgresSource:
    """Thread-safe. `_away` and `_id_types` are replaced by any thread, each in one step; `_lock` guards `_lent`.

    A registry that fails is away until the watch, a thread, has seen it answer: no request waits for it meanwhile.
    """

    def __init__(self, options: PostgresOptions, metrics: DatabaseMetrics) -> None:
        """Raises SettingsError for a connection string that cannot be read."""
        parse_dsn(options.dsn)
        self._options = options
        self._metrics = metrics
        self._away = ""
        self._id_types: IdTypes = {}
        self._lock = threading.Lock()
        self._lent = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._too_slow = f"it did not answer within {options.timeout:g} s"
        self._watch = threading.Thread(target=self._keep_watch, name="registry-watch", daemon=True)
        # It would log each connection that is asked for, and each attempt to connect.
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
        self._pool = ConnectionPool(
            self._conninfo,
            connection_class=PreparingConnection,
            min_size=options.pool_size,
            max_size=options.pool_size + options.pool_overflow,
            open=False,
            max_lifetime=_MAX_LIFETIME,
            reconnect_timeout=_RECONNECTING,
            num_workers=1,
            name="registry",
        )

    def start(self) -> None:
        """Connects in the background: whether the registry is there shows in `problem`."""
        self._metrics.read_pool(lambda: (self._pool.get_stats()["pool_size"], self._options.pool_size))
        self._pool.open()
        self._wake.set()
        self._watch.start()

    def close(self) -> None:
        """Waits for the watch, which may be in the middle of a look."""
        self._closing.set()
        self._wake.set()
        self._watch.join(self._options.timeout + 1.0)
        self._pool.close(timeout=1.0)

    @property
    def away(self) -> bool:
        """Whether it is known not to answer."""
        return bool(self._away)

    @property
    def problem(self) -> str:
        """Why it does not answer, for operators; empty while it does."""
        return self._away

    def read(self, keys: Collection[RowKey], deadline: Deadline) -> Mapping[RowKey, Sequence[Document]]:
        """One query for each view that has keys, on one connection."""
        if self._away:
            raise AttributesError(_AWAY)
        until = Deadline(min(deadline, time.monotonic() + self._options.timeout))
        reason = _AWAY
        # Connections that broke while nobody used them say nothing of the server: they are gone through.
        for _ in range(self._pool.max_size + 1):
            try:
                return self._read(keys, until)
            except (ExchangeTimeoutError, PoolTimeout) as error:
                raise self._late(deadline, full=isinstance(error, PoolTimeout)) from None
            except PoolClosed:
                break
            except ExchangeError as error:
                reason = str(error)
                if not error.lost:
                    break
        self._set_away(reason)
        self._wake.set()
        raise AttributesError(_AWAY)

    def _late(self, deadline: Deadline, *, full: bool) -> AttributesError | DeadlineExceededError:
        self._wake.set()
        if deadline <= time.monotonic():
            # A short deadline says nothing of the registry: the watch finds out.
            return DeadlineExceededError(_TOO_LATE)
        if full and self._lent:
            return AttributesError(_BUSY)
        self._set_away(self._too_slow)
        return AttributesError(_AWAY)

    def _read(self, keys: Collection[RowKey], deadline: Deadline) -> Mapping[RowKey, Sequence[Document]]:
        found: dict[RowKey, list[Document]] = {}
        connection = self._lend(deadline)
        try:
            types = self._id_types or self._read_id_types(connection, deadline)
            for question in questions(key for key in keys if can_be(key, types)):
                found.update(self._ask(connection, question, types, deadline))
        finally:
            self._take_back(connection)
        return found

    def _lend(self, deadline: Deadline) -> PreparingConnection:
        connection = self._pool.getconn(max(deadline - time.monotonic(), 0.0))
        with self._lock:
            self._lent += 1
        return connection

    def _take_back(self, connection: PreparingConnection) -> None:
        with self._lock:
            self._lent -= 1
        self._pool.putconn(connection)

    def _ask(
        self, connection: PreparingConnection, question: Question, types: IdTypes, deadline: Deadline
    ) -> dict[RowKey, list[Document]]:
        view = question.view.name
        sql = statement(view, question.kinds, types.get(view, "text"), types.get("servers", "text"))
        began = time.monotonic()
        rows = exchange(connection, sql, [array_literal(array) for array in question.arrays], deadline)
        self._metrics.query("select", view, Seconds(time.monotonic() - began))
        return by_key(question, chain.from_iterable(_decode(row) for row in rows if row))

    def _read_id_types(self, connection: PreparingConnection, deadline: Deadline) -> IdTypes:
        rows = exchange(connection, ID_TYPES, [], deadline)
        if len(rows) < len(("users", "servers", "tools")):
            raise ExchangeError("the views sark_pdp.users, .servers and .tools are not all there", "42P01")
        self._id_types = dict(msgspec.json.decode(row) for row in rows)
        return self._id_types

    def _keep_watch(self) -> None:
        delay = _LOOK
        while not self._closing.is_set():
            self._wake.wait(delay)
            self._wake.clear()
            if self._closing.is_set():
                return
            self._look()
            if not self._away:
                delay = _LOOK
            elif delay >= _LOOK:
                delay = _WATCH[0]
            else:
                # Not all sidecars at once.
                delay = min(delay * 2, _WATCH[1]) * random.uniform(0.8, 1.2)  # noqa: S311  # no secret

    def _look(self) -> None:
        deadline = Deadline(time.monotonic() + self._options.timeout)
        try:
            connection = self._lend(deadline)
            try:
                self._read_id_types(connection, deadline)
            finally:
                self._take_back(connection)
        except ExchangeError as error:
            self._set_away(str(error))
        except ExchangeTimeoutError:
            self._set_away(self._too_slow)
        except (PoolTimeout, PoolClosed):
            if not self._lent and not self._closing.is_set():
                self._set_away(self._why_not())
        else:
            if self._away:
                _log.info("the registry answers again")
            self._away = ""

    def _why_not(self) -> str:
        """What the pool does not tell of a connection that it cannot make."""
        try:
            psycopg.connect(self._conninfo()).close()
        except (psycopg.Error, OSError, UnicodeDecodeError) as error:
            return str(error)
        return self._too_slow

    def _set_away(self, reason: str) -> None:
        if not self._away and not self._closing.is_set():
            _log.warning("the registry of users, servers and tools is away: %s", reason)
        self._away = " ".join(reason.split()) or _AWAY
        self._id_types = {}

    def _conninfo(self) -> str:
        options = self._options
        timeout_ms = max(int(options.timeout * 1000), 1)
        given = {
            "connect_timeout": "2",
            "application_name": _APPLICATION,
            "options": f"-c statement_timeout={timeout_ms}",
        } | parse_dsn(options.dsn)
        if options.password_file is not None:
            given["password"] = options.password_file.read_text("utf-8").strip()
        return make_conninfo("", **given)
