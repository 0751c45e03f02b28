"""What load generators print, and what is sent by them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as envoy
from google.protobuf.wrappers_pb2 import UInt64Value

from bench import ghz, h2load
from bench.checks import unexpected
from bench.echo_server import EchoHandler
from bench.loads import Load, Shape, Target, percentiles
from bench.questions import CHECK, COMPARED, EXT_AUTHZ, OPA_REST, TIMED, framed, numbered
from tests.fix_serve import free_port

TIMED_RUN = """\
starting benchmark...
Stopped all clients for thread #0

finished in 501.35ms, 8648.00 req/s, 3.40MB/s
requests: 4324 total, 4332 started, 4324 done, 4324 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4328 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.70MB (1783292) total, 8.48KB (8680) headers (space savings 94.72%), 1.58MB (1653296) data
                     min         max         mean         sd        +/- sd
time for request:       68us     24.48ms       909us      2.39ms    89.29%
"""
COUNTED_RUN = """\
finished in 63.00s, 993.02 req/s, 399.81KB/s
requests: 500 total, 490 started, 490 done, 480 succeeded, 20 failed, 10 errored, 0 timeout
status codes: 470 2xx, 0 3xx, 0 4xx, 10 5xx
traffic: 201.31KB (206144) total, 1.00KB (1024) headers (space savings 94.61%), 183.59KB (188000) data
"""
REFUSED = """\
finished in 256us, 0.00 req/s, 0B/s
requests: 10 total, 0 started, 0 done, 0 succeeded, 10 failed, 10 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 0B (0) total, 0B (0) headers (space savings 0.00%), 0B (0) data
"""


def test_h2load_of_a_length_of_time() -> None:
    """Calls that are in flight at the end are neither answered nor failed."""
    load = h2load.read(TIMED_RUN)
    assert load is not None
    assert (load.calls, load.failed) == (4324, 0)
    assert load.seconds == pytest.approx(0.50135)
    assert list(load.answer_bytes) == [pytest.approx(382, abs=1)]
    assert load.rps == pytest.approx(8625, abs=1)


def test_h2load_counts_as_failed_what_has_no_good_answer() -> None:
    """Without one, with an HTTP status other than 2xx, and never sent."""
    load = h2load.read(COUNTED_RUN)
    assert load is not None
    assert (load.calls, load.failed, list(load.answer_bytes)) == (470, 30, [400])


@pytest.mark.parametrize("output", [REFUSED, "", "h2load: unknown option", TIMED_RUN.replace("finished", "began")])
def test_h2load_without_answers_has_no_result(output: str) -> None:
    """A server that is not there makes no round of zero calls."""
    assert h2load.read(output) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("4.22ms", 0.00422), ("256us", 0.000256), ("3.00s", 3.0), ("3723.10s", 3723.1)]
)
def test_h2load_writes_times_in_the_unit_that_fits(text: str, seconds: float) -> None:
    """Microseconds, milliseconds or seconds."""
    load = h2load.read(TIMED_RUN.replace("501.35ms", text))
    assert load is not None
    assert load.seconds == pytest.approx(seconds)


def test_h2load_log_has_the_time_of_each_call() -> None:
    """Start, status, microseconds."""
    assert h2load.read_times("1795482829695928\t200\t2780\n1795482829698808\t200\t365\n") == [2780, 365]


def test_ghz_report() -> None:
    """Times are nanoseconds; a status other than OK is a failure."""
    report: dict[str, Any] = {
        "count": 100,
        "total": 2_000_000_000,
        "slowest": 9_000_000,
        "statusCodeDistribution": {"OK": 97, "Unavailable": 3},
        "latencyDistribution": [{"percentage": 50, "latency": 150_000}, {"percentage": 99, "latency": 2_500_000}],
    }
    load = ghz.read(report, 0.5)
    assert (load.calls, load.failed, load.rps, load.generator_cpu) == (97, 3, 48.5, 0.5)
    assert load.latencies == {"50": 150.0, "99": 2500.0, "max": 9000.0}


def test_ghz_report_without_answers() -> None:
    """Everything failed: there are no times."""
    report = {"count": 5, "total": 1e9, "slowest": 0, "statusCodeDistribution": {}, "latencyDistribution": None}
    load = ghz.read(report)
    assert (load.calls, load.failed, load.latencies) == (0, 5, {})


def plain(message: bytes) -> bytes:
    """With the entries of maps in one order: ghz writes them anew, in any."""
    written: bytes = envoy.CheckRequest.FromString(message).SerializeToString(deterministic=True)
    return written


class Recorder(EchoHandler):
    """An echo that keeps what it got."""

    def __init__(self) -> None:
        self.got: set[bytes] = set()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def answer(message: bytes, _context: grpc.ServicerContext) -> bytes:
            self.got.add(plain(message))
            return b""

        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
        return handler


@pytest.mark.usefixtures("ghz")
def test_ghz_sends_messages_that_differ(tmp_path: Path) -> None:
    """As they are, each in its turn, however long."""
    messages = [EXT_AUTHZ.write(numbered(question, at)) for at, question in enumerate(TIMED)]
    messages.append(envoy.CheckRequest(attributes={"context_extensions": {"long": "x" * 70_000}}).SerializeToString())
    messages.append(EXT_AUTHZ.write(numbered(COMPARED[0], 7)))
    recorder, address = Recorder(), f"127.0.0.1:{free_port()}"
    server = grpc.server(ThreadPoolExecutor(2), [recorder])
    server.add_insecure_port(address)
    server.start()
    try:
        load = ghz.send(tmp_path, Target(address, EXT_AUTHZ), envoy.DESCRIPTOR, messages, Shape(1, 2), 1.0)
    finally:
        server.stop(None).wait()
    assert load.calls > 0
    assert load.failed == 0
    assert recorder.got <= {plain(message) for message in messages}
    assert len(recorder.got) >= min(len(messages), load.calls)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**20, 2**32])
def test_lengths_are_written_as_protobuf_does(number: int) -> None:
    """A field of a number holds nothing else after its tag."""
    assert UInt64Value(value=number).SerializeToString() == (b"\x08" + ghz.varint(number) if number else b"")


def test_percentiles_are_of_the_nearest_rank() -> None:
    """Of a thousand calls, 99.9 % take no longer than the slowest but one; none are made up between."""
    found = percentiles([float(number) for number in range(1000, 0, -1)])
    assert (found["50"], found["99"], found["99.9"], found["max"]) == (501.0, 991.0, 1000.0, 1000.0)
    assert percentiles([7.0]) == dict.fromkeys(found, 7.0)
    assert percentiles([]) == {}


@pytest.mark.parametrize(
    ("sizes", "lost"),
    [
        ([400.0, 100.0], 0),
        # A little shorter: another length of an id.
        ([396.0, 100.2], 0),
        # A failed call has no message.
        ([400.0, 0.0], 500),
        ([300.0, 100.0], 125),
        ([], 0),
    ],
)
def test_short_answers_are_failures(sizes: list[float], lost: int) -> None:
    """h2load cannot read a gRPC status."""
    assert unexpected(Load(1000, 0, 1.0, answer_bytes=sizes), [400, 100]) == lost


@pytest.mark.parametrize("api", [EXT_AUTHZ, CHECK, OPA_REST])
def test_requests_of_two_rounds_differ(api: Any) -> None:
    """And nothing but the number makes them differ."""
    bodies = {api.body(numbered(TIMED[0], number)) for number in (0, 1, 1, 2, 5_000)}
    assert len(bodies) == 4


def test_ext_authz_is_asked_as_envoy_asks() -> None:
    """The rule's fields are the question's; the frame has the length."""
    question = numbered(COMPARED[2], 12)
    body = EXT_AUTHZ.body(question)
    assert body == framed(body[5:])
    http = envoy.CheckRequest.FromString(body[5:]).attributes.request.http
    assert (http.method, http.path, http.headers["x-user"]) == (question.method, question.path, question.user)


def test_opa_is_asked_the_same() -> None:
    """As its Envoy plugin would make it."""
    document = json.loads(OPA_REST.body(COMPARED[0]))["input"]
    assert document["parsed_path"] == ["api", "items"]
    assert document["attributes"]["request"]["http"]["headers"]["x-user"] == "alice"
