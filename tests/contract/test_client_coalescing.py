"""Questions that are asked at the same time travel together, and each fares as if it had travelled alone."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import Answer, AsyncClient
from sark_pdp.errors import InvalidRequestError
from tests.fix_client import ALICE, DROP, SEARCH, Behaviour, fake_pdp, serving


class Recorder:
    """A decision point that remembers what it was asked, and can be told to hold its answers back."""

    def __init__(self, behaviour: Behaviour = fake_pdp) -> None:
        self._behaviour = behaviour
        self.calls: list[tuple[str, int]] = []
        """Method, and the number of its questions."""
        self.metadata: list[dict[str, Any]] = []
        self.remaining: list[float] = []
        self.ended = threading.Event()
        """The call is over, whatever was answered; while answers are held back: the caller has gone."""
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def __call__(self, method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        name = method.rpartition("/")[2]
        many = len(wire.CheckBatchRequest.FromString(message).checks) if name == "CheckBatch" else 1
        self.calls.append((name, many))
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.remaining.append(context.time_remaining() or 0.0)
        context.add_callback(self.ended.set)
        self.arrived.release()
        assert self.open.wait(60)
        return self._behaviour(method, message, context)

    async def wait_for_call(self) -> None:
        assert await asyncio.to_thread(self.arrived.acquire, timeout=30)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@contextmanager
def running(recorder: Recorder) -> Iterator[str]:
    with serving(recorder) as address:
        try:
            yield address
        finally:
            recorder.open.set()


def asked(client: AsyncClient, name: str, **options: Any) -> "asyncio.Task[Answer]":
    return asyncio.create_task(client.check(user=ALICE, action="tool:invoke", tool=SEARCH, request_id=name, **options))


def test_what_is_asked_in_one_turn_of_the_loop_is_one_call(recorder: Recorder) -> None:
    async def main(address: str) -> list[Answer]:
        async with AsyncClient(address, timeout=30) as client:
            return await asyncio.gather(*(asked(client, f"r-{number}") for number in range(50)))

    with running(recorder) as address:
        answers = asyncio.run(main(address))
    assert [answer.request_id for answer in answers] == [f"r-{number}" for number in range(50)]
    assert all(answers)
    assert recorder.calls == [("CheckBatch", 50)]


def test_a_lone_question_is_a_plain_check(recorder: Recorder) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=30) as client:
            for number in range(3):
                assert await asked(client, f"r-{number}")

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("Check", 1)] * 3


def test_a_client_can_be_told_not_to_coalesce(recorder: Recorder) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=30, coalesce=1) as client:
            assert all(await asyncio.gather(*(asked(client, f"r-{number}") for number in range(5))))

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("Check", 1)] * 5


def test_a_slow_call_holds_nobody_up(recorder: Recorder) -> None:
    """The later question is answered although the first call never returns."""

    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=60) as client:
            recorder.open.clear()
            first = asked(client, "slow")
            await recorder.wait_for_call()
            later = asked(client, "later")
            await recorder.wait_for_call()
            assert not first.done()
            recorder.open.set()
            assert await later
            assert await first

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("Check", 1), ("Check", 1)]


@pytest.mark.parametrize(("most", "sizes"), [(3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_a_batch_has_a_bounded_number_of_questions(recorder: Recorder, most: int, sizes: list[int]) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=30, coalesce=most) as client:
            assert all(await asyncio.gather(*(asked(client, f"r-{number}") for number in range(7))))

    with running(recorder) as address:
        asyncio.run(main(address))
    assert sorted((many for _, many in recorder.calls), reverse=True) == sizes


def test_a_batch_has_a_bounded_number_of_bytes_and_a_large_question_travels_alone(recorder: Recorder) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=30) as client:
            texts = ["x" * size * 1024 for size in (100, 100, 100, 300, 1)]
            asked = (client.check_input({"tool": SEARCH, "text": text}) for text in texts)
            assert all(await asyncio.gather(*asked))

    with running(recorder) as address:
        asyncio.run(main(address))
    assert sorted(recorder.calls) == [("Check", 1), ("CheckBatch", 2), ("CheckBatch", 2)]


def test_one_bad_item_fails_alone(recorder: Recorder) -> None:
    """What cannot be sent raises in its own task; what is refused, denies its own question."""

    async def main(address: str) -> Any:
        async with AsyncClient(address, timeout=30) as client:
            return await asyncio.gather(
                asked(client, "a"),
                client.check_input({"x": float("nan")}),
                asked(client, "c", policy="no/such/policy"),
                client.check(user=ALICE, action="tool:invoke", tool=DROP),
                asked(client, "e"),
                return_exceptions=True,
            )

    with running(recorder) as address:
        good, unsendable, refused, denied, also_good = asyncio.run(main(address))
    assert recorder.calls == [("CheckBatch", 4)]
    assert good
    assert also_good
    assert isinstance(unsendable, InvalidRequestError)
    assert refused.error == "NOT_FOUND"
    assert not denied
    assert denied.error is None


def test_a_cancelled_question_does_not_hurt_the_others(recorder: Recorder) -> None:
    """Whether it is cancelled before it set out, or on its way; the first of them leads the others."""

    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=60) as client:
            recorder.open.clear()
            for cancelled_at in (0, 1):
                tasks = [asked(client, f"r-{number}") for number in range(4)]
                await asyncio.sleep(0)
                tasks[cancelled_at].cancel()
                await recorder.wait_for_call()
                tasks[2].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await tasks[2]
                recorder.open.set()
                with pytest.raises(asyncio.CancelledError):
                    await tasks[cancelled_at]
                assert await tasks[3]
                assert await tasks[1 - cancelled_at]
                recorder.open.clear()

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("CheckBatch", 3)] * 2


def test_a_batch_that_nobody_waits_for_is_cancelled(recorder: Recorder) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=60) as client:
            recorder.open.clear()
            tasks = [asked(client, f"r-{number}") for number in range(3)]
            await recorder.wait_for_call()
            for task in tasks:
                task.cancel()
            assert await asyncio.to_thread(recorder.ended.wait, 30)
            recorder.open.set()

    with running(recorder) as address:
        asyncio.run(main(address))


def test_each_question_has_its_own_deadline(recorder: Recorder) -> None:
    """The batch has the latest one; who gave less time is denied by then, and the others are answered."""

    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=60) as client:
            recorder.open.clear()
            short, long = asked(client, "short", timeout=0.05), asked(client, "long")
            answer = await short
            assert not answer
            assert answer.request_id == "short"
            assert (answer.error or "").startswith("DEADLINE_EXCEEDED")
            assert not long.done()
            recorder.open.set()
            assert await long

    with running(recorder) as address:
        asyncio.run(main(address))
    # On a machine that stood still the short one may have been too late to set out.
    assert recorder.calls in ([("CheckBatch", 2)], [("Check", 1)])
    assert recorder.remaining[0] > 1


def refusing(code: grpc.StatusCode, most: int) -> Behaviour:
    def answer(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        if method.endswith("CheckBatch") and len(wire.CheckBatchRequest.FromString(message).checks) > most:
            context.abort(code, "too many")
        return fake_pdp(method, message, context)

    return answer


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED])
def test_where_batches_are_refused_each_is_asked_alone_and_later_ones_are_smaller(code: grpc.StatusCode) -> None:
    """As by a decision point whose `limits.max_batch` is smaller than what the client coalesces."""
    recorder = Recorder(refusing(code, 4))

    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=30) as client:
            for _ in range(3):
                assert all(await asyncio.gather(*(asked(client, f"r-{number}") for number in range(8))))

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("CheckBatch", 8), *[("Check", 1)] * 8, *[("CheckBatch", 4)] * 4]


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL])
def test_where_a_batch_fails_all_are_denied_and_not_asked_again(code: grpc.StatusCode) -> None:
    recorder = Recorder(refusing(code, 1))

    async def main(address: str) -> list[Answer]:
        async with AsyncClient(address, timeout=30) as client:
            return await asyncio.gather(*(asked(client, f"r-{number}") for number in range(8)))

    with running(recorder) as address:
        answers = asyncio.run(main(address))
    assert recorder.calls == [("CheckBatch", 8)]
    assert {answer.error for answer in answers} == {f"{code.name}: too many"}
    assert [answer.request_id for answer in answers] == [f"r-{number}" for number in range(8)]


def test_a_batch_with_an_answer_missing_denies_all() -> None:
    def short(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        reply = wire.CheckBatchResponse.FromString(fake_pdp(method, message, context))
        del reply.results[0]
        return reply.SerializeToString()

    async def main(address: str) -> list[Answer]:
        async with AsyncClient(address, timeout=30) as client:
            return await asyncio.gather(*(asked(client, f"r-{number}") for number in range(3)))

    with serving(short) as address:
        answers = asyncio.run(main(address))
    assert [answer.allow for answer in answers] == [False] * 3
    assert all((answer.error or "").startswith("BAD_ANSWER: ") for answer in answers)


def test_closing_denies_what_is_under_way_and_what_waits(recorder: Recorder) -> None:
    async def main(address: str) -> list[Answer]:
        client = AsyncClient(address, timeout=60)
        recorder.open.clear()
        tasks = [asked(client, f"r-{number}") for number in range(3)]
        await recorder.wait_for_call()
        tasks.append(asked(client, "waits"))
        await asyncio.sleep(0)
        await client.close()
        answers = await asyncio.gather(*tasks)
        recorder.open.set()
        return answers

    with running(recorder) as address:
        answers = asyncio.run(main(address))
    assert all((answer.error or "").startswith("CLOSED: ") for answer in answers)


def test_a_window_lets_questions_of_later_turns_join(recorder: Recorder) -> None:
    """The first waits for as long as it says, or until there are as many as travel together."""

    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=120, window=60, coalesce=3) as client:
            tasks = []
            for number in range(3):
                tasks.append(asked(client, f"r-{number}"))
                await asyncio.sleep(0.01)
            # Well before the window is over.
            assert all(await asyncio.wait_for(asyncio.gather(*tasks), 30))

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("CheckBatch", 3)]


def test_when_the_window_is_over_nobody_is_waited_for(recorder: Recorder) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, timeout=30, window=0.01) as client:
            assert await asked(client, "alone")

    with running(recorder) as address:
        asyncio.run(main(address))
    assert recorder.calls == [("Check", 1)]


@pytest.mark.parametrize("options", [{"coalesce": 0}, {"window": -1}, {"window": float("nan")}, {"reuse": -1}])
def test_options_that_make_no_sense_raise(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(options))):
        AsyncClient(**options)


def test_through_a_real_decision_point_every_question_gets_its_own_answer(pdp_address: str) -> None:
    """Among allowed and refused ones, with parameters and request ids of their own."""

    async def main() -> list[Answer]:
        async with AsyncClient(pdp_address, timeout=30) as client:
            return await asyncio.gather(
                *(
                    client.check(
                        user=ALICE,
                        action="tool:invoke",
                        tool=DROP if number % 3 == 0 else SEARCH,
                        request_id=f"r-{number}",
                    )
                    for number in range(250)
                )
            )

    answers = asyncio.run(main())
    assert [answer.request_id for answer in answers] == [f"r-{number}" for number in range(250)]
    assert [answer.allow for answer in answers] == [number % 3 != 0 for number in range(250)]
