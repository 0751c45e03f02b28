"""A bare grpcio server that gives back the bytes it gets: what the transport alone costs.

`python -m bench.echo_server PORT WORKERS`
"""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def _echo(message: bytes, _context: grpc.ServicerContext) -> bytes:
    return message


class Echo(grpc.GenericRpcHandler):
    """Answers every method with its message; no serializer: bytes in, bytes out."""

    def __init__(self) -> None:
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """One handler for all."""
        return self._handler


def main() -> None:
    """Until SIGTERM."""
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    # Before the first thread, which else could take the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    server = grpc.server(ThreadPoolExecutor(workers), [Echo()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.sigwait([signal.SIGTERM])
    server.stop(None).wait()


if __name__ == "__main__":
    main()
