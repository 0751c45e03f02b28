"""What all requests together may take, counted on the one thread that carries them: no lock is needed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar

from sark_pdp.transport.carrier import Limits
from sark_pdp.transport.handler import Refusal

_THREADS: Final = 4
"""They answer what may wait: a cache or a database, a policy that takes long, a batch."""

T = TypeVar("T")


class ShedError(Exception):
    """A limit is reached; the request gets no answer but that."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Gate:
    """Who comes in, and the pool where they wait."""

    def __init__(self, limits: Limits, shed: Callable[[], None]) -> None:
        self.limits = limits
        self._shed = shed
        self.calls = 0
        """Requests in flight."""
        self.bytes = 0
        """Of their bodies and answers."""
        self._pool = ThreadPoolExecutor(_THREADS, "http_call")

    def enter(self) -> "Slot":
        """One request more, until its slot is left. Raises ShedError."""
        if self.calls >= self.limits.max_concurrent:
            raise self.shedding(Refusal.TOO_MANY_CALLS)
        return Slot(self)

    def shedding(self, reason: Refusal) -> ShedError:
        """What to raise where a limit is reached; counts it."""
        self._shed()
        return ShedError(reason)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """On a thread that may wait."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def close(self) -> None:
        """A thread that is still answering ends with its answer, which nobody waits for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Slot:
    """The place of one request; a context manager."""

    __slots__ = ("_gate", "_taken")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._taken = 0

    def __enter__(self) -> Self:
        self._gate.calls += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.calls -= 1
        self._gate.bytes -= self._taken

    def take(self, size: int) -> None:
        """So many bytes more are in flight. Raises ShedError."""
        gate = self._gate
        # What comes alone is answered whatever its size.
        if gate.bytes > self._taken and gate.bytes + size > gate.limits.in_flight_bytes:
            raise gate.shedding(Refusal.TOO_MANY_BYTES)
        self.add(size)

    def add(self, size: int) -> None:
        """The same for an answer, which is there already."""
        self._gate.bytes += size
        self._taken += size
