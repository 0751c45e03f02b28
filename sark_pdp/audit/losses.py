"""Counts dropped records, and keeps when the first and the last came since they were accounted for."""

import threading


class Losses:
    """Thread-safe. Times are nanoseconds since the epoch."""

    def __init__(self) -> None:
        self.total = 0
        """Since the start."""
        self._lock = threading.Lock()
        self._since = 0
        self._first_ns = 0
        self._last_ns = 0

    def add(self, time_ns: int) -> None:
        """Counts one record that was made at this time."""
        with self._lock:
            self.total += 1
            self._since += 1
            self._first_ns = time_ns if self._since == 1 else min(self._first_ns, time_ns)
            self._last_ns = time_ns if self._since == 1 else max(self._last_ns, time_ns)

    def take(self) -> tuple[int, int, int] | None:
        """How many, the time of the first and of the last; None where there was none since it was asked last."""
        if not self._since:
            return None
        with self._lock:
            since, self._since = self._since, 0
            return since, self._first_ns, self._last_ns
