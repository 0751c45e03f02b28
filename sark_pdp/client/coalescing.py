"""Lets questions that are asked at the same time travel in one `CheckBatch`, so that many pay for one round trip.

A question sets out at the end of the turn of the event loop in which it is asked, with all that were asked in it. While
a call is on its way, those that come later wait for its return, but not for a slow one. A lone question is a plain
`Check`, which nothing waits for. Only questions of one trace share a batch, since a call has one trace.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from sark_pdp.client import failures, messages
from sark_pdp.client.answers import Answer
from sark_pdp.client.failures import Failure
from sark_pdp.client.messages import Check, Exchange
from sark_pdp.client.tracing import Context
from sark_pdp.model import Seconds

_PATIENCE: Final = 0.002
"""Seconds that a question waits for a call that is on its way: some round trips to a sidecar."""
_BYTES: Final = 256 * 1024
"""Of the questions in one batch; a longer one travels alone. Far below what a decision point takes in one message."""

T = TypeVar("T")


class Call(Protocol):
    """Makes a call within seconds; raises nothing but CancelledError."""

    def __call__(self, exchange: Exchange[T], seconds: float, context: Context) -> Awaitable[T]: ...


class _Waiting:
    """A question whose answer somebody waits for."""

    __slots__ = ("check", "deadline", "flight", "future")

    def __init__(self, check: Check, deadline: float, future: "asyncio.Future[Answer]") -> None:
        self.check = check
        self.deadline = deadline
        """On the clock of the event loop."""
        self.future = future
        self.flight: _Flight | None = None


class _Flight:
    """Questions that are on their way together."""

    __slots__ = ("expiry", "task", "waiting")

    def __init__(self, waiting: Sequence[_Waiting]) -> None:
        self.waiting = waiting
        self.task: asyncio.Task[None] | None = None
        self.expiry: asyncio.TimerHandle | None = None

    def cancel_if_deserted(self) -> None:
        """Nobody waits for any of its answers any more."""
        if self.task is not None and all(each.future.done() for each in self.waiting):
            self.task.cancel()


class _Lane:
    """The questions of one trace, or those without any."""

    __slots__ = ("flying", "timer", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.flying = 0
        self.timer: asyncio.TimerHandle | None = None


class Coalescing:
    """For one event loop. `most` questions share a batch; with 1 each is a call of its own."""

    def __init__(self, call: Call, most: int, window: Seconds) -> None:
        """`window`: how long the first question of a batch waits for others, beyond the turn of the event loop."""
        self._call = call
        self._most = most
        self._window = window
        self._lanes: dict[Context, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, check: Check, seconds: float, context: Context) -> Answer:
        """The answer, or the denial where none comes within the seconds."""
        if self._most == 1 or len(check.message) > _BYTES:
            return await self._call(check, seconds, context)
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(context)
        if lane is None:
            lane = self._lanes[context] = _Lane()
        waiting = _Waiting(check, loop.time() + seconds, loop.create_future())
        lane.waiting.append(waiting)
        if len(lane.waiting) >= self._most:
            self._send(context, lane)
        elif lane.flying or self._window:
            if lane.timer is None:
                lane.timer = loop.call_later(self._window or _PATIENCE, self._send, context, lane)
        elif len(lane.waiting) == 1:
            return await self._lead(context, lane, waiting)
        return await self._answer_to(waiting)

    async def finish(self) -> None:
        """Returns when nothing is on its way any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _lead(self, context: Context, lane: _Lane, waiting: _Waiting) -> Answer:
        """The first question of a turn sends what has come when it is over."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            waiting.future.cancel()
            if waiting.flight is None:
                self._send(context, lane)
            else:
                waiting.flight.cancel_if_deserted()
            raise
        if waiting.flight is None:
            if len(lane.waiting) == 1:
                return await self._alone(context, lane, waiting)
            self._send(context, lane)
        return await self._answer_to(waiting)

    async def _alone(self, context: Context, lane: _Lane, waiting: _Waiting) -> Answer:
        """Nothing is made for a lone question that it does not need: no task, no batch."""
        lane.waiting.clear()
        lane.flying += 1
        try:
            left = waiting.deadline - asyncio.get_running_loop().time()
            return await self._call(waiting.check, left, context)
        finally:
            self._landed(context, lane)

    @staticmethod
    async def _answer_to(waiting: _Waiting) -> Answer:
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if waiting.flight is not None:
                waiting.flight.cancel_if_deserted()
            raise

    def _send(self, context: Context, lane: _Lane) -> None:
        """All that waits sets out."""
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        waiting = [each for each in lane.waiting if not each.future.done()]
        lane.waiting = []
        for batch in self._batches(waiting):
            flight = _Flight(batch)
            for each in batch:
                each.flight = flight
            lane.flying += 1
            flight.task = asyncio.get_running_loop().create_task(self._fly(context, lane, flight))
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._tasks.discard)
        self._forget_if_empty(context, lane)

    def _batches(self, waiting: Sequence[_Waiting]) -> Iterator[Sequence[_Waiting]]:
        batch: list[_Waiting] = []
        size = 0
        for each in waiting:
            size += len(each.check.message)
            if batch and (len(batch) >= self._most or size > _BYTES):
                yield batch
                batch, size = [], len(each.check.message)
            batch.append(each)
        if batch:
            yield batch

    def _landed(self, context: Context, lane: _Lane) -> None:
        lane.flying -= 1
        if lane.waiting:
            self._send(context, lane)
        self._forget_if_empty(context, lane)

    def _forget_if_empty(self, context: Context, lane: _Lane) -> None:
        if not (lane.waiting or lane.flying) and self._lanes.get(context) is lane:
            del self._lanes[context]

    async def _fly(self, context: Context, lane: _Lane, flight: _Flight) -> None:
        try:
            self._expire(flight)
            await self._carry(context, flight.waiting)
        except Exception as error:  # noqa: BLE001  # it is for those who wait, not for the log of the event loop
            for each in flight.waiting:
                if not each.future.done():
                    each.future.set_exception(error)
        finally:
            if flight.expiry is not None:
                flight.expiry.cancel()
            for each in flight.waiting:
                # Only where this task itself was ended.
                each.future.cancel()
            self._landed(context, lane)

    async def _carry(self, context: Context, waiting: Sequence[_Waiting]) -> None:
        asked = [each for each in waiting if not each.future.done()]
        if not asked:
            return
        left = max(each.deadline for each in asked) - asyncio.get_running_loop().time()
        if len(asked) == 1:
            _settle(asked, [await self._call(asked[0].check, left, context)])
            return
        answers = await self._call(messages.coalesced([each.check for each in asked]), left, context)
        if not isinstance(answers, Failure):
            _settle(asked, answers)
        elif failures.refuses_batches(answers):
            # It takes fewer at a time, or none. Nothing was decided, so nothing is asked twice.
            self._most = max(len(asked) // 2, 1)
            await asyncio.gather(*(self._carry(context, [each]) for each in asked))
        else:
            _settle(asked, [each.check.refuse(answers) for each in asked])

    def _expire(self, flight: _Flight) -> None:
        """Denies what has run out of time, and looks again when the next one does."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [each for each in flight.waiting if not each.future.done() and each.deadline <= now]
        _settle(late, [each.check.refuse(failures.LATE) for each in late])
        pending = [each.deadline for each in flight.waiting if not each.future.done()]
        if pending:
            flight.expiry = loop.call_at(min(pending), self._expire, flight)
        else:
            flight.cancel_if_deserted()


def _settle(waiting: Sequence[_Waiting], answers: Sequence[Answer]) -> None:
    for each, answer in zip(waiting, answers, strict=True):
        if not each.future.done():
            each.future.set_result(answer)
