"""When the audit writer commits, whatever its database does meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from sark_pdp.audit_writer.batcher import Batcher, Pace, Portion, portion_of
from sark_pdp.audit_writer.columns import Row
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.audit_writer.store import Rejection, Written
from sark_pdp.model import Seconds
from tests.fix_writer_streams import Told

SOURCE = "pod-1/0123456789abcdef"
PATIENCE = 30.0
HOUR = 3600.0


class HeldStore:
    """Commits when it is told to. Used on one event loop."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.released = asyncio.Event()

    def write(self, rows: Sequence[Row], rejections: Sequence[Rejection]) -> Written:
        self.batches.append([row.sequence for row in rows])
        return Written(inserted=len(rows), rejected=len(rejections))

    def ping(self) -> None:
        """The database is there."""

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        found = function(*arguments)
        if self.batches:
            await self.released.wait()
        return found


def portion(*sequences: int, stream: Told) -> Portion:
    events = [(number, bytes(32), _payload(number)) for number in sequences]
    return portion_of(SOURCE, events, stream)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


def _payload(number: int) -> bytes:
    columns = {
        "id": f"0192f0c1-2a3b-7c4d-8e5f-{number:012d}",
        "timestamp": "2026-11-24T06:00:00Z",
        "source": SOURCE,
        "sequence": number,
    }
    return msgspec.json.encode(columns)


def test_what_came_while_a_batch_was_committed_has_waited_as_long() -> None:
    passed = 0.0

    async def run() -> None:
        nonlocal passed
        store = HeldStore()
        made = Batcher(store, store.run, WriterMetrics(), Pace(2, Seconds(HOUR), 1 << 20), lambda: passed)
        stream = Told()
        running = asyncio.create_task(made.run())
        await made.submit(portion(1, 2, stream=stream))
        await until(lambda: store.batches)
        await made.submit(portion(3, stream=stream))
        passed += HOUR
        store.released.set()
        # Alone it would wait for an hour.
        await until(lambda: stream.ends == [2, 3])
        assert store.batches == [[1, 2], [3]]
        running.cancel()

    asyncio.run(run())


def test_a_stream_that_brings_much_has_the_others_in_between() -> None:
    """And what it brings stays in order."""

    async def run() -> None:
        store = HeldStore()
        made = Batcher(store, store.run, WriterMetrics(), Pace(1, Seconds(0.0), 1 << 20))
        much, little, later = Told(), Told(), Told()
        for number in range(1, 6):
            await made.submit(portion(number, stream=much))
        for number in (11, 12):
            await made.submit(portion(number, stream=little))
        running = asyncio.create_task(made.run())
        await until(lambda: store.batches)
        await made.submit(portion(21, stream=later))
        store.released.set()
        await until(lambda: much.ends[-1:] == [5])
        assert store.batches == [[1], [11], [2], [12], [21], [3], [4], [5]]
        running.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("late", [True, False])
def test_late_events_of_a_stream_that_has_ended_are_no_work(late: bool) -> None:
    """They take long, and come again; others are quick, and are stored all the same."""

    async def run() -> None:
        store = HeldStore()
        store.released.set()
        made = Batcher(store, store.run, WriterMetrics(), Pace(1, Seconds(0.0), 1 << 20, late=late))
        ended, here = Told(), Told()
        await made.submit(portion(1, stream=ended))
        await made.submit(portion(2, stream=here))
        ended.gone = True
        running = asyncio.create_task(made.run())
        await until(lambda: here.ends == [2])
        assert store.batches == ([[2]] if late else [[1], [2]])
        # The room that they took is free again.
        assert await asyncio.wait_for(made.reserve(1 << 20), PATIENCE)
        running.cancel()

    asyncio.run(run())


def test_no_more_is_read_than_there_is_room_for_however_many_streams_wait() -> None:
    async def run() -> None:
        store = HeldStore()
        made = Batcher(store, store.run, WriterMetrics(), Pace(1, Seconds(0.0), 9000))
        reading = [asyncio.create_task(made.reserve(1000)) for _ in range(10)]
        await until(lambda: sum(task.done() for task in reading) == 3)
        await asyncio.sleep(0.01)
        assert sum(task.done() for task in reading) == 3
        await made.release(reading[0].result())
        await until(lambda: sum(task.done() for task in reading) == 4)
        for task in reading:
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("payload", [b"nonsense", _payload(7)])
def test_the_memory_of_an_event_is_more_than_its_bytes(payload: bytes) -> None:
    made = portion_of(SOURCE, [(7, bytes(32), payload)], Told())
    assert made.size > len(payload) + 32 + sum(len(row.copied) for row in made.rows)
