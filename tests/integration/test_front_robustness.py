"""Strangers who break the rules of HTTP/2, or stretch them: memory stays bounded and others are answered.

What takes patience, such as peers that stall, is tested on a clock that jumps (front/tests/robustness.rs).
"""

import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.fix_interop import Peer, serving
from tests.fix_native import wait_until
from tests.interop.raw import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    Raw,
    block,
    call_head,
    frame,
    message,
    settings,
)

pytest.importorskip("sark_pdp._front", reason="the front was not built")

NOW, LATER, STREAM = "/robust.Echo/Now", "/robust.Echo/Later", "/robust.Echo/Stream"
UNARY_CALL = "/grpc.testing.TestService/UnaryCall"
TIMEOUT = 60.0
ENHANCE_YOUR_CALM = 11
SECONDS = 0.8
"""How long a flood lasts."""
HEAD_BYTES = 256 << 10
"""Of the head of one call."""
FRAME_BYTES = 16_384
GROWTH = 64 << 20
"""Bytes that one hostile connection may cost, with much to spare: one process has 100 MiB."""


@pytest.fixture(scope="module")
def front() -> Iterator[Peer]:
    with serving("front") as peer:
        yield peer


def _echo(channel: grpc.Channel, method: str) -> bytes:
    call: Any = channel.unary_unary(method)
    answer: bytes = call(b"others", timeout=TIMEOUT)
    return answer


@contextmanager
def unharmed(front: Peer, growth: int = GROWTH) -> Iterator[None]:
    """Others are answered meanwhile and afterwards, and memory grows by no more than `growth` bytes."""
    before = front.memory()
    over = threading.Event()
    failures: list[BaseException] = []
    answered = 0
    most = before

    def others() -> None:
        nonlocal answered, most
        try:
            with grpc.insecure_channel(front.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                while not over.is_set() or not answered:
                    for method in (NOW, LATER):
                        assert _echo(channel, method) == b"others"
                    answered += 1
                    most = max(most, front.memory())
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * TIMEOUT)
    assert failures == []
    assert answered
    assert most - before <= growth, f"{(most - before) >> 20} MiB"


def goaway(connection: Raw) -> int | None:
    """The reason with which the peer leaves; None where it says none."""
    found = [come for come in connection.frames() if come.kind == GOAWAY]
    return struct.unpack(">L", found[-1].payload[4:8])[0] if found else None


BROKEN = {
    "nothing": b"",
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: front\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "garbage": bytes(range(256)) * 64,
    "a wrong preface": PREFACE[:-1] + b"x" + frame(SETTINGS),
    "garbage for frames": PREFACE + b"\xff" * 1000,
    "settings that are cut": PREFACE + frame(SETTINGS, payload=bytes(5)),
    "a frame that is too long": PREFACE + frame(SETTINGS) + frame(DATA, 0, 1, length=1 << 20),
    "data for a stream that is not open": PREFACE + frame(SETTINGS) + frame(DATA, 0, 1, b"x"),
    "a stream of the server": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 2, block(call_head(NOW))),
    "HPACK that is none": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
    "HPACK of a huge index": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\x0f"),
    "HPACK of a huge string": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\x00\x7f\xff\xff\xff\x07"),
    "headers that go on as another frame": PREFACE
    + settings()
    + frame(HEADERS, 0, 1, b"")
    + frame(PING, payload=bytes(8)),
    "a window that overflows": PREFACE + settings() + frame(WINDOW_UPDATE, payload=struct.pack(">L", 2**31 - 1)) * 2,
    "an impossible window": PREFACE + settings(initial_window_size=2**31),
    "a push": PREFACE + settings() + frame(5, END_HEADERS, 1, bytes(4)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_http2_closes_its_own_connection(front: Peer, what: str) -> None:
    with unharmed(front), Raw(front.port) as broken:
        broken.send(BROKEN[what])
        if what == "nothing":
            broken.socket.shutdown(socket.SHUT_WR)
        assert broken.is_closed()


@pytest.fixture(scope="module")
def secure(certificate: tuple[Path, Path]) -> Iterator[Peer]:
    with serving("front", *certificate) as peer:
        yield peer


@pytest.mark.parametrize("sent", [bytes(100), b"GET / HTTP/1.1\r\n\r\n", BROKEN["TLS"], PREFACE + settings()])
def test_what_is_not_tls_closes_its_own_connection(secure: Peer, certificate: tuple[Path, Path], sent: bytes) -> None:
    with Raw(secure.port) as broken:
        broken.send(sent)
        broken.socket.shutdown(socket.SHUT_WR)
        assert broken.is_closed()
    root = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    with grpc.secure_channel(secure.target, root, [("grpc.ssl_target_name_override", "pdp.test")]) as channel:
        assert _echo(channel, NOW) == b"others"


FLOODS = {
    "pings": frame(PING, payload=bytes(8)),
    "settings": settings(initial_window_size=65_535),
    "window updates": frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", 1)),
    "priorities": frame(PRIORITY, 0, 1, bytes(5)),
    "frames that nobody knows": frame(0x77, 0, 0, b"x"),
    "resets of a stream that is closed": frame(RST_STREAM, 0, 1, struct.pack(">L", 8)),
    "empty data": frame(DATA, 0, 1),
}


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
@pytest.mark.parametrize("what", FLOODS)
def test_floods_cost_no_memory_and_nobody_else(front: Peer, what: str, *, reads: bool) -> None:
    with unharmed(front), Raw.greeted(front.port) as flood:
        flood.send(frame(HEADERS, END_HEADERS, 1, block(call_head(STREAM))))
        _flood(flood, FLOODS[what] * 200, reads=reads)


def _flood(flood: Raw, chunk: bytes, *, reads: bool) -> None:
    """Until the time is over, or the peer has closed."""
    end = time.monotonic() + SECONDS
    unsent = b""
    with suppress(ConnectionError):
        while time.monotonic() < end:
            unsent = unsent or chunk
            sent = flood.send_now(unsent)
            unsent = unsent[sent:]
            if reads and not flood.receive_now():
                return
            if not sent:
                time.sleep(0.001)


def test_headers_that_never_end_close_the_connection(front: Peer) -> None:
    more = frame(CONTINUATION, 0, 1, block({f"name-{n}": "x" * 100 for n in range(100)}))
    with unharmed(front), Raw.greeted(front.port) as flood:
        sent = flood.send(frame(HEADERS, END_STREAM, 1, block(call_head(NOW))))
        for _ in range(10_000):
            sent = sent and flood.send(more)
        assert flood.is_closed()


def test_headers_beyond_what_is_read_are_refused_alone(front: Peer) -> None:
    with unharmed(front), Raw.greeted(front.port) as connection:
        connection.send(*_head(1, {**call_head(NOW), "large": "x" * HEAD_BYTES}))
        connection.call(3, NOW, b"next")
        streams = {come.stream: come for come in _until_ended(connection, 3)}
    assert streams[1].kind in {HEADERS, RST_STREAM}
    assert streams[3].flags & END_STREAM


def _head(stream: int, fields: Mapping[str, str]) -> Iterator[bytes]:
    """The head of a call, in as few frames as it takes."""
    left, kind = block(fields), HEADERS
    while len(left) > FRAME_BYTES:
        yield frame(kind, 0, stream, left[:FRAME_BYTES])
        left, kind = left[FRAME_BYTES:], CONTINUATION
    yield frame(kind, END_HEADERS, stream, left)


def test_a_peer_is_told_how_large_a_head_may_be(front: Peer) -> None:
    with Raw(front.port) as connection:
        connection.send(PREFACE + settings())
        told = next(come for come in connection.frames() if come.kind == SETTINGS).payload
    assert struct.pack(">HL", 6, HEAD_BYTES) in [told[at : at + 6] for at in range(0, len(told), 6)]


@pytest.mark.parametrize("name", ["tracestate", "traceparent", "user-agent"])
def test_a_head_of_almost_what_is_read_is_answered(front: Peer, name: str) -> None:
    with unharmed(front), Raw.greeted(front.port) as connection:
        connection.send(*_head(1, {**call_head(NOW), name: "x" * (HEAD_BYTES - 1000)}))
        connection.send(frame(DATA, END_STREAM, 1, message(b"")))
        [come] = [come for come in _until_ended(connection, 1) if come.kind == DATA]
    assert come.payload == message(b"")


@pytest.mark.parametrize("path", [NOW, UNARY_CALL])
@pytest.mark.parametrize("name", ["tracestate", "traceparent", "user-agent", ":path"])
def test_large_heads_of_calls_that_are_only_begun_cost_little(front: Peer, path: str, name: str) -> None:
    """What is kept of them counts as in flight; together they are more than 64 MiB. One method reads all metadata."""
    size = 60_000 if name == ":path" else HEAD_BYTES - 1000
    with unharmed(front), Raw.greeted(front.port) as opened:
        for n in range(1, 2 * 1000, 2):
            # Each with another: equal ones would be kept once.
            assert opened.send(*_head(n, {**call_head(path), name: f"/{n:x}" + "%" * size}))


@pytest.mark.parametrize("path", [NOW, UNARY_CALL])
def test_heads_that_are_larger_than_they_were_sent_cost_little(front: Peer, path: str) -> None:
    """Each byte is a field of HPACK's static table, 60 bytes as they are counted."""
    large = block(call_head(path)) + b"\x90" * 4000
    with unharmed(front), Raw.greeted(front.port) as opened:
        for n in range(1, 2 * 1000, 2):
            assert opened.send(frame(HEADERS, END_HEADERS, n, large))


@pytest.mark.parametrize("path", [NOW, LATER, STREAM])
def test_trailers_of_a_caller_are_not_kept(front: Peer, path: str) -> None:
    with unharmed(front), Raw.greeted(front.port, initial_window_size=0) as slow:
        for n in range(1, 2 * 1000, 2):
            assert slow.send(frame(HEADERS, END_HEADERS, n, block(call_head(path))))
            assert slow.send(frame(DATA, 0, n, message(b"x")))
            *first, last = _head(n, {"large": "x" * (HEAD_BYTES - 1000)})
            first[0] = first[0][:4] + bytes([END_STREAM]) + first[0][5:]
            assert slow.send(*first, last)


def _until_ended(connection: Raw, stream: int) -> Iterator[Frame]:
    for come in connection.frames():
        yield come
        if come.stream == stream and (
            come.kind == RST_STREAM or (come.flags & END_STREAM and come.kind in {DATA, HEADERS})
        ):
            return


@pytest.mark.parametrize("path", [NOW, LATER, STREAM])
def test_who_begins_calls_only_to_reset_them_is_sent_away_or_served(front: Peer, path: str) -> None:
    """CVE-2023-44487."""
    reset = struct.pack(">L", 8)
    with unharmed(front), Raw.greeted(front.port) as rapid:
        for first in range(1, 40_000, 200):
            frames = []
            for stream in range(first, first + 200, 2):
                frames.append(frame(HEADERS, END_HEADERS, stream, block(call_head(path))))
                frames.append(frame(RST_STREAM, 0, stream, reset))
            if not rapid.send(*frames):
                break
        else:
            assert goaway(rapid) == ENHANCE_YOUR_CALM


def test_resets_of_calls_that_are_at_work_leave_no_place_taken(front: Peer) -> None:
    """More of them than there are places; each time before the answer can have been read."""
    with unharmed(front):
        for _ in range(150):
            with Raw.greeted(front.port) as rapid:
                for stream in range(1, 20, 2):
                    rapid.call(stream, LATER, b"x")
                    rapid.send(frame(RST_STREAM, 0, stream, struct.pack(">L", 8)))


@pytest.mark.parametrize("size", [3000, 100_000])
def test_who_opens_no_window_is_not_kept_more_for_than_is_in_flight(front: Peer, size: int) -> None:
    with unharmed(front), Raw.greeted(front.port, initial_window_size=0) as slow:
        for stream in range(1, 2 * 1000, 2):
            assert slow.call(stream, LATER, bytes(size))


def test_who_does_not_read_is_not_kept_more_for_than_its_streams(front: Peer) -> None:
    with unharmed(front), Raw(front.port, receive_buffer=4096) as deaf:
        deaf.send(PREFACE + settings(initial_window_size=2**31 - 1))
        deaf.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", 2**31 - 1 - 65_535)))
        # 256 KiB for a request of 4 bytes: more than 200 MiB if all were kept.
        wanted = message(b"\x10\x80\x80\x10")
        unsent, stream, end = b"", 1, time.monotonic() + SECONDS
        with suppress(ConnectionError):
            while time.monotonic() < end:
                if not unsent:
                    head = frame(HEADERS, END_HEADERS, stream, block(call_head(UNARY_CALL)))
                    unsent = head + frame(DATA, END_STREAM, stream, wanted)
                    stream += 2
                sent = deaf.send_now(unsent)
                unsent = unsent[sent:]
                if not sent:
                    time.sleep(0.001)


def test_messages_that_never_come_whole_hold_no_more_than_is_in_flight(front: Peer) -> None:
    with unharmed(front), Raw.greeted(front.port) as slow:
        for stream in range(1, 2 * 500, 2):
            assert slow.call(stream, LATER, bytes(30_000), announced=30_001)


def test_calls_that_are_only_begun_cost_little(front: Peer) -> None:
    with unharmed(front), ExitStack() as stack:
        for _ in range(10):
            opened = stack.enter_context(Raw.greeted(front.port))
            opened.send(*(frame(HEADERS, END_HEADERS, n, block(call_head(NOW))) for n in range(1, 2000, 2)))


def test_streams_beyond_what_was_agreed_are_refused(front: Peer) -> None:
    with unharmed(front), Raw.greeted(front.port) as many:
        many.send(*(frame(HEADERS, END_HEADERS, n, block(call_head(NOW))) for n in range(1, 2 * 1200, 2)))
        refused = next(come for come in many.frames() if come.kind == RST_STREAM)
    assert struct.unpack(">L", refused.payload) == (7,)
    assert refused.stream > 2 * 1000


def test_half_open_connections_are_forgotten(front: Peer) -> None:
    """Those that end by a reset without a word."""
    with unharmed(front):
        for _ in range(2000):
            with Raw(front.port) as gone:
                gone.send(PREFACE[:20])
                gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_thousands_of_connections_may_be_idle(front: Peer) -> None:
    """10,000 where so many files may be open here and there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(10_000, soft - 500)
    assert number > 300, f"a limit of {soft} (at most {hard}) open files is too low for this test"
    before = front.memory()
    with unharmed(front, 640 << 20), ExitStack() as stack:
        idle = [stack.enter_context(Raw(front.port)) for _ in range(number)]
        for each in idle:
            each.send(PREFACE + settings())
        for each in idle:
            assert next(each.frames()).kind == SETTINGS
        assert front.memory() - before < number * 64 * 1024


def test_files_are_left_for_the_rest_of_the_process() -> None:
    """With a limit of 300 open files, 150 connections are taken; who comes then is turned away until one goes."""
    limit = 300
    command = ["bash", "-c", f'ulimit -n {limit}; exec "$0" "$@"']
    with serving("front", under=command) as peer, ExitStack() as stack:
        for _ in range(limit // 2):
            greeted = stack.enter_context(ExitStack())
            greeted.enter_context(Raw.greeted(peer.port))
        with Raw(peer.port) as refused:
            refused.send(PREFACE + settings())
            assert refused.is_closed()
        greeted.close()
        wait_until(lambda: _is_greeted(peer))


def _is_greeted(peer: Peer) -> bool:
    with Raw(peer.port) as connection:
        connection.send(PREFACE + settings())
        return next(connection.frames(), None) is not None
