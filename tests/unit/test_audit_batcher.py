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


def portion(*sequences: int, committed: Callable[[Portion], None]) -> Portion:
    events = [(number, bytes(32), _payload(number)) for number in sequences]
    return portion_of(SOURCE, events, committed)


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
        all_committed = asyncio.Event()
        running = asyncio.create_task(made.run())
        await made.submit(portion(1, 2, committed=lambda _: None))
        while not store.batches:
            await asyncio.sleep(0)
        await made.submit(portion(3, committed=lambda _: all_committed.set()))
        passed += HOUR
        store.released.set()
        # Alone it would wait for an hour.
        await asyncio.wait_for(all_committed.wait(), PATIENCE)
        assert store.batches == [[1, 2], [3]]
        running.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("payload", [b"nonsense", _payload(7)])
def test_the_memory_of_an_event_is_more_than_its_bytes(payload: bytes) -> None:
    made = portion_of(SOURCE, [(7, bytes(32), payload)], lambda _: None)
    assert made.size > len(payload) + 32 + sum(len(row.copied) for row in made.rows)
