"""The publisher's thread: listens, invalidates, and makes good for what it may have missed."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Final, Protocol

from sark_pdp.cache.subjects import ATTRIBUTES, Subject
from sark_pdp.errors import SarkError
from sark_pdp.model import Seconds
from sark_pdp.publisher.changes import change_of
from sark_pdp.publisher.metrics import PublisherMetrics

_WAIT: Final = 0.5
"""Seconds; how late a stop may be noticed."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_MOST_OWED: Final = 10_000
"""Subjects; past these, everything that was read of the registry is invalidated instead."""
_AT_ONCE: Final = 500
"""Subjects of one call."""

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What `Listening` is."""

    @property
    def established(self) -> bool:
        """Whether whatever changes from now on will be heard."""

    def wait(self, timeout: float) -> list[str]:
        """Payloads; raises DatabaseError."""

    def close(self) -> None:
        """Never waits."""


class _Pause:
    """Grows with each failure in a row; by chance a little shorter, so that two publishers do not keep step."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def reset(self) -> None:
        self._next = _FIRST_PAUSE

    def take(self) -> float:
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


class Publisher:
    """Listens until it is closed, whatever breaks meanwhile. Any number may run for one registry.

    `_owed`, what was told of and is not invalidated yet, belongs to its thread, which alone writes the two reasons.
    """

    def __init__(
        self,
        listen: Callable[[], Source],
        invalidate: Callable[[Sequence[str]], bool],
        metrics: PublisherMetrics,
    ) -> None:
        """`listen` connects, or raises SarkError; `invalidate` returns False where not every sidecar hears of it."""
        self._listen, self._invalidate, self._metrics = listen, invalidate, metrics
        self._owed: set[Subject] = set()
        self._deaf: str | None = "PostgreSQL was not reached yet"
        self._mute: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def close(self, patience: Seconds) -> None:
        """What was heard by now is still invalidated, where Redis takes it within `patience`."""
        self._stopping.set()
        self._thread.join(patience)

    @property
    def problem(self) -> str | None:
        """Why changes do not reach the sidecars now; None where they do."""
        return self._mute or self._deaf

    def _run(self) -> None:
        pause = _Pause()
        while not self._stopping.is_set():
            try:
                if self._owed:
                    # Redis may be back before PostgreSQL is: what was heard does not wait for the other.
                    self._pay()
                with closing(self._listen()) as source:
                    self._serve(source, pause)
            except SarkError as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001 (logged)
                # Whatever it was, the thread must not end: changes would go unheard from then on.
                _log.exception("the publisher failed; it begins anew")
                self._lost(error)
            self._stopping.wait(pause.take())
        if self._owed:
            self._pay()

    def _lost(self, error: Exception) -> None:
        if self._deaf != str(error):
            _log.warning("the registry is not listened to; it is tried again", extra={"reason": str(error)})
        self._deaf = str(error)
        self._metrics.listening = False

    def _serve(self, source: Source, pause: _Pause) -> None:
        """Until it is told to stop; raises SarkError where the source is lost."""
        retry, retry_at = _Pause(), 0.0
        missed, began = True, float("inf")
        while not self._stopping.is_set():
            patience = _WAIT if not self._owed else min(_WAIT, max(retry_at - time.monotonic(), 0))
            payloads = source.wait(patience)
            if missed and source.established:
                # Nobody kept what was notified while nobody listened.
                self._owe([ATTRIBUTES])
                missed, self._deaf = False, "what changed while nobody listened is not invalidated yet"
                self._metrics.connections.inc()
                self._metrics.listening = True
                began = time.monotonic()
                _log.info("listening to the registry; what was read of it before is invalidated")
            self._take(payloads)
            if self._owed and time.monotonic() >= retry_at:
                if self._pay():
                    retry.reset()
                    self._deaf = None if source.established else self._deaf
                else:
                    retry_at = time.monotonic() + retry.take()
            if time.monotonic() - began > _LONGEST_PAUSE:
                # Connections that end as soon as they begin must not have everything read anew all the time.
                pause.reset()

    def _take(self, payloads: Iterable[str]) -> None:
        for payload in payloads:
            change = change_of(payload)
            self._metrics.heard(change.kind)
            if change.kind == "unknown":
                _log.warning("a notification could not be read; everything read of the registry is invalidated")
            self._owe(change.subjects)

    def _owe(self, subjects: Iterable[Subject]) -> None:
        self._owed.update(subjects)
        if len(self._owed) > _MOST_OWED:
            self._owed = {ATTRIBUTES}

    def _pay(self) -> bool:
        """Invalidates what is owed; False where that failed, and then all that was read of the registry is owed."""
        # All of it covers each part: answers are found by what was read, and that is read anew.
        owed = [ATTRIBUTES] if ATTRIBUTES in self._owed else sorted(self._owed)
        for first in range(0, len(owed), _AT_ONCE):
            part = owed[first : first + _AT_ONCE]
            if not self._invalidate(part):
                self._metrics.failures.inc()
                if self._mute is None:
                    self._mute = "Redis does not take invalidations"
                    _log.warning("Redis does not take invalidations; all attributes follow when it does")
                self._owed = {ATTRIBUTES}
                return False
            self._metrics.invalidated.value += len(part)
        if self._mute is not None:
            _log.info("Redis takes invalidations again")
        self._mute = None
        self._owed = set()
        return True
