"""A server that gives back the bytes it gets: what a carrier alone costs, the front or a bare grpcio server.

`python -m bench.echo_server front|grpcio HOST:PORT`
"""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from bench.questions import CHECK, EXT_AUTHZ
from sark_pdp.addresses import parse_tcp
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.transport.carrier import Limits, server_kind
from sark_pdp.transport.handler import Kind, Metadata, Refusal, Reply, Status

_WORKERS = 4
"""Threads of the grpcio server, as many as `sark-pdp serve` has there on one core."""


class Echo:
    """A method that answers with its message."""

    kind = Kind.UNARY

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """On the front's own thread."""
        return Reply(message)

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """On a thread of its pool."""
        return Reply(message)

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        """Not of this kind."""
        raise NotImplementedError(message)

    def refusal(self, reason: Refusal) -> Reply:
        """Where the front carries as much as it may."""
        return Reply(status=Status.RESOURCE_EXHAUSTED, details=reason.value)


class EchoHandler(grpc.GenericRpcHandler):
    """The same for grpcio: every method, no serializer."""

    def service(self, _details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """One handler for all."""
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            lambda message, _context: message
        )
        return handler


def main() -> None:
    """Until SIGTERM."""
    carrier, address = sys.argv[1:]
    # Before the first thread, which else could take the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if carrier == "grpcio":
        bare = grpc.server(ThreadPoolExecutor(_WORKERS), [EchoHandler()])
        bare.add_insecure_port(address)
        bare.start()
        signal.sigwait([signal.SIGTERM])
        bare.stop(None).wait()
        return
    limits = Limits(max_concurrent=1000, in_flight_bytes=2**24, max_message_bytes=2**22)
    server = server_kind("front")({EXT_AUTHZ.path: Echo(), CHECK.path: Echo()}, limits, Metrics())
    server.listen(parse_tcp(address), "HOST:PORT")
    server.start()
    signal.sigwait([signal.SIGTERM])
    server.stop(Seconds(1.0))


if __name__ == "__main__":
    main()
