"""The clock of the process."""

import time


class SystemClock:
    """The time of this machine."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return time.time_ns()
