"""What the front promises besides what every carrier does, over real connections."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from sark_pdp.addresses import TcpAddress, UnixAddress
from sark_pdp.model import Seconds
from tests.fix_front import TIMEOUT, Carried, code, failure, until

pytest.importorskip("sark_pdp._front", reason="the front was not built")


@pytest.fixture
def carried() -> Iterator[Carried]:
    made = Carried(TcpAddress("127.0.0.1", 0))
    yield made
    made.close()


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
    # gRPC's clients round seconds below ten up to the next 10 ms on the wire (core/lib/transport/timeout_encoding.cc).
    assert 0 < metadata.deadline - time.monotonic() <= 5.01
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
