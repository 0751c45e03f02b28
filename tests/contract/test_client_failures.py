"""What the client does where a decision point fails, over real connections."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from sark_pdp.client import Answer, AsyncClient, Client, Question
from sark_pdp.errors import SettingsError
from tests.fix_client import Behaviour, Connect, ask, assert_denied, fake_pdp, serving


def aborting(code: grpc.StatusCode) -> Behaviour:
    def abort(_method: str, _message: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "so it is")

    return abort


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "unix://{folder}/nobody.sock"])
def test_where_nobody_listens_it_denies(connect_client: Connect, address: str, short_dir: Path) -> None:
    with socket.socket() as reserved:
        # Bound and not listening: no other process gets this port meanwhile.
        reserved.bind(("127.0.0.1", 0))
        target = address.format(port=reserved.getsockname()[1], folder=short_dir)
        assert_denied(connect_client(target, timeout=30), "UNAVAILABLE: ")


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.PERMISSION_DENIED,
    ],
)
def test_a_status_denies(connect_client: Connect, code: grpc.StatusCode) -> None:
    with serving(aborting(code)) as address:
        assert_denied(connect_client(address, timeout=30), f"{code.name}: so it is")


def test_a_server_that_hangs_denies_at_the_deadline(connect_client: Connect) -> None:
    done = threading.Event()

    def hang(_method: str, _message: bytes, _context: grpc.ServicerContext) -> bytes:
        done.wait(60)
        return b""

    with serving(hang) as address:
        try:
            assert_denied(connect_client(address, timeout=0.05), "DEADLINE_EXCEEDED")
            assert_denied(connect_client(address, timeout=60), "DEADLINE_EXCEEDED", timeout=0.05)
        finally:
            done.set()


def test_a_server_that_accepts_and_says_nothing_denies_at_the_deadline(connect_client: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert_denied(connect_client(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.05), "DEADLINE_EXCEEDED")


def test_bytes_that_are_no_message_deny(connect_client: Connect) -> None:
    with serving(lambda _method, _message, _context: b"\xff\xff\xff") as address:
        assert_denied(connect_client(address, timeout=30), "BAD_ANSWER: ")


def test_an_empty_message_denies(connect_client: Connect) -> None:
    with serving(lambda _method, _message, _context: b"") as address:
        assert_denied(connect_client(address, timeout=30), "BAD_ANSWER: ")


def test_an_answer_that_is_too_large_denies(connect_client: Connect) -> None:
    with serving(lambda _method, _message, _context: bytes(17 * 1024 * 1024)) as address:
        assert_denied(connect_client(address, timeout=60), "RESOURCE_EXHAUSTED: ")


def test_unavailable_is_tried_again_and_other_failures_are_not(connect_client: Connect) -> None:
    for code, attempts in [(grpc.StatusCode.UNAVAILABLE, 2), (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)]:
        seen: list[str] = []

        def first_fail(
            method: str,
            message: bytes,
            context: grpc.ServicerContext,
            code: grpc.StatusCode = code,
            seen: list[str] = seen,
        ) -> bytes:
            seen.append(method)
            if len(seen) == 1:
                context.abort(code, "once")
            return fake_pdp(method, message, context)

        with serving(first_fail) as address:
            answer = ask(connect_client(address, timeout=30))
        assert len(seen) == attempts
        assert answer.allow is (attempts == 2)


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        # No decision was made, as far as anybody can tell: asking again is the same question once more.
        (grpc.StatusCode.UNAVAILABLE, 3),
        # All others may have been decided, or would be refused again, or are asked to wait.
        *((code, 1) for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)),
    ],
)
def test_a_question_is_asked_again_only_where_that_is_safe(
    connect_client: Connect, code: grpc.StatusCode, attempts: int
) -> None:
    """Also for a batch and a filter; never more than three times in all."""
    seen: list[str] = []

    def fail(method: str, _message: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(method)
        context.abort(code, "so it is")

    questions: list[Callable[[Any], Any]] = [
        ask,
        lambda client: client.check_many([Question({})]),
        lambda client: client.filter(action="tool:list", resources=[{}]),
    ]
    for question in questions:
        with serving(fail) as address:
            assert not question(connect_client(address, timeout=30))
        assert len(seen) == attempts
        seen.clear()


@pytest.mark.parametrize(("pushback", "attempts"), [("-1", 1), ("300", 2), ("nonsense", 1)])
def test_a_decision_point_may_say_when_to_ask_again_or_not_to(
    connect_client: Connect, pushback: str, attempts: int
) -> None:
    """`grpc-retry-pushback-ms`, as of the proposal A6 of gRPC."""
    seen: list[float] = []

    def fail_first(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(time.monotonic())
        if len(seen) == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return fake_pdp(method, message, context)

    with serving(fail_first) as address:
        assert ask(connect_client(address, timeout=30)).allow is (attempts == 2)
    assert len(seen) == attempts
    if attempts == 2:
        assert seen[1] - seen[0] >= 0.29


def test_no_question_is_asked_again_after_its_deadline(connect_client: Connect) -> None:
    seen: list[str] = []

    def fail(method: str, _message: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(method)
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "60000"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    with serving(fail) as address:
        assert not ask(connect_client(address, timeout=1))
    assert len(seen) <= 1


def test_a_decision_point_that_comes_back_is_found_again(connect_client: Connect, short_dir: Path) -> None:
    address = f"unix://{short_dir}/pdp.sock"
    with serving(fake_pdp, address):
        client = connect_client(address, timeout=30)
        assert ask(client).allow
    assert not ask(client).allow
    with serving(fake_pdp, address):
        # The channel looks again within its back-off of a second; asking does not wait for it.
        assert any(ask(client).allow for _ in eventually())


def eventually() -> Iterator[None]:
    for _ in range(1200):
        yield
        threading.Event().wait(0.05)


def test_closing_a_client_denies_what_is_under_way() -> None:
    arrived, done = threading.Event(), threading.Event()

    def hang(_method: str, _message: bytes, _context: grpc.ServicerContext) -> bytes:
        arrived.set()
        done.wait(60)
        return b""

    with serving(hang) as address, ThreadPoolExecutor(1) as thread:
        client = Client(address, timeout=60)
        asked = thread.submit(ask, client)
        assert arrived.wait(30)
        client.close()
        assert asked.result(30).error.startswith("CANCELLED: ")
        done.set()


def test_closing_an_async_client_denies_what_is_under_way_and_cancelling_a_task_raises() -> None:
    done = threading.Event()

    async def main(address: str, arrived: asyncio.Event) -> Answer:
        client = AsyncClient(address, timeout=60)
        cancelled = asyncio.create_task(client.check(action="tool:invoke"))
        await arrived.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        arrived.clear()
        closed = asyncio.create_task(client.check(action="tool:invoke"))
        await arrived.wait()
        await client.close()
        return await closed

    with asyncio.Runner() as runner:
        arrived = asyncio.Event()

        def hang(_method: str, _message: bytes, _context: grpc.ServicerContext) -> bytes:
            runner.get_loop().call_soon_threadsafe(arrived.set)
            done.wait(60)
            return b""

        with serving(hang) as address:
            answer = runner.run(main(address, arrived))
            done.set()
    assert answer.error is not None
    assert answer.error.startswith("CLOSED: ")


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:http", "unix:pdp.sock", "http://127.0.0.1:9001"])
def test_an_address_that_is_none_raises(connect_client: Connect, address: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        connect_client(address)
