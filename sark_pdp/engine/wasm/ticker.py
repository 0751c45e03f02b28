"""Advances wasmtime's epoch while policies run, so that an evaluation past its deadline is interrupted."""

import threading
import time
from typing import Final

import wasmtime

from sark_pdp.model import Seconds

_LEAST_TICKS_BEFORE_PARKING: Final = 64
TICK: Final = Seconds(0.001)
"""Short, as it is what the time of an evaluation that must be quick is counted in; still below 1 % of a busy core."""


def ticks_in(seconds: Seconds) -> int:
    """After so many ticks this time has passed for certain, and at most two more ticks."""
    return int(seconds / TICK) + 2


class Ticker:
    """One thread per engine. It parks when nothing was evaluated for a while: an idle sidecar wakes nobody.

    `_wanted` is set by evaluating threads and cleared by the ticker alone.
    """

    def __init__(self, engine: wasmtime.Engine, timeout: Seconds) -> None:
        self._engine = engine
        self.ticks = ticks_in(timeout)
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="epoch", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Called when a deadline was set: the epoch advances by at least `ticks` from now on."""
        if not self._wanted.is_set():
            self._wanted.set()

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        # An evaluation wants the epoch once, when it begins: either the event is still set, and a round that outlasts
        # its deadline is about to begin, or it is set again during a round and a whole one follows.
        ticks = max(self.ticks, _LEAST_TICKS_BEFORE_PARKING)
        while True:
            self._wanted.wait()
            self._wanted.clear()
            for _ in range(ticks):
                if self._closed:
                    return
                time.sleep(TICK)
                self._engine.increment_epoch()
