"""What one caller, or all of them, may take of the HTTP listener: slow ones, odd ones, many."""

import gzip
import http.client
import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.addresses import TcpAddress
from sark_pdp.model import Seconds
from sark_pdp.observability.instruments import Counter
from sark_pdp.observability.requests import HttpMetrics
from sark_pdp.transport.carrier import Limits
from sark_pdp.transport.documents import Documents
from sark_pdp.transport.http import body as bodies
from sark_pdp.transport.http import connection as connections
from sark_pdp.transport.http import listener as listeners
from sark_pdp.transport.http.application import application
from sark_pdp.transport.http.endpoint import Call
from sark_pdp.transport.http.gate import Gate
from sark_pdp.transport.http.listener import Listener
from sark_pdp.transport.questions import Questions
from tests.fix_http import TIMEOUT, Answer, HttpClient
from tests.fix_native import wait_until

LIMITS = Limits(max_concurrent=3, in_flight_bytes=64 * 1024, max_message_bytes=48 * 1024)
QUESTIONS = Questions(Documents(LIMITS.max_message_bytes, 10, 100), "sark/mcp/decision")
LARGE = 8 << 20


class Held:
    """Answers on the pool, when the test lets it; `/large` gives much back, `/broken` raises."""

    method = "POST"

    def __init__(self, path: str) -> None:
        self.path = path
        self.asked = threading.Semaphore(0)
        self.let_go = threading.Event()

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        del call, body
        return None

    def answer(self, call: Call, body: bytes) -> bytes:
        del call
        if self.path == "/broken":
            raise ZeroDivisionError("a secret of the process")
        if self.path == "/large":
            return b'"' + b"x" * LARGE + b'"'
        self.asked.release()
        assert self.let_go.wait(TIMEOUT)
        return body


class Served:
    """A listener with these endpoints in this process."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.shed = Counter()
        self.held, self.large, self.broken = Held("/held"), Held("/large"), Held("/broken")
        self.metrics = HttpMetrics(["/held", "/large", "/broken"])
        self.gate = Gate(limits, self.shed.inc)
        carried = application([self.held, self.large, self.broken], QUESTIONS, self.gate, self.metrics)
        self.listener = Listener(carried, None)
        self.address = self.listener.listen(TcpAddress("127.0.0.1", 0), "listen.http", 0o600, None)
        self.listener.start()

    def client(self) -> HttpClient:
        return HttpClient(str(self.address))

    def post(self, path: str, body: bytes) -> Answer:
        """On a connection of its own."""
        with self.client() as client:
            return client.post(path, body)

    def raw(self) -> socket.socket:
        assert isinstance(self.address, TcpAddress)
        made = socket.create_connection((self.address.host, self.address.port), TIMEOUT)
        made.settimeout(TIMEOUT)
        return made

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return (self.gate.calls, self.gate.bytes) == (0, 0)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.held.let_go.set()
    wait_until(lambda: made.idle)
    made.listener.stop(Seconds(TIMEOUT))
    made.gate.close()


def received(client: socket.socket) -> bytes:
    """All until the other end closes."""
    got = b""
    try:
        while chunk := client.recv(65536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def test_beyond_max_concurrent_it_is_429_at_once(served: Served) -> None:
    """And the ones before are answered; what was shed is counted."""
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(served.post, "/held", b"1") for _ in range(3)]
        for _ in waiting:
            assert served.held.asked.acquire(timeout=TIMEOUT)
        with served.client() as client:
            refused = client.post("/held", b"2")
        assert refused.problem == (
            429,
            "as many requests are in flight as limits.max_concurrent allows; try again",
        )
        assert refused.headers["retry-after"] == "1"
        served.held.let_go.set()
        assert [each.result().body for each in waiting] == [b"1"] * 3
    assert served.shed.value == 1


def test_beyond_in_flight_bytes_it_is_429(served: Served) -> None:
    """What comes alone is answered whatever its size, as far as one message may be."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.post, "/held", b"x" * 40_000)
        assert served.held.asked.acquire(timeout=TIMEOUT)
        with served.client() as client:
            assert client.post("/held", b"x" * 40_000).problem[0] == 429
        with served.client() as client:
            packed = gzip.compress(b"x" * 40_000)
            assert client.post("/held", packed, content_encoding="gzip").problem[0] == 429
        served.held.let_go.set()
        assert waiting.result().status == 200
    assert served.shed.value == 2


def test_a_body_beyond_the_limit_is_refused_however_it_is_announced(served: Served) -> None:
    with served.client() as client:
        assert client.post("/held", b"x" * 50_000).problem == (413, "the body is larger than limits.max_message_bytes")
    # Chunked, it is read as far as the limit.
    with served.client() as client:
        client.connection.request("POST", "/held", iter([b"x" * 10_000] * 5), encode_chunked=True)
        assert client.answer().status == 413
    # Announced as a terabyte, none of it is.
    with served.raw() as client:
        client.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n")
        assert received(client).startswith(b"HTTP/1.1 413 ")


def test_headers_are_bounded(served: Served) -> None:
    with served.raw() as client:
        client.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\n" + b"x-long: " + b"x" * connections.HEAD_BYTES + b"\r\n")
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed"' in answer


def test_one_that_sends_its_headers_slowly_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single bytes do not renew the deadline: not of the first request, nor of the next one."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    for first in (b"", b"DELETE /held HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n"):
        with served.raw() as client:
            client.sendall(first + b"POST /held")
            closed = threading.Event()

            def drip(client: socket.socket = client, closed: threading.Event = closed) -> None:
                try:
                    while not closed.wait(0.05):
                        client.sendall(b"x")
                except OSError:
                    pass

            dripping = threading.Thread(target=drip)
            dripping.start()
            received(client)
            closed.set()
            dripping.join()
    with served.raw() as silent:
        assert received(silent) == b""


def test_one_that_sends_its_body_slowly_is_answered_408(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SECONDS", 0.3)
    with served.raw() as client:
        client.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this")
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in answer
    wait_until(lambda: served.idle)


def test_one_that_does_not_take_its_answer_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then what he was to be given counts as in flight."""
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.5)
    with served.raw() as client:
        client.sendall(b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        wait_until(lambda: served.gate.bytes > LARGE)
        wait_until(lambda: served.idle)
        assert len(received(client)) < LARGE


def test_one_that_takes_its_answer_gets_it_whole(served: Served) -> None:
    with served.client() as client:
        assert len(client.post("/large", b"").body) == LARGE + 2
        assert client.post("/large", b"").status == 200


def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "IDLE_SECONDS", 0.2)
    served = Served()
    with served.raw() as client:
        client.sendall(b"POST /broken HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert received(client).startswith(b"HTTP/1.1 500 ")
    served.listener.stop(Seconds(1.0))


def test_no_answer_is_held_back_for_its_second_part(served: Served) -> None:
    """Nagle's algorithm is off: headers and body leave at once."""
    with served.client() as client:
        assert client.post("/large", b"").status == 200
        (connection,) = served.listener._connections.connections
        at = connection.transport.get_extra_info("socket")
        assert at.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_too_many_connections_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones that are open go on."""
    monkeypatch.setattr(listeners, "_MOST_CONNECTIONS", 2)
    served = Served()
    with served.client() as first, served.client() as second:
        assert first.post("/large", b"").status == 200
        assert second.post("/large", b"").status == 200
        with served.raw() as third:
            assert received(third) == b""
        assert first.post("/large", b"").status == 200
    wait_until(lambda: not served.listener._connections.connections)
    with served.client() as again:
        assert again.post("/large", b"").status == 200
    served.listener.stop(Seconds(1.0))


def test_what_fails_within_is_500_without_a_word_of_it(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """It is in the log."""
    with caplog.at_level(logging.ERROR), served.client() as client:
        answer = client.post("/broken", b"{}")
        assert answer.problem == (500, "the decision point failed; its log has the reason")
        assert client.post("/broken", b"{}").status == 500
    assert "ZeroDivisionError" in caplog.text


def test_one_that_hangs_up_leaves_nothing_behind(served: Served) -> None:
    """In the middle of his body, or while he is answered."""
    with served.raw() as client:
        client.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this")
        wait_until(lambda: served.gate.bytes > 0)
    wait_until(lambda: served.idle)
    with served.raw() as client:
        client.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        assert served.held.asked.acquire(timeout=TIMEOUT)
    served.held.let_go.set()
    wait_until(lambda: served.idle)
    statuses = {(method, status) for method, status, _ in served.metrics.of("/held").counts()}
    assert ("POST", 499) in statuses


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"POST /held HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999\r\n\r\n", [413]),
        (b"POST /held HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", [400]),
        (b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", [400]),
        (b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", [400]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [404]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n", [400]),
        (b"GET http://example/ HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET /held HTTP/1.0\r\n\r\n", [405]),
        (b"CONNECT example:443 HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET /held HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", [405]),
        (b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
    ],
    ids=range(11),
)
def test_what_is_odd_is_refused_and_the_connection_closed(served: Served, sent: bytes, statuses: list[int]) -> None:
    with served.raw() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = received(client)
    assert [int(each[:3]) for each in answer.split(b"HTTP/1.1 ")[1:]] == statuses
    assert b"Traceback" not in answer
    assert b"uvicorn" not in answer.lower()


ODD = st.binary(max_size=200) | st.sampled_from([
    *(b"POST /broken HTTP/1.1\r\n", b"host: x\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
    *(b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"expect: 100-continue\r\n", b"connection: close\r\n"),
    *(b"GET /x HTTP/1.1\r\n", b"content-encoding: gzip\r\n"),
    *(b"upgrade: h2c\r\nconnection: upgrade\r\n", b"\0", b"hello"),
])  # fmt: skip


@pytest.fixture(scope="module")
def lasting() -> Iterator[Served]:
    made = Served()
    yield made
    made.listener.stop(Seconds(TIMEOUT))


def test_no_bytes_break_the_listener(lasting: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes, in whatever pieces: it is answered or closed, nothing is logged but what the endpoint raised,
    nothing stays in flight, and the next caller is served."""

    @given(st.lists(ODD, max_size=12))
    def send(pieces: list[bytes]) -> None:
        with lasting.raw() as client:
            try:
                for piece in pieces:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            answer = received(client)
        assert not answer or answer.startswith(b"HTTP/1.1 ")

    with caplog.at_level(logging.WARNING):
        send()
    wait_until(lambda: lasting.idle)
    assert {record.getMessage() for record in caplog.records} <= {"a request failed"}
    with lasting.client() as client:
        assert client.post("/large", b"").status == 200


def test_told_to_stop_it_ends_idle_connections_and_finishes_the_others(served: Served) -> None:
    """The last answer of a connection says so; afterwards nobody is let in."""
    idle, late = served.client(), served.raw()
    assert idle.post("/large", b"").status == 200
    late.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    assert served.held.asked.acquire(timeout=TIMEOUT)
    stopping = threading.Thread(target=served.listener.stop, args=(Seconds(TIMEOUT),))
    stopping.start()
    assert idle.connection.sock is not None
    assert idle.connection.sock.recv(1) == b""
    with pytest.raises((OSError, http.client.HTTPException)):
        served.post("/large", b"")
    served.held.let_go.set()
    answer = received(late)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"{}")
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    late.close()
    idle.connection.close()


def test_the_grace_bounds_what_is_waited_for(served: Served) -> None:
    """Who is not answered by then, or is still sending, is cut off."""
    late, slow = served.raw(), served.raw()
    late.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    slow.sendall(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
    assert served.held.asked.acquire(timeout=TIMEOUT)
    wait_until(lambda: served.gate.bytes == 3)
    served.listener.stop(Seconds(0.2))
    assert (received(late), received(slow)) == (b"", b"")
    late.close()
    slow.close()


def test_a_listener_that_never_started_can_be_stopped(tmp_path: Any) -> None:
    from sark_pdp.addresses import UnixAddress

    gate = Gate(LIMITS, lambda: None)
    listener = Listener(application([], QUESTIONS, gate, HttpMetrics([])), None)
    listener.listen(UnixAddress(tmp_path / "h.sock"), "listen.http", 0o600, None)
    listener.stop(Seconds(0.0))
    gate.close()
    assert not (tmp_path / "h.sock").exists()
