"""The link to Redis: a few connections, a breaker, and a thread that connects so that no request waits for it.

Whatever Redis does, `execute` returns within the timeout. After a few failures in a row the breaker opens: nobody asks
any more, and the thread tries again on its own until Redis answers in time.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from sark_pdp.cache.redis_connection import Command, RedisConnection, RedisServer, redis_py_connection
from sark_pdp.cache.redis_errors import OF_ONE_COMMAND, PROBLEMS, REASONS, ReplyError, UnusableServerError, reason_of
from sark_pdp.cache.redis_server import differences, run_id_of
from sark_pdp.model import Seconds
from sark_pdp.observability.instruments import Counter

_FAILURES: Final = 3
"""In a row; then the breaker opens."""
_MOST_CONNECTIONS: Final = 8
"""More threads than this do not ask at a time; each is a file and some KiB."""
_PATIENCE: Final = Seconds(1.0)
"""For each step of connecting, and for looking after the server: no request waits for either."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
"""Seconds between attempts to connect; they double, and vary so that sidecars do not all come at once."""
_LOOK: Final = 1.0
"""Seconds between looks at whether it is still the same server."""
_LOOK_AT_SETTINGS: Final = 60.0
"""Seconds between looks at how the server is configured."""
_QUIET: Final = 60.0
"""Seconds between log lines about a Redis that stays away."""

_log = logging.getLogger(__name__)

Listener = Callable[[bytes | None], None]


class RedisLink:
    """Thread-safe. `_lock` guards `_up`, `_open`, `_failures`, `_generation` and changes of `run_id`.

    Connections lie in `_idle` until a caller takes one. Those of an older generation than the present one are closed
    instead of being put back. What is left (`_watch`, `_trouble`, the times of the last looks) is the thread's own.
    """

    def __init__(self, server: RedisServer, timeout: Seconds) -> None:
        """`timeout` bounds one `execute` in all."""
        self._server, self._timeout = server, timeout
        self._lock = threading.Lock()
        self._idle: queue.LifoQueue[tuple[int, RedisConnection]] = queue.LifoQueue()
        self._up = False
        self._open = self._failures = self._generation = 0
        self.run_id: bytes | None = None
        """Of the server that the present connections lead to; None while there are none."""
        self._errors = {reason: Counter() for reason in REASONS}
        self._listeners: list[Listener] = []
        self._told: bytes | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis_link", daemon=True)
        self._watch: RedisConnection | None = None
        self._trouble = "it was not reached yet"
        self._down_since = time.monotonic()
        self._looked = self._looked_at_settings = self._logged = self._add_again = float("-inf")
        self._differences: tuple[str, ...] | None = None

    def start(self) -> None:
        """Begins to connect; returns at once."""
        self._thread.start()

    def close(self, patience: Seconds = _PATIENCE) -> None:
        """Ends the thread and the connections; from then on Redis is not to be had."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience)
        self._go_down("it was closed")

    def on_change(self, listener: Listener) -> None:
        """`listener` is called with the run id, or None, each time that it changes, on the thread that connects."""
        self._listeners.append(listener)

    def connection(self, timeout: Seconds = _PATIENCE) -> Any:
        """One more for whoever subscribes: a `redis.connection.AbstractConnection`, not yet connected.

        Raises OSError where a file of the credentials cannot be read.
        """
        return redis_py_connection(self._server, timeout)

    def execute(self, commands: Sequence[Command], waited: float = 0.0) -> list[Any] | None:
        """The replies to all of them, in one round trip; None where Redis is not to be had, or refuses one of them.

        `waited`: seconds that the caller has waited for Redis before, on behalf of the same request: both together are
        within the timeout. Where less than half of it is left Redis is not asked, and that is no failure of it.
        """
        patience = self._timeout - waited
        if not self._up or patience < self._timeout / 2:
            return None
        deadline = time.monotonic() + patience
        taken = self._taken(deadline)
        if taken is None:
            return None
        generation, connection = taken
        try:
            replies = connection.exchange(commands, deadline)
        except Exception as error:  # noqa: BLE001  # whatever it was, the connection is of no use any more
            self._failed(generation, connection, reason_of(error))
            return None
        for reply in replies:
            if isinstance(reply, ReplyError):
                self._refused(generation, connection, reply)
                return None
        if self._failures:
            with self._lock:
                self._failures = 0
        self._give_back(generation, connection)
        return replies

    @property
    def up(self) -> bool:
        """Whether Redis is asked at all: the breaker is closed."""
        return self._up

    @property
    def errors(self) -> dict[str, int]:
        """How often Redis was of no use, by reason."""
        return {reason: count.value for reason, count in self._errors.items()}

    def problems(self) -> list[str]:
        """What an operator should know, one clause each; empty where all is well."""
        if not self._up:
            away = time.monotonic() - self._down_since
            return [f"Redis is not to be had since {away:.0f} s: {self._trouble}"]
        return [f"Redis {difference}" for difference in self._differences or ()]

    def notes(self) -> list[str]:
        """What is not known."""
        unknown = self._up and self._differences is None
        return ["how Redis is configured is unknown: it refuses CONFIG GET"] if unknown else []

    def _taken(self, deadline: float) -> tuple[int, RedisConnection] | None:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            self._wake.set()
        try:
            return self._idle.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            self._errors["busy"].value += 1
            return None

    def _give_back(self, generation: int, connection: RedisConnection) -> None:
        with self._lock:
            if generation == self._generation:
                self._idle.put((generation, connection))
                return
        connection.close()

    def _refused(self, generation: int, connection: RedisConnection, error: ReplyError) -> None:
        if error.reason in OF_ONE_COMMAND:
            self._errors[error.reason].value += 1
            self._give_back(generation, connection)
        else:
            self._failed(generation, connection, error.reason)

    def _failed(self, generation: int, connection: RedisConnection, reason: str) -> None:
        connection.close()
        self._errors[reason].value += 1
        with self._lock:
            if generation != self._generation:
                return
            self._open -= 1
            self._failures += 1
            opens = self._failures >= _FAILURES
        if opens:
            self._go_down(f"{_FAILURES} attempts in a row failed, the last one: {PROBLEMS.get(reason, reason)}")
        self._wake.set()

    def _go_down(self, trouble: str) -> None:
        with self._lock:
            if self._up:
                self._down_since = time.monotonic()
                self._trouble = trouble
            self._up, self.run_id = False, None
            self._open = self._failures = 0
            self._generation += 1
            gone = []
            while not self._idle.empty():
                gone.append(self._idle.get_nowait())
        for _, connection in gone:
            connection.close()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._tend()
            except Exception as error:  # noqa: BLE001  # whatever it was, there is no Redis, and it is tried again
                self._lost(error)
                self._tell(self.run_id)
                self._stopping.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                self._tell(self.run_id)
                self._wake.wait(_LOOK)
        if self._watch is not None:
            self._watch.close()

    def _tend(self) -> None:
        """Connects where there is no connection, and looks after those that there are. Raises whatever goes wrong."""
        if not self._up:
            self._connect()
            return
        if self._idle.empty() and self._open < _MOST_CONNECTIONS and time.monotonic() >= self._add_again:
            self._add()
        if time.monotonic() - self._looked >= _LOOK:
            self._look()

    def _connect(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = RedisConnection(self._server, _PATIENCE)
        run_id = run_id_of(self._watch, time.monotonic() + _PATIENCE)
        self._differences = differences(self._watch, time.monotonic() + _PATIENCE)
        # It has to be as quick as requests want it.
        self._watch.exchange([("PING",)], time.monotonic() + self._timeout)
        first = self._another(run_id)
        # Before anybody asks it: what another one told must not be taken for what this one tells.
        self._tell(run_id)
        with self._lock:
            self._open = 1
            self._idle.put((self._generation, first))
            self._up, self.run_id = not self._stopping.is_set(), run_id
        self._looked = self._looked_at_settings = time.monotonic()
        _log.info("Redis is there", extra={"run_id": run_id.decode()})

    def _add(self) -> None:
        # Those that there are may do where one more cannot be had: Redis takes only so many.
        generation = self._generation
        try:
            connection = self._another(self.run_id)
        except Exception as error:
            if not self._open or isinstance(error, UnusableServerError):
                raise
            self._errors[reason_of(error)].value += 1
            self._add_again = time.monotonic() + _LOOK
            return
        with self._lock:
            if generation == self._generation:
                self._open += 1
                self._idle.put((generation, connection))
                return
        connection.close()

    def _another(self, run_id: bytes | None) -> RedisConnection:
        """For requests; it leads to this run of the server."""
        connection = RedisConnection(self._server, _PATIENCE)
        try:
            if run_id_of(connection, time.monotonic() + _PATIENCE) != run_id:
                raise UnusableServerError("other_server", "another server, or another run of it, answers now")
        except Exception:
            connection.close()
            raise
        return connection

    def _look(self) -> None:
        watch = self._watch
        if watch is None or run_id_of(watch, time.monotonic() + _PATIENCE) != self.run_id:
            raise UnusableServerError("other_server", "another run of the server answers now")
        self._looked = time.monotonic()
        if self._looked - self._looked_at_settings >= _LOOK_AT_SETTINGS:
            self._differences = differences(watch, time.monotonic() + _PATIENCE)
            self._looked_at_settings = time.monotonic()

    def _lost(self, error: Exception) -> None:
        reason = reason_of(error)
        self._errors[reason].value += 1
        text = str(error) if isinstance(error, UnusableServerError) else PROBLEMS.get(reason, reason)
        self._go_down(text)
        self._trouble = text
        now = time.monotonic()
        if now - self._logged >= _QUIET:
            self._logged = now
            _log.warning("Redis is not to be had; decisions are evaluated meanwhile", extra={"reason": str(error)})

    def _tell(self, run_id: bytes | None) -> None:
        if run_id == self._told:
            return
        self._told = run_id
        for listener in self._listeners:
            try:
                listener(run_id)
            except Exception:  # noqa: BLE001  # one that fails must not cost the others Redis
                _log.exception("a listener failed")
