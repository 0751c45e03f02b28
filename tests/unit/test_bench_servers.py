"""What is checked of servers before they are timed, on servers of this process."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as envoy

from bench.certificates import make_certificates
from bench.checks import answer_sizes, require_agreement
from bench.loads import Certificates, Target
from bench.questions import COMPARED, EXT_AUTHZ, TIMED
from bench.servers import Server, total


class Rule(grpc.GenericRpcHandler):
    """Decides what it was told for each question."""

    def __init__(self, allows: Callable[[envoy.CheckRequest], bool]) -> None:
        self._allows = allows

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """One for every method."""

        def answer(message: bytes, _context: grpc.ServicerContext) -> bytes:
            code = 0 if self._allows(envoy.CheckRequest.FromString(message)) else 7
            encoded: bytes = envoy.CheckResponse(status={"code": code}).SerializeToString()
            return encoded

        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
        return handler


@contextmanager
def deciding(allows: Callable[[envoy.CheckRequest], bool], tls: Certificates | None = None) -> Iterator[Server]:
    """A server that decides so."""
    server = grpc.server(ThreadPoolExecutor(2), [Rule(allows)])
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = [(tls.key.read_bytes(), tls.certificate.read_bytes())]
        authority = tls.authority.read_bytes() if tls.client else None
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials(pair, authority, require_client_auth=tls.client)
        )
    server.start()
    try:
        yield Server(0, Target(f"127.0.0.1:{port}", EXT_AUTHZ, tls))
    finally:
        server.stop(None).wait()


def by_the_rule(request: envoy.CheckRequest) -> bool:
    """As every decision point must."""
    http = request.attributes.request.http
    return any(
        question.allowed
        for question in COMPARED
        if (question.method, question.path, question.user) == (http.method, http.path, http.headers["x-user"])
    )


def test_servers_that_decide_alike_may_be_timed() -> None:
    """Each question is answered as it says; an echo is not asked."""
    with deciding(by_the_rule) as one, deciding(by_the_rule) as other:
        echo = Server(0, Target("127.0.0.1:1", EXT_AUTHZ), decides=False)
        require_agreement({"one": one, "other": other, "echo": echo}, native=False)


@pytest.mark.parametrize(
    ("verb", "allows"),
    [
        ("allows", lambda _request: True),
        ("denies", lambda _request: False),
        ("denies", lambda request: by_the_rule(request) and request.attributes.request.http.method == "GET"),
    ],
)
def test_one_that_decides_otherwise_is_named(verb: str, allows: Callable[[envoy.CheckRequest], bool]) -> None:
    """With what it does, before anything is timed."""
    with (
        deciding(by_the_rule) as one,
        deciding(allows) as other,
        pytest.raises(SystemExit, match=f"^other {verb} Question"),
    ):
        require_agreement({"one": one, "other": other}, native=False)


def test_answers_have_the_size_of_a_framed_message() -> None:
    """5 bytes of frame; an allowing answer holds an empty status here, a denying one its code too."""
    with deciding(by_the_rule) as server:
        assert answer_sizes(server) == [5 + (2 if question.allowed else 4) for question in TIMED]


@pytest.mark.parametrize("client", [True, False])
def test_certificates_are_accepted_on_both_sides(tmp_path: Path, client: bool) -> None:
    """Of the server alone, or of the caller too."""
    with deciding(by_the_rule, make_certificates(tmp_path / "tls", client=client)) as server:
        require_agreement({"one": server}, native=False)


def test_samples_are_summed_by_name_and_labels() -> None:
    """A name that is the beginning of another is not the other."""
    samples = [('a_total{x="1",y="2"}', 3.0), ('a_total{x="1",y="3"}', 4.0), ("a_total_other", 5.0), ("b", 6.0)]
    assert total(samples, "a_total") == 7
    assert total(samples, "a_total", y="3") == 4
    assert total(samples, "b") == 6
    assert total(samples, "c") == 0
