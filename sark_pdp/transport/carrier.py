"""What carries the calls: the front, which is native code, or grpcio."""

from typing import Literal, Protocol

from msgspec import Struct

from sark_pdp.addresses import Address
from sark_pdp.errors import StartError
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.transport.handler import Methods
from sark_pdp.transport.tls import Tls

Transport = Literal["auto", "front", "grpcio"]


class Limits(Struct, frozen=True):
    """What one server carries at a time."""

    max_concurrent: int
    """Calls."""
    in_flight_bytes: int
    """Of all messages that are being answered."""
    max_message_bytes: int
    max_connections: int = 16_384
    """Fewer where the limit of open files leaves fewer."""


class Server(Protocol):
    """One server on any number of addresses."""

    def listen(
        self, address: Address, setting: str, socket_mode: int = 0o600, socket_owner: str | None = None
    ) -> Address:
        """Binds an address before the start; returns it with its real port. Raises StartError."""

    def start(self) -> None:
        """Calls are answered from now on."""

    def stop(self, grace: Seconds) -> None:
        """Takes no more calls, lets those that are being answered finish within `grace`, then cuts the rest."""


class MakeServer(Protocol):
    """Makes servers of one kind."""

    def __call__(self, methods: Methods, limits: Limits, metrics: Metrics, tls: Tls | None = None) -> Server:
        """`tls` holds for TCP; a Unix socket is guarded by its permissions."""


def server_kind(transport: Transport) -> MakeServer:
    """Raises StartError where the front is asked for and cannot be had."""
    # Each is imported where it is used: grpcio takes memory that the front saves.
    if transport != "grpcio":
        try:
            from sark_pdp.transport.front_server import FrontServer
        except ImportError as error:
            if transport == "front":
                raise StartError(
                    "transport: the front was not built into this installation; set auto, or install where cargo is"
                ) from error
        else:
            return FrontServer
    from sark_pdp.transport.grpc_server import GrpcServer

    return GrpcServer
