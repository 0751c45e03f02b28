"""The listener for scrapes and probes, over real sockets."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from sark_pdp.addresses import TcpAddress
from sark_pdp.errors import StartError
from sark_pdp.observability.http import ProbeListener

PATIENCE = 60.0
"""Seconds that a request has, so that one of a machine that stands still is not hung up on."""
HASTE = 0.3


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What `problems` gives to each test, empty at its beginning."""
    return []


@pytest.fixture
def problems(told: list[str]) -> list[str]:
    """The last one is what the process says it is not ready for."""
    told.clear()
    return told


@pytest.fixture(scope="module")
def metrics() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("some_metric", "Of a test.", registry=registry).set(42)
    return registry


@pytest.fixture(scope="module", params=["127.0.0.1", "::1", "localhost"])
def listening(request: pytest.FixtureRequest, metrics: CollectorRegistry, told: list[str]) -> Iterator[ProbeListener]:
    with listening_on(request.param, metrics, told, PATIENCE) as made:
        yield made


@pytest.fixture
def listener(listening: ProbeListener, problems: list[str]) -> ProbeListener:
    """One that is ready, at each address."""
    assert problems == []
    return listening


@pytest.fixture(scope="module")
def hasty(metrics: CollectorRegistry) -> Iterator[ProbeListener]:
    """One that soon hangs up."""
    with listening_on("127.0.0.1", metrics, [], HASTE) as made:
        yield made


@contextmanager
def listening_on(
    host: str, metrics: CollectorRegistry, problems: list[str], patience: float
) -> Iterator[ProbeListener]:
    made = ProbeListener(TcpAddress(host, 0), metrics, lambda: problems[-1] if problems else None, patience)
    made.start()
    yield made
    made.close()


def connect(listener: ProbeListener) -> socket.socket:
    return socket.create_connection((listener.address.host, listener.address.port), timeout=60)


def ask(listener: ProbeListener, request: bytes) -> tuple[str, str]:
    """The head and the body of the answer, up to the end of the connection."""
    with connect(listener) as connection:
        connection.sendall(request)
        answer = connection.makefile("rb").read().decode()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


def get(listener: ProbeListener, path: str, *headers: str) -> tuple[int, str, str]:
    """Status, head and body."""
    head, body = ask(listener, "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
    return int(head.split()[1]), head, body


def test_metrics_are_served_as_text(listener: ProbeListener) -> None:
    status, head, body = get(listener, "/metrics")
    assert status == 200
    assert "Content-Type: text/plain" in head
    assert "\nsome_metric 42.0\n" in body


def test_a_scraper_may_ask_for_openmetrics(listener: ProbeListener) -> None:
    status, head, body = get(listener, "/metrics?x=y", "Accept: application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert "Content-Type: application/openmetrics-text" in head
    assert body.endswith("# EOF\n")


def test_a_living_process_is_healthy_even_when_it_is_not_ready(listener: ProbeListener, problems: list[str]) -> None:
    problems.append("no bundle is active")
    assert get(listener, "/healthz")[0] == 200


def test_readiness_follows_the_process_and_says_why_not(listener: ProbeListener, problems: list[str]) -> None:
    assert get(listener, "/readyz")[0] == 200
    problems.append("no bundle is active")
    status, _, body = get(listener, "/readyz")
    assert (status, body) == (503, "not ready: no bundle is active\n")


REQUESTS = [
    (b"GET / HTTP/1.1\r\n\r\n", 404),
    (b"GET /metrics/x HTTP/1.1\r\n\r\n", 404),
    (b"GET http://other/healthz HTTP/1.1\r\n\r\n", 404),
    (b"HEAD /healthz HTTP/1.1\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.0\n\n", 200),
    (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", 501),
    (b"\x16\x03\x01 nonsense here\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", 431),
]


@pytest.mark.parametrize(("request_bytes", "status"), REQUESTS)
def test_every_request_gets_the_status_that_says_what_it_is(
    listener: ProbeListener, request_bytes: bytes, status: int
) -> None:
    head, body = ask(listener, request_bytes)
    assert int(head.split()[1]) == status
    assert (body == "") == request_bytes.startswith(b"HEAD")


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\n", b"GET /" + b"a" * 20_000])
def test_a_request_that_does_not_end_is_hung_up_on(hasty: ProbeListener, sent: bytes) -> None:
    # The kernel resets where bytes were not read, or come too late.
    with connect(hasty) as connection, suppress(ConnectionError):
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_a_byte_now_and_then_buys_no_time(hasty: ProbeListener) -> None:
    with connect(hasty) as connection:
        hung_up = False
        give_up = time.monotonic() + 30
        connection.settimeout(0.05)
        while not hung_up and time.monotonic() < give_up:
            try:
                connection.sendall(b"G")
                hung_up = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                hung_up = True
        assert hung_up


def test_many_who_send_nothing_do_not_keep_others_out(hasty: ProbeListener) -> None:
    idle = [connect(hasty) for _ in range(40)]
    try:
        # Whoever comes too late with the request itself is hung up on as they are.
        end = time.monotonic() + 60
        while not (answer := ask(hasty, b"GET /healthz HTTP/1.1\r\n\r\n")[0]):
            assert time.monotonic() < end
        assert int(answer.split()[1]) == 200
    finally:
        for connection in idle:
            connection.close()


def test_an_address_in_use_is_one_clear_line(listener: ProbeListener, metrics: CollectorRegistry) -> None:
    second = ProbeListener(listener.address, metrics, lambda: None)
    with pytest.raises(StartError, match=r"^listen\.metrics: cannot listen on .*: Address already in use; .*$"):
        second.start()
    second.close()


def test_a_host_that_is_not_of_this_machine_is_one_clear_line(metrics: CollectorRegistry) -> None:
    listening = ProbeListener(TcpAddress("192.0.2.1", 0), metrics, lambda: None)
    with pytest.raises(StartError, match="cannot listen on 192"):
        listening.start()


def test_a_check_that_fails_is_an_answer_too(metrics: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str | None:
        raise RuntimeError("secret detail")

    failing: Callable[[], str | None] = broken
    listening = ProbeListener(TcpAddress("127.0.0.1", 0), metrics, failing)
    listening.start()
    try:
        status, _, body = get(listening, "/readyz")
    finally:
        listening.close()
    assert status == 500
    assert "secret detail" not in body
    assert "a probe could not be answered" in caplog.text


def test_after_closing_nobody_listens_and_closing_again_is_harmless(metrics: CollectorRegistry) -> None:
    listening = ProbeListener(TcpAddress("127.0.0.1", 0), metrics, lambda: None)
    listening.start()
    address = listening.address
    listening.close()
    listening.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), timeout=10)
