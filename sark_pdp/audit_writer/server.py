"""One writer: builds its parts, serves until told to stop, and takes them down in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from msgspec import Struct
from psycopg_pool import ConnectionPool

from sark_pdp.addresses import Address, TcpAddress
from sark_pdp.audit_writer.batcher import Batcher, Pace
from sark_pdp.audit_writer.credentials import credentials
from sark_pdp.audit_writer.ingest import PUSH, Clients, Ingest, Lanes
from sark_pdp.audit_writer.maintenance import Keeping, Maintenance
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.audit_writer.queries import SERVICE as QUERY
from sark_pdp.audit_writer.queries import Queries, Readers
from sark_pdp.audit_writer.questions import Questions
from sark_pdp.audit_writer.sessions import ASKING, MAINTAINING, WRITING, WRITING_LATE, session_of
from sark_pdp.audit_writer.store import EventStore
from sark_pdp.audit_writer.tail import Listener
from sark_pdp.certificates import Files
from sark_pdp.errors import StartError
from sark_pdp.model import Seconds
from sark_pdp.observability.http import ProbeListener
from sark_pdp.postgres.connections import connect

_INGEST: Final = "sark.audit.v1.AuditIngest"
_LARGEST_MESSAGE: Final = 16 << 20
"""Bytes: more than a batch of a sidecar has."""
_LATE_EVENTS: Final = 20
"""Of one batch of late events, each of which may take half a second: a sidecar waits for a minute."""
_QUERY_THREADS: Final = 8
_POOL_WAIT: Final = 5.0
"""Seconds that a question waits for a connection."""
_LOOK_INTERVAL: Final = 0.5
"""Seconds between two looks at the readiness."""

_SERVER_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    # A client that is gone without a word would keep its stream, or its place among those that follow, for two hours.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients that follow look for the same.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

R = TypeVar("R")

_log = logging.getLogger(__name__)


class Options(Struct, frozen=True, kw_only=True):
    """What a writer is told."""

    listen: tuple[Address, ...]
    metrics: TcpAddress
    dsn: str
    query_dsn: str
    """The same database, as a role that may only read."""
    pool_size: int
    max_overflow: int
    max_events: int
    max_delay: Seconds
    max_bytes: int
    retention: Seconds
    compress_after: Seconds
    grace: Seconds
    tls: Files | None = None
    allowed_sans: tuple[str, ...] = ()
    query_sans: tuple[str, ...] = ()


class Writer:
    """One process' worth. `start`, `serve` and `stop` run on one event loop, which owns all state but the threads'."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._asking_session = session_of(options.query_dsn, ASKING)
        maintaining = session_of(options.dsn, MAINTAINING)
        self._metrics = metrics = WriterMetrics()
        self._writing, self._writing_late = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("writing", "late")
        )
        self._asking = ThreadPoolExecutor(_QUERY_THREADS, thread_name_prefix="asking")
        usual = Pace(options.max_events, options.max_delay, options.max_bytes)
        late_events = min(_LATE_EVENTS, options.max_events)
        late = Pace(late_events, options.max_delay, options.max_bytes // 4, late=True)
        self._batcher = Batcher(_store(options.dsn, WRITING), _runner(self._writing), metrics, usual)
        self._late = Batcher(_store(options.dsn, WRITING_LATE), _runner(self._writing_late), metrics, late)
        lanes = Lanes(self._batcher, self._late, timedelta(seconds=options.compress_after), late_events)
        mutual = options.tls is not None and options.tls.client_ca_file is not None
        self._ingest = Ingest(lanes, metrics, Clients(mutual, options.allowed_sans))
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            self._asking_session,
            min_size=1,
            max_size=options.pool_size + options.max_overflow,
            timeout=_POOL_WAIT,
            kwargs={"autocommit": True, "application_name": "sark-pdp audit-writer query"},
            # After an outage no question meets a connection that is dead.
            check=ConnectionPool.check_connection,
            open=False,
        )
        self._listener = Listener(self._connect_listener)
        self._queries = Queries(
            Questions(self._pool), self._listener, _runner(self._asking), metrics, Readers(mutual, options.query_sans)
        )
        self._maintenance = Maintenance(
            lambda: connect(maintaining, "sark-pdp audit-writer maintenance"),
            Keeping(timedelta(seconds=options.retention), timedelta(seconds=options.compress_after)),
        )
        self._health = health.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._probes = ProbeListener(options.metrics, metrics.registry, lambda: self.problem or None)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.listening: dict[str, list[Address]] = {}
        """By the key of the setting, with real ports; complete after the start."""

    @property
    def problem(self) -> str:
        """Why no events are taken now; empty where they are."""
        return "the process is going down" if self._stopping else self._batcher.problem

    async def start(self) -> None:
        """Listens, and takes events as soon as the database does. Raises StartError."""
        self._server = self._listen()
        self._probes.start()
        self.listening["listen.metrics"] = [self._probes.address]
        self._pool.open(wait=False)
        self._maintenance.start()
        await self._tell_health()
        running = (self._batcher.run(), self._late.run(), self._watch_readiness())
        self._tasks = [asyncio.create_task(each) for each in running]
        await self._server.start()

    async def stop(self) -> None:
        """NOT_SERVING; what was read is committed and acknowledged within the grace, streams and questions end."""
        self._stopping = True
        await self._tell_health()
        self._ingest.stop()
        self._listener.end()
        if self._server is not None:
            await self._server.stop(self._options.grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._maintenance.stop(1.0)
        self._pool.close()
        self._probes.close()
        for pool in (self._writing, self._writing_late, self._asking):
            pool.shutdown(wait=False, cancel_futures=True)

    def _listen(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        query: dict[str, Any] = {
            "Search": grpc.unary_unary_rpc_method_handler(self._queries.search),
            "HourlyCounts": grpc.unary_unary_rpc_method_handler(self._queries.hourly_counts),
            "Tail": grpc.unary_stream_rpc_method_handler(self._queries.tail),
        }
        push: dict[str, Any] = {PUSH.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(self._ingest.push)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_INGEST, push), grpc.method_handlers_generic_handler(QUERY, query))
        )
        self.listening["listen.grpc"] = [self._bound(server, address) for address in self._options.listen]
        return server

    def _bound(self, server: grpc.aio.Server, address: Address) -> Address:
        tls = self._options.tls
        try:
            if tls is None or not isinstance(address, TcpAddress):
                port = server.add_insecure_port(str(address))
            else:
                port = server.add_secure_port(str(address), credentials(tls))
        except RuntimeError as error:
            raise StartError(f"listen.grpc: cannot listen on {address}; free it, or set another address") from error
        return TcpAddress(address.host, port) if isinstance(address, TcpAddress) else address

    async def _watch_readiness(self) -> None:
        """Tells of changes, and of the pool of connections."""
        while True:
            await self._tell_health()
            size = self._pool.get_stats().get("pool_size", 0)
            self._metrics.pool_size.set(size)
            self._metrics.pool_overflow.set(max(0, size - self._options.pool_size))
            await asyncio.sleep(_LOOK_INTERVAL)

    async def _tell_health(self) -> None:
        status = health_pb2.HealthCheckResponse.NOT_SERVING if self.problem else health_pb2.HealthCheckResponse.SERVING
        for service in ("", _INGEST, QUERY):
            await self._health.set(service, status)

    async def _connect_listener(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self._asking_session, autocommit=True, application_name="sark-pdp audit-writer tail"
        )


async def serve(options: Options, started: Callable[[Writer], None], stop: asyncio.Event) -> None:
    """Runs a writer until `stop` is set. Raises StartError."""
    writer = Writer(options)
    try:
        await writer.start()
        started(writer)
        await stop.wait()
        _log.info("stopping")
    finally:
        await writer.stop()
    _log.info("stopped")


def _store(dsn: str, options: str) -> EventStore:
    session = session_of(dsn, options)
    return EventStore(lambda: connect(session, "sark-pdp audit-writer"))


def _runner(pool: ThreadPoolExecutor) -> Callable[..., Awaitable[Any]]:
    def run(function: Callable[..., R], *arguments: Any) -> Awaitable[R]:
        return asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    return run
