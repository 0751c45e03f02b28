"""grpcio's clients, with threads and with asyncio, get the same over both carriers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import pytest

from tests.fix_interop import CERTIFIED, Peer, serving
from tests.fix_serve import free_port

TIMEOUT = 60.0
NOW, LATER, STREAM = "/robust.Echo/Now", "/robust.Echo/Later", "/robust.Echo/Stream"
WAIT = "/grpc.testing.TestService/FullDuplexCall"
"""Answers an empty message when the deadline has passed."""

Options: TypeAlias = list[tuple[str, Any]]
UNLIMITED: Options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def with_asyncio(port: int, use: Callable[[grpc.aio.Channel], Awaitable[Any]], options: Options = UNLIMITED) -> Any:
    """What `use` makes of a channel."""

    async def run() -> Any:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            return await use(channel)

    return asyncio.run(run())


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("method", [NOW, LATER])
@pytest.mark.parametrize("size", [0, 1, 65_536, 4_194_304])
def test_messages_of_any_size(peer: Peer, size: int, method: str, compression: grpc.Compression) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def ask(channel: grpc.aio.Channel) -> bytes:
        call: Any = channel.unary_unary(method)
        answer: bytes = await call(message, timeout=TIMEOUT, compression=compression)
        return answer

    assert with_asyncio(peer.port, ask) == message
    with grpc.insecure_channel(peer.target, UNLIMITED, compression) as channel:
        call: Any = channel.unary_unary(method)
        assert call(message, timeout=TIMEOUT) == message


def test_many_calls_at_a_time_on_one_channel(peer: Peer) -> None:
    async def ask(channel: grpc.aio.Channel) -> list[bytes]:
        calls: list[Any] = [channel.unary_unary(method) for method in (NOW, LATER)]
        answers: list[bytes] = await asyncio.gather(*(calls[n % 2](b"%d" % n, timeout=TIMEOUT) for n in range(400)))
        return answers

    assert with_asyncio(peer.port, ask) == [b"%d" % n for n in range(400)]


def test_a_stream_is_answered_message_by_message(peer: Peer) -> None:
    async def ask(channel: grpc.aio.Channel) -> list[bytes]:
        answers = []
        call: Any = channel.stream_stream(STREAM)(timeout=TIMEOUT)
        for number in range(20):
            await call.write(b"%d" % number * 10_000)
            answers.append(await call.read())
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK
        return answers

    assert with_asyncio(peer.port, ask) == [b"%d" % number * 10_000 for number in range(20)]


def test_a_deadline_ends_a_call(peer: Peer) -> None:
    async def ask(channel: grpc.aio.Channel) -> grpc.StatusCode:
        call: Any = channel.stream_stream(WAIT)(timeout=0.1)
        await call.write(b"")
        code: grpc.StatusCode = await call.code()
        return code

    assert with_asyncio(peer.port, ask) == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_caller_may_cancel_and_goes_on(peer: Peer) -> None:
    async def ask(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, bytes]:
        call: Any = channel.stream_stream(WAIT)(timeout=TIMEOUT)
        await call.write(b"")
        call.cancel()
        code = await call.code()
        echo: Any = channel.unary_unary(NOW)
        return code, await echo(b"still there", timeout=TIMEOUT)

    assert with_asyncio(peer.port, ask) == (grpc.StatusCode.CANCELLED, b"still there")


def test_metadata_beyond_what_is_read_is_refused_and_the_channel_lives(peer: Peer) -> None:
    async def ask(channel: grpc.aio.Channel) -> bytes:
        echo: Any = channel.unary_unary(NOW)
        # Not even now and then, as between grpcio's two bounds.
        for _ in range(20):
            assert await echo(b"large", timeout=TIMEOUT, metadata=(("large", "x" * 250_000),)) == b"large"
        with pytest.raises(grpc.aio.AioRpcError):
            await echo(b"", timeout=TIMEOUT, metadata=(("large", "x" * 300_000),))
        answer: bytes = await echo(b"after", timeout=TIMEOUT)
        return answer

    assert with_asyncio(peer.port, ask) == b"after"


@pytest.mark.parametrize("method", ["Raise", "RaiseLater", "RaiseStream", "RaiseWatch"])
def test_what_a_method_raises_ends_one_call(peer: Peer, method: str) -> None:
    async def ask(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, bytes]:
        # Its stubs cannot tell what a method without a serializer takes.
        made: Any = channel
        name = f"/robust.Echo/{method}"
        match method:
            case "RaiseStream":
                call = made.stream_stream(name)(iter([b""]), timeout=TIMEOUT)
            case "RaiseWatch":
                call = made.unary_stream(name)(b"", timeout=TIMEOUT)
            case _:
                call = made.unary_unary(name)(b"", timeout=TIMEOUT)
        return await call.code(), await made.unary_unary(NOW)(b"after", timeout=TIMEOUT)

    assert with_asyncio(peer.port, ask) == (grpc.StatusCode.INTERNAL, b"after")


@pytest.mark.parametrize("method", ["Deny", "DenyLater"])
def test_a_method_that_fails_may_answer_with_a_denial(peer: Peer, method: str) -> None:
    """Through ext_authz a status that is not OK could be taken for leave to go on."""
    with grpc.insecure_channel(peer.target) as channel:
        call: Any = channel.unary_unary(f"/robust.Echo/{method}")
        assert call(b"", timeout=TIMEOUT) == b"INTERNAL"


@pytest.mark.parametrize("carrier", ["front", "grpcio"])
def test_a_client_may_wait_until_the_server_is_there(carrier: str) -> None:
    port = free_port()

    async def ask(channel: grpc.aio.Channel) -> bytes:
        echo: Any = channel.unary_unary(NOW)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await echo(b"", timeout=TIMEOUT)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        waiting = asyncio.ensure_future(_done(echo(b"there", timeout=TIMEOUT, wait_for_ready=True)))
        with serving(carrier, port=port):
            return await waiting

    assert with_asyncio(port, ask) == b"there"


async def _done(call: Any) -> bytes:
    answer: bytes = await call
    return answer


def test_tls_is_the_same(tls_peer: Peer, certificate: Any) -> None:
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    name = ("grpc.ssl_target_name_override", CERTIFIED)

    async def ask() -> bytes:
        async with grpc.aio.secure_channel(tls_peer.target, credentials, [name]) as channel:
            echo: Any = channel.unary_unary(LATER)
            answer: bytes = await echo(b"x" * 300_000, timeout=TIMEOUT)
            return answer

    assert asyncio.run(ask()) == b"x" * 300_000
