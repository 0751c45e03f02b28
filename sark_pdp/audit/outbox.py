"""What the writer of a spool and the shipper tell each other: what is committed, and what an audit writer has."""

import threading
from collections import deque
from collections.abc import Sequence

from sark_pdp.audit.spool import Shipped


class Outbox:
    """Thread-safe. One thread writes the spool, another ships."""

    def __init__(self, wake: threading.Event) -> None:
        """`wake` wakes the thread that writes the spool."""
        self._wake = wake
        self._news = threading.Event()
        # Put in by the shipper, taken out by the spool's thread.
        self._shipped: deque[Shipped] = deque()

    def nudge(self) -> None:
        """There is news for the shipper: a commit, an acknowledgement, an end."""
        self._news.set()

    def wait_for_news(self, seconds: float | None) -> None:
        """Returns after the next nudge, or after one that nobody has waited for yet."""
        self._news.wait(seconds)
        self._news.clear()

    def acknowledge(self, shipped: Sequence[Shipped]) -> None:
        """The spool may let go of these."""
        self._shipped.extend(shipped)
        self._wake.set()

    def has_shipped(self) -> bool:
        """Whether there is something to let go of."""
        return bool(self._shipped)

    def take_shipped(self) -> list[Shipped]:
        """What the spool may let go of, once."""
        return [self._shipped.popleft() for _ in range(len(self._shipped))]

    def waiting(self) -> list[Shipped]:
        """What the spool was not seen to let go of yet."""
        return list(self._shipped)

    def put_back(self, shipped: list[Shipped]) -> None:
        """What could not be let go of."""
        self._shipped.extendleft(reversed(shipped))
