"""Advances wasmtime's epoch while policies run, so that an evaluation past its deadline is interrupted."""

import threading
import time
from typing import Final

import wasmtime

from sark_pdp.model import Seconds

_TICKS_BEFORE_PARKING: Final = 64


class Ticker:
    """One thread per engine. It parks when nothing was evaluated for a while: an idle sidecar wakes nobody.

    `_wanted` is set by evaluating threads and cleared by the ticker alone.
    """

    def __init__(self, engine: wasmtime.Engine, tick: Seconds) -> None:
        self.tick = tick
        self._engine = engine
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="epoch", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Called before each evaluation: the epoch advances for at least the next ticks."""
        if not self._wanted.is_set():
            self._wanted.set()

    def ticks(self, timeout: Seconds) -> int:
        """The number of ticks after which `timeout` has passed for certain, and at most two more ticks."""
        return int(timeout / self.tick) + 2

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            # An evaluation wants the epoch once, when it begins: what is left of the ticks below outlasts its deadline,
            # which is ten ticks and two (policy.py), or the event is set again and a whole round follows.
            self._wanted.clear()
            for _ in range(_TICKS_BEFORE_PARKING):
                if self._closed:
                    return
                time.sleep(self.tick)
                self._engine.increment_epoch()
