"""What the front counts, over real connections."""

import socket
import struct
from collections.abc import Iterator

import grpc
import pytest

from sark_pdp.addresses import TcpAddress
from sark_pdp.transport.carrier import Transport
from tests.fix_front import TIMEOUT, Carried, code, until

pytest.importorskip("sark_pdp._front", reason="the front was not built")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS = 4, 1
GET = b"\x82\x86\x84\x41\x01a"
"""`GET http://a/`, in HPACK's static table but for the authority."""


@pytest.fixture
def carried() -> Iterator[Carried]:
    made = Carried(TcpAddress("127.0.0.1", 0))
    yield made
    made.close()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def test_calls_are_counted_by_how_they_were_answered(carried: Carried) -> None:
    for message in (b"x", b"slow", b"x", b"status"):
        carried.start(message).exception()
    told = carried.told()
    assert (told.calls_begun, told.inline, told.pooled, told.pool_depth) == (4, 3, 1, 0)
    assert 0 <= told.pool_waited < TIMEOUT
    until(lambda: carried.codes() == {0: 3, 5: 1})


def test_what_is_on_its_hands_is_counted_while_it_lasts(carried: Carried) -> None:
    waiting = carried.start(b"wait")
    watched = carried.see(b"1")
    assert next(watched) == b"0"
    until(lambda: carried.unary.begun)
    told = carried.told()
    assert (told.connections, told.calls_in_flight, told.streams, told.bytes_in_flight) == (1, 1, 1, 4)
    carried.unary.free.set()
    carried.watch.free.set()
    assert waiting.result() == b"wait"
    assert list(watched) == []
    until(lambda: (carried.told().calls_in_flight, carried.told().streams, carried.told().bytes_in_flight) == (0, 0, 0))
    carried.channel.close()
    until(lambda: carried.told().connections == 0)
    assert carried.told().connections_accepted == 1


def test_bytes_are_counted_both_ways(carried: Carried) -> None:
    carried.call(bytes(100_000))
    told = carried.told()
    assert told.bytes_in > 100_000
    assert told.bytes_out > 100_000


@pytest.mark.parametrize("transport", ["front", "grpcio"])
def test_methods_that_are_not_served_are_counted_together(transport: Transport) -> None:
    carried = Carried(TcpAddress("127.0.0.1", 0), transport=transport)
    for name in ("/a.B/One", "/a.B/Two", "/c/Three"):
        assert code(lambda name=name: carried.call(b"", name)) == "UNIMPLEMENTED"  # type: ignore[misc]
    carried.metrics.refresh()
    other = carried.metrics.other_calls()
    assert (other.service, other.method, other.by_code()[12]) == ("other", "other", 3)
    assert not any("One" in calls.method for calls in carried.metrics.all_calls())
    carried.close()


def test_a_call_that_its_head_condemns_is_counted_with_its_status(carried: Carried) -> None:
    assert code(lambda: carried.call(b"x" * 1000, compression=grpc.Compression.Deflate)) == "UNIMPLEMENTED"
    assert carried.codes() == {12: 1}


def test_requests_that_are_no_calls_are_counted(carried: Carried) -> None:
    assert isinstance(carried.address, TcpAddress)
    with socket.create_connection((carried.address.host, carried.address.port), timeout=TIMEOUT) as browser:
        browser.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0x5, 1, GET))
        until(lambda: carried.told().not_grpc == 1)
    with socket.create_connection((carried.address.host, carried.address.port), timeout=TIMEOUT) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: carried.told().connections_refused == 1)
