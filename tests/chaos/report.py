"""What a run shows: faults as they come, how far it is on a terminal, and the results as a table."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.verdict import Check

_REFRESH: Final = 0.5
_WIDTH: Final = 110


class Screen:
    """Thread-safe."""

    def __init__(self, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._seed = seed
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._shown = False

    def say(self, line: str) -> None:
        """A line of its own."""
        with self._lock:
            self._wipe()
            print(line, flush=True)

    def fault(self, name: str, at: float) -> None:
        """One that begins, so many seconds after the start."""
        self.say(f"{at:7.1f} s  {name}")

    def begin(self, backlog: Callable[[], int]) -> None:
        """Shows on a terminal how far it is, until `end`."""
        if not sys.stderr.isatty():
            return
        began = time.monotonic()

        def show() -> None:
            while not self._ended.wait(_REFRESH):
                with self._lock:
                    passed = time.monotonic() - began
                    print(
                        f"\r{passed:7.0f} s of {self._seconds:.0f}, {backlog():,} events are not stored yet   ",
                        end="",
                        file=sys.stderr,
                        flush=True,
                    )
                    self._shown = True

        self._thread = threading.Thread(target=show, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Shows it no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._wipe()

    def _wipe(self) -> None:
        if self._shown:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
            self._shown = False


def table(checks: Sequence[Check]) -> str:
    """The results."""
    shown = Table(show_lines=True)
    for heading in ("", "promise", "found"):
        shown.add_column(heading)
    for check in checks:
        shown.add_row("kept" if check.kept else "BROKEN", check.promise, check.found)
    console = Console(width=_WIDTH, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()
