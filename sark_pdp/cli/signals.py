"""The signals that a long-running command waits for, on its main thread.

They are blocked and taken by `sigwait`. A handler would run on the main thread between any two steps of it, also
between those of `Event.wait`; `Event.set` in the handler then waits for ever for the lock that this thread holds.
"""

import signal
from collections.abc import Iterable
from typing import Final

END: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def hold(numbers: Iterable[signal.Signals]) -> None:
    """From now on they wait for `sigwait`. Called before there are other threads, which inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
