"""What strangers may take of an injector: connections and the bytes of unfinished reviews.

Whoever reaches its port may open connections, say nothing on them, and never finish a review. Where there are too many,
the one that got on with nothing for the longest makes room: reviews of the API server come whole within milliseconds.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from sark_pdp.injector.metrics import InjectorMetrics


class Crowd:
    """All connections of one injector. Owned by its event loop."""

    def __init__(self, most: int, metrics: InjectorMetrics) -> None:
        self._most = most
        self._metrics = metrics
        # In the order in which they last did something: were opened, or had an answer.
        self._connections: dict[Connection, None] = {}

    def enter(self, connection: "Connection") -> None:
        """Another one, whose turn to make room comes last."""
        if len(self._connections) >= self._most:
            oldest = next(iter(self._connections))
            self.leave(oldest)
            self._metrics.crowded_out.labels("connection").inc()
            oldest.transport.abort()
        self._connections[connection] = None

    def leave(self, connection: "Connection") -> None:
        """It is closed."""
        self._connections.pop(connection, None)

    def got_on(self, connection: "Connection") -> None:
        """It had an answer."""
        if connection in self._connections:
            self.leave(connection)
            self._connections[connection] = None


class Connection(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # which of two classes it is uvicorn finds out
    """One of uvicorn's, in a crowd."""

    def __init__(self, *arguments: Any, crowd: Crowd, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._crowd = crowd

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._crowd.enter(self)

    def on_response_complete(self) -> None:
        self._crowd.got_on(self)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        super().connection_lost(exc)


class Bodies:
    """What has come of reviews that are not whole yet. Owned by the event loop."""

    def __init__(self, most_bytes: int, metrics: InjectorMetrics) -> None:
        self._most_bytes = most_bytes
        self._metrics = metrics
        self._held = 0
        # The oldest first.
        self._sizes: dict[asyncio.Timeout, int] = {}

    def begin(self, patience: asyncio.Timeout) -> None:
        """One begins; `patience` is what ends it where it must make room."""
        self._sizes[patience] = 0

    def grow(self, patience: asyncio.Timeout, size: int) -> None:
        """So many bytes more of it have come."""
        if patience not in self._sizes:
            return
        self._sizes[patience] += size
        self._held += size
        while self._held > self._most_bytes:
            oldest = next(iter(self._sizes))
            self.end(oldest)
            self._metrics.crowded_out.labels("review").inc()
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())

    def end(self, patience: asyncio.Timeout) -> None:
        """It is whole, or given up."""
        self._held -= self._sizes.pop(patience, 0)
