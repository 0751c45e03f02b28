"""Carries the calls with grpcio: what a machine without the native front gets.

grpcio hands each call to a thread of a pool, so every call may wait and `answer_nowait` is not needed.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeAlias

import grpc
from msgspec import Struct

from sark_pdp.addresses import Address, TcpAddress, UnixAddress
from sark_pdp.errors import StartError
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.transport.carrier import Limits
from sark_pdp.transport.grpc_calls import Calls, Load
from sark_pdp.transport.handler import Kind, Methods, Status
from sark_pdp.transport.sockets import give_away, require_free
from sark_pdp.transport.tls import Tls

_THREADS: Final = 4
"""Four answered more calls than one, two or eight on two cores."""
_OPEN_CALLS: Final = 64
"""Streams that may be open at a time, and watches besides; each holds a thread."""
_POLL_SECONDS: Final = 0.02
_METADATA_BYTES: Final = 256 * 1024
"""Metadata of one call, as much as on the front (`front/src/limits.rs` says why). Both of grpcio's bounds, or it would
refuse calls between them at random."""

RpcHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class _Pool(ThreadPoolExecutor):
    """Knows how many calls were given to it and have not ended.

    Neither number needs a lock: grpcio submits on one thread, and `+=` on an attribute is not interrupted by another
    thread (`observability.instruments`). A callback on each future would cost a tenth of the whole call.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._begun = 0
        self._ended = 0

    @property
    def in_flight(self) -> int:
        return self._begun - self._ended

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._begun += 1
        return super().submit(self._counted, fn, *args, **kwargs)

    def _counted(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            self._ended += 1


class _Route(Struct, frozen=True):
    """How a method is called, and how it is refused."""

    handler: RpcHandler
    refusal: RpcHandler
    pool: _Pool
    limit: int


class GrpcServer(grpc.GenericRpcHandler):
    """One server on any number of addresses."""

    def __init__(self, methods: Methods, limits: Limits, metrics: Metrics, tls: Tls | None = None) -> None:
        """`tls` holds for TCP; a Unix socket is guarded by its permissions."""
        self._tls = tls
        self._load = Load(limits.in_flight_bytes)
        self._pools = {
            "unary": _Pool(_THREADS, "call"),
            "stream": _Pool(_OPEN_CALLS, "stream"),
            "watch": _Pool(_OPEN_CALLS, "watch"),
            "refusal": _Pool(1, "refusal"),
        }
        self._sockets: list[UnixAddress] = []
        self._other = metrics.other_calls()
        mutual = None if tls is None or tls.client_ca_file is None else tls
        self._routes = {
            name: self._route(
                method.kind,
                Calls(
                    method,
                    metrics.calls(name, method.kind.value),
                    metrics.shed.inc,
                    self._load,
                    limits.max_message_bytes,
                    mutual,
                ),
                limits.max_concurrent,
            )
            for name, method in methods.items()
        }
        self._server = grpc.server(
            self._pools["unary"],
            handlers=[self],
            options=(
                # Otherwise a second process could bind the same port and take half of the calls.
                ("grpc.so_reuseport", 0),
                # Methods refuse what is larger than their limit themselves; this bounds what is read at all.
                ("grpc.max_receive_message_length", max(limits.in_flight_bytes, limits.max_message_bytes)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            ),
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "RpcHandler | None":
        """Called by grpcio for each call, on the one thread that takes them."""
        route = self._routes.get(handler_call_details.method)
        if route is None:
            self._other.handled(Status.UNIMPLEMENTED, 0.0)
            return None
        return route.handler if route.pool.in_flight < route.limit else route.refusal

    def listen(
        self, address: Address, setting: str, socket_mode: int = 0o600, socket_owner: str | None = None
    ) -> Address:
        """Binds an address before the start; returns it with its real port. Raises StartError."""
        require_free(address, setting)
        secure = self._tls is not None and isinstance(address, TcpAddress)
        try:
            if secure and self._tls is not None:
                port = self._server.add_secure_port(str(address), self._tls.credentials())
            else:
                port = self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise StartError(f"{setting}: cannot listen on {address}; see the log, or set another address") from error
        if isinstance(address, UnixAddress):
            address.path.chmod(socket_mode)
            self._sockets.append(address)
            give_away(address.path, socket_owner)
            return address
        return TcpAddress(address.host, port)

    def start(self) -> None:
        """Calls are answered from now on."""
        self._server.start()

    def stop(self, grace: Seconds) -> None:
        """Takes no more calls, lets those that are being answered finish within `grace`, then cuts the rest.

        A stream on which nothing is being answered is not waited for; a watch ends by itself.
        """
        deadline = time.monotonic() + grace
        # Set once the last answer has left, not when its method returned.
        stopped = self._server.stop(grace)
        while not stopped.wait(_POLL_SECONDS) and time.monotonic() < deadline:
            for context in tuple(self._load.idle):
                context.cancel()
        self._server.stop(0).wait()
        for pool in self._pools.values():
            pool.shutdown(wait=False)
        for address in self._sockets:
            address.path.unlink(missing_ok=True)

    def _route(self, kind: Kind, calls: Calls, max_concurrent: int) -> _Route:
        make: Callable[..., RpcHandler]
        behaviour, refused = calls.behaviours(kind)
        match kind:
            case Kind.UNARY:
                make = grpc.unary_unary_rpc_method_handler
            case Kind.STREAM:
                make = grpc.stream_stream_rpc_method_handler
            case Kind.WATCH:
                make = grpc.unary_stream_rpc_method_handler
        unary = kind is Kind.UNARY
        pool = self._pools["unary" if unary else "stream" if kind is Kind.STREAM else "watch"]
        return _Route(
            make(_on(pool, behaviour)),
            make(_on(self._pools["refusal"], refused)),
            pool,
            max_concurrent if unary else min(_OPEN_CALLS, max_concurrent),
        )


def _on(pool: _Pool, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """The behaviour, run by grpcio on the threads of `pool`: a refusal never stands behind the calls it is due to."""

    def run(argument: Any, context: grpc.ServicerContext) -> Any:
        return behaviour(argument, context)

    run.experimental_thread_pool = pool  # type: ignore[attr-defined]  # grpcio looks for it
    return run
