"""Serves `tests.interop.service` on a port of the loopback until its input ends.

Run as `python -m tests.interop.serve front|grpcio PORT [CERT KEY]`; prints the port, which is a free one for 0.
"""

import logging
import sys
from pathlib import Path

from sark_pdp.addresses import TcpAddress
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.transport.carrier import Limits, Transport, server_kind
from sark_pdp.transport.tls import Tls
from tests.interop.service import Service

LIMITS = Limits(max_concurrent=1000, in_flight_bytes=1 << 24, max_message_bytes=1 << 22)
"""As the settings have them."""


def main(transport: Transport, port: str, *certificate: str) -> None:
    """Until the input ends."""
    logging.basicConfig(level=logging.CRITICAL)
    tls = None
    if certificate:
        cert, key = map(Path, certificate)
        tls = Tls(cert_file=cert, key_file=key)
    server = server_kind(transport)(Service().methods(), LIMITS, Metrics(), tls)
    bound = server.listen(TcpAddress("127.0.0.1", int(port)), "listen.grpc")
    server.start()
    assert isinstance(bound, TcpAddress)
    print(bound.port, flush=True)
    sys.stdin.read()
    server.stop(Seconds(1.0))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # a wrong word is the caller's
