"""What the front promises besides what every carrier does, over real connections."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from sark_pdp.addresses import Address, TcpAddress, UnixAddress
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.transport.carrier import Limits, Server
from sark_pdp.transport.handler import RETRY_PUSHBACK, Kind, Metadata, Refusal, Reply, Status

pytest.importorskip("sark_pdp._front", reason="the front was not built")

LIMITS = Limits(max_concurrent=4, in_flight_bytes=1 << 20, max_message_bytes=1 << 18)
TIMEOUT = 20.0


class Echo:
    """Answers with the message; what it says first tells how."""

    def __init__(self, kind: Kind = Kind.UNARY) -> None:
        self.kind = kind
        self.free = threading.Event()
        self.begun: list[bytes] = []
        self.metadata: list[Metadata] = []
        self.threads: set[str] = set()

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        if message.startswith((b"wait", b"slow")):
            return None
        return self.answer(metadata, message)

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        self.metadata.append(metadata)
        self.threads.add(threading.current_thread().name)
        match message.partition(b" ")[0]:
            case b"wait":
                self.begun.append(message)
                self.free.wait(TIMEOUT)
            case b"raise":
                raise ValueError("a method failed")
            case b"status":
                return Reply(status=Status.NOT_FOUND, details="50 % of \u00fc\n", trailing=(("a-bin", b"\xff\x00"),))
            case b"metadata":
                return Reply(message, initial=(("first", "1"),), trailing=(("last-bin", b"\x00"),))
            case b"nonsense":
                return "no reply"  # type: ignore[return-value]
        return Reply(message)

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        self.metadata.append(metadata)
        try:
            for number in range(int(message)):
                yield Reply(b"%d" % number)
            while not self.free.wait(0.01):
                yield None
        finally:
            self.begun.append(b"ended")

    def refusal(self, reason: Refusal) -> Reply:
        return Reply(status=Status.RESOURCE_EXHAUSTED, details=reason.name, trailing=RETRY_PUSHBACK)


class Carried:
    """A front with three methods, and a channel to it."""

    def __init__(self, address: Address, limits: Limits = LIMITS) -> None:
        from sark_pdp.transport.front_server import FrontServer

        self.unary, self.stream, self.watch = Echo(), Echo(Kind.STREAM), Echo(Kind.WATCH)
        self.metrics = Metrics()
        methods = {"/a.B/Unary": self.unary, "/a.B/Stream": self.stream, "/a.B/Watch": self.watch}
        self.server: Server = FrontServer(methods, limits, self.metrics)
        self.address = self.server.listen(address, "listen.grpc", 0o640)
        self.server.start()
        self.channel = grpc.insecure_channel(str(self.address), [("grpc.use_local_subchannel_pool", 1)])

    def call(self, message: bytes, method: str = "/a.B/Unary", **options: Any) -> bytes:
        answer: bytes = self.start(message, method, **options).result()
        return answer

    def start(self, message: bytes, method: str = "/a.B/Unary", timeout: float | None = TIMEOUT, **options: Any) -> Any:
        call: Any = self.channel.unary_unary(method)
        return call.future(message, timeout=timeout, **options)

    def open(self, messages: Iterator[bytes]) -> Any:
        """A stream of questions."""
        call: Any = self.channel.stream_stream("/a.B/Stream")
        return call(messages, timeout=TIMEOUT)

    def see(self, message: bytes) -> Any:
        """A watch."""
        call: Any = self.channel.unary_stream("/a.B/Watch")
        return call(message, timeout=TIMEOUT)

    def codes(self, method: str = "/a.B/Unary") -> dict[int, int]:
        """How many calls ended with each code that there was."""
        self.metrics.refresh()
        by_code = self.metrics.calls(method, "").by_code()
        return {code: count for code, count in enumerate(by_code) if count}

    def close(self) -> None:
        for echo in (self.unary, self.stream, self.watch):
            echo.free.set()
        self.channel.close()
        self.server.stop(Seconds(5.0))


@pytest.fixture
def carried() -> Iterator[Carried]:
    made = Carried(TcpAddress("127.0.0.1", 0))
    yield made
    made.close()


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT
    while not (result := what()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result


def failure(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def code(call: Callable[[], Any]) -> str:
    name: str = failure(call).code().name
    return name


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 70_000, 1 << 18])
def test_messages_of_any_size_come_and_go_whole(carried: Carried, size: int) -> None:
    message = bytes(size)
    assert carried.call(message) == message
    assert carried.codes() == {0: 1}


def test_only_what_is_short_and_known_is_answered_on_the_thread_of_the_front(carried: Carried) -> None:
    carried.call(b"short")
    assert carried.unary.threads == {"front"}
    carried.call(bytes(16_384))
    carried.call(b"slow")
    assert carried.unary.threads - {"front"} <= {f"call_{number}" for number in range(4)}
    assert len(carried.unary.threads) > 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_tcp_tells_the_address_of_the_caller(host: str) -> None:
    made = Carried(TcpAddress(host, 0))
    try:
        made.call(b"x", timeout=None)
        [metadata] = made.unary.metadata
        assert metadata.origin.ip_address in {"127.0.0.1", "::1"}
        assert metadata.origin.user_agent.startswith("grpc-python")
        assert metadata.deadline == float("inf")
    finally:
        made.close()


def test_a_unix_socket_has_its_mode_and_goes_with_the_server(short_dir: Path) -> None:
    path = short_dir / "front.sock"
    made = Carried(UnixAddress(path))
    assert path.stat().st_mode & 0o777 == 0o640
    assert made.call(b"x") == b"x"
    made.close()
    assert not path.exists()


def test_a_deadline_is_passed_on_and_kept(carried: Carried) -> None:
    carried.call(b"x", timeout=5.0)
    [metadata] = carried.unary.metadata
    assert 0 < metadata.deadline - time.monotonic() <= 5.0
    assert code(lambda: carried.call(b"wait", timeout=0.05)) == "DEADLINE_EXCEEDED"


def test_work_of_a_caller_who_has_gone_is_not_begun(carried: Carried) -> None:
    waiting = [carried.start(b"wait %d" % number) for number in range(4)]
    until(lambda: len(carried.unary.begun) == 4)
    # All threads are taken, and all places: only a stream still gets into the queue.
    queued = carried.open(iter([b"wait gone"]))
    until(lambda: carried.server._front.statistics()["pool_depth"] == 1)  # type: ignore[attr-defined]
    queued.cancel()
    # Frames keep their order: with this answer, the front has read that the caller is gone.
    assert code(lambda: carried.call(b"", "/a.B/Nothing")) == "UNIMPLEMENTED"
    carried.unary.free.set()
    assert [call.result() for call in waiting] == [b"wait %d" % number for number in range(4)]
    until(lambda: carried.codes("/a.B/Stream") == {1: 1})
    assert carried.call(b"slow") == b"slow"
    assert carried.stream.begun == []


def test_over_the_limit_calls_are_refused_at_once(carried: Carried) -> None:
    waiting = [carried.start(b"wait") for _ in range(4)]
    until(lambda: len(carried.unary.begun) == 4)
    refused = failure(lambda: carried.call(b"x"))
    assert (refused.code().name, refused.details()) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
    assert dict(refused.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    carried.unary.free.set()
    assert {call.result() for call in waiting} == {b"wait"}
    assert carried.call(b"x") == b"x"
    carried.metrics.refresh()
    assert carried.metrics.shed.value == 1


def test_a_message_that_is_too_large_is_refused(carried: Carried) -> None:
    assert failure(lambda: carried.call(bytes((1 << 18) + 1))).details() == "TOO_LARGE"


@pytest.mark.parametrize("message", [b"raise", b"nonsense", b"raise" + bytes(20_000)])
def test_what_a_method_raises_ends_one_call_with_its_refusal(
    carried: Carried, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    message = message.replace(b"raise\0", b"raise \0")
    assert failure(lambda: carried.call(message)).details() == "INTERNAL"
    assert caplog.records[-1].message == "a call failed"
    assert carried.call(b"x") == b"x"


def test_status_details_and_metadata_travel_as_grpc_has_them(carried: Carried) -> None:
    refused = failure(lambda: carried.call(b"status"))
    assert (refused.code().name, refused.details()) == ("NOT_FOUND", "50 % of \u00fc\n")
    assert dict(refused.trailing_metadata())["a-bin"] == b"\xff\x00"
    call = carried.start(b"metadata")
    assert dict(call.initial_metadata())["first"] == "1"
    assert dict(call.trailing_metadata())["last-bin"] == b"\x00"


def test_an_unknown_method_is_unimplemented(carried: Carried) -> None:
    assert code(lambda: carried.call(b"", "/a.B/Nothing")) == "UNIMPLEMENTED"


@pytest.mark.parametrize("text", [b"again " * 1000, b"wait " * 1000])
def test_compressed_messages_are_answered_compressed(carried: Carried, text: bytes) -> None:
    carried.unary.free.set()
    assert carried.call(text, compression=grpc.Compression.Gzip) == text
    assert carried.codes() == {0: 1}


def test_what_grows_beyond_the_limit_when_it_is_decompressed_is_refused(carried: Carried) -> None:
    bomb = bytes(1 << 24)
    assert len(gzip.compress(bomb)) < 1 << 17
    assert failure(lambda: carried.call(bomb, compression=grpc.Compression.Gzip)).details() == "TOO_LARGE"


def test_another_compression_is_unimplemented(carried: Carried) -> None:
    assert code(lambda: carried.call(b"x" * 1000, compression=grpc.Compression.Deflate)) == "UNIMPLEMENTED"


def test_a_stream_is_answered_in_order_and_as_fast_as_it_is_read(carried: Carried) -> None:
    sent = [b"slow %d" % n if n % 3 else b"%d" % n + bytes(250_000) for n in range(300)]
    received = []
    for message in carried.open(iter(sent)):
        received.append(message)
        # Answers that nobody reads hold the questions up: those are not all answered by now.
        if len(received) == 1:
            time.sleep(0.1)
            assert len(carried.stream.metadata) < len(sent)
    assert received == sent
    assert until(lambda: carried.codes("/a.B/Stream")) == {0: 1}


def test_a_status_ends_a_stream(carried: Carried) -> None:
    answers = carried.open(iter([b"a", b"status", b"b"]))
    assert next(answers) == b"a"
    assert code(lambda: next(answers)) == "NOT_FOUND"


def test_a_watch_ends_with_its_caller(carried: Carried) -> None:
    answers = carried.see(b"3")
    assert [next(answers) for _ in range(3)] == [b"0", b"1", b"2"]
    answers.cancel()
    assert until(lambda: carried.watch.begun) == [b"ended"]
    assert until(lambda: carried.codes("/a.B/Watch")) == {1: 1}


def test_a_watch_that_ends_ends_the_call(carried: Carried) -> None:
    carried.watch.free.set()
    assert list(carried.see(b"2")) == [b"0", b"1"]


def test_a_stop_lets_calls_finish_and_takes_no_more(carried: Carried) -> None:
    def messages() -> Iterator[bytes]:
        carried.unary.free.wait(TIMEOUT)
        yield b""

    waiting = carried.start(b"wait")
    idle = carried.open(messages())
    until(lambda: carried.unary.begun)
    stopping = threading.Thread(target=carried.server.stop, args=(Seconds(TIMEOUT),))
    stopping.start()
    assert code(lambda: next(idle)) == "UNAVAILABLE"
    carried.unary.free.set()
    assert waiting.result() == b"wait"
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    assert code(lambda: carried.call(b"x")) == "UNAVAILABLE"


def test_a_stop_waits_no_longer_than_its_grace(carried: Carried) -> None:
    waiting = carried.start(b"wait")
    until(lambda: carried.unary.begun)
    carried.server.stop(Seconds(0.1))
    assert code(waiting.result) == "UNAVAILABLE"


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100, bytes(10_000)],
)
def test_nonsense_closes_its_own_connection_only(carried: Carried, sent: bytes) -> None:
    assert isinstance(carried.address, TcpAddress)
    broken = socket.create_connection((carried.address.host, carried.address.port), timeout=TIMEOUT)
    # It may be closed before all was sent.
    with suppress(OSError):
        broken.sendall(sent)
        broken.shutdown(socket.SHUT_WR)
    with broken, suppress(ConnectionError):
        while broken.recv(4096):
            pass
    assert carried.call(b"x") == b"x"
