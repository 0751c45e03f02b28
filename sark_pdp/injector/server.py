"""One injector: the webhook over HTTPS, its probes, and the order in which both start and stop."""

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Final, Literal

import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sark_pdp.addresses import TcpAddress
from sark_pdp.certificates import Certificate, Files
from sark_pdp.errors import StartError
from sark_pdp.injector.admission import Admission, Outcome, Verdict
from sark_pdp.injector.api import Api
from sark_pdp.injector.crowd import Bodies, Connection, Crowd
from sark_pdp.injector.events import Events
from sark_pdp.injector.metrics import InjectorMetrics
from sark_pdp.injector.review import InvalidReviewError, Question, read_review, write_admitted, write_refused
from sark_pdp.injector.template import Template
from sark_pdp.model import Seconds
from sark_pdp.observability.http import ProbeListener

ASKED: Final = "/inject"
"""For pods that have an annotation which says so."""
ALL: Final = "/inject-all"
"""For all pods that have none which says no: what a namespace's label selects."""

_MOST_CONNECTIONS: Final = 256
_MOST_BODIES: Final = 24 * 2**20
"""Bytes of all reviews that are not whole yet. With what Python and decoding take it is within the chart's limit."""
_IDLE: Final = 120
"""Seconds until a connection on which nothing is asked is closed. Clients in Go, as the API server is, give theirs up
after 90: nobody asks on one that is just being closed."""
_BODY_PATIENCE: Final = 10.0
"""Seconds until a whole review must have come: longer than the API server waits for the answer by default."""
_LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at the certificate's files."""
_EVENTS_GRACE: Final = 2.0
_BACKLOG: Final = 1024

_log = logging.getLogger(__name__)


class Options(Struct, frozen=True, kw_only=True):
    """What an injector is told."""

    listen: TcpAddress
    metrics: TcpAddress
    tls: Files
    template: Template
    excluded: frozenset[str]
    on_failure: Literal["refuse", "admit"]
    max_bytes: int
    grace: Seconds
    api: Api | None = None
    """None: the cluster is told nothing."""


class Injector:
    """One process' worth; runs on one event loop."""

    def __init__(self, options: Options) -> None:
        """Raises StartError."""
        self._options = options
        self._certificate = certificate = Certificate(options.tls)
        self._metrics = InjectorMetrics(certificate.expires)
        self._admission = Admission(options.template, options.excluded, options.on_failure)
        self._events = None if options.api is None else Events(options.api, self._metrics)
        self._probes = ProbeListener(options.metrics, self._metrics.registry, self._problem)
        self._crowd = Crowd(_MOST_CONNECTIONS, self._metrics)
        self._bodies = Bodies(_MOST_BODIES, self._metrics)
        self._stopping = False
        self.listening: dict[str, TcpAddress] = {}
        """By the key of the setting, with real ports; complete after the start."""

    async def run(self, started: Callable[["Injector"], None], stop: asyncio.Event) -> None:
        """Serves until `stop` is set, and then finishes what has begun. Raises StartError."""
        listener = _bound(self._options.listen)
        server = _Server(self._config())
        with contextlib.ExitStack() as running:
            running.callback(listener.close)
            self._probes.start()
            running.callback(self._probes.close)
            if self._events is not None:
                self._events.start()
                running.callback(self._events.close, _EVENTS_GRACE)
            serving = asyncio.create_task(server.serve([listener]))
            watching = asyncio.create_task(self._watch_certificate())
            running.callback(watching.cancel)
            host, port = listener.getsockname()[:2]
            self.listening = {"listen.webhook": TcpAddress(host, port), "listen.metrics": self._probes.address}
            started(self)
            await stop.wait()
            self._stopping = True
            _log.info("stopping")
            server.should_exit = True
            await serving
        _log.info("stopped")

    def _config(self) -> uvicorn.Config:
        application = Starlette(
            routes=[
                Route(ASKED, self._review(otherwise=False), methods=["POST"]),
                Route(ALL, self._review(otherwise=True), methods=["POST"]),
            ]
        )
        config = uvicorn.Config(
            application,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=max(1, round(self._options.grace)),
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        config.http_protocol_class = functools.partial(Connection, crowd=self._crowd)  # type: ignore[assignment]
        # Ours, because what is loaded into it later counts too.
        config.ssl = self._certificate.context
        return config

    def _review(self, *, otherwise: bool) -> Callable[[Request], Awaitable[Response]]:
        async def review(request: Request) -> Response:
            try:
                body = await self._body(request)
            except (TimeoutError, ClientDisconnect):
                self._metrics.unread()
                return PlainTextResponse("the review did not come in time\n", HTTPStatus.REQUEST_TIMEOUT)
            if body is None:
                self._metrics.unread()
                return PlainTextResponse(
                    f"the review is larger than limits.max_review_bytes, which is {self._options.max_bytes}\n",
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                )
            return self._answer(body, otherwise=otherwise)

        return review

    async def _body(self, request: Request) -> bytes | None:
        """None where it is too large."""
        parts, size = [], 0
        async with asyncio.timeout(_BODY_PATIENCE) as patience:
            self._bodies.begin(patience)
            try:
                async for part in request.stream():
                    size += len(part)
                    if size > self._options.max_bytes:
                        return None
                    parts.append(part)
                    self._bodies.grow(patience, len(part))
            finally:
                self._bodies.end(patience)
        return b"".join(parts)

    def _answer(self, body: bytes, *, otherwise: bool) -> Response:
        began = time.perf_counter()
        try:
            question = read_review(body)
            verdict = self._admission.decide(question, otherwise=otherwise)
        except InvalidReviewError as error:
            self._metrics.answered(None, time.perf_counter() - began)
            _log.warning("no review: %s", error)
            return PlainTextResponse(f"{error}\n", HTTPStatus.BAD_REQUEST)
        self._tell(question, verdict)
        written = _written(question, verdict)
        self._metrics.answered(verdict.outcome, time.perf_counter() - began)
        return Response(written, media_type="application/json")

    def _tell(self, question: Question, verdict: Verdict) -> None:
        """Of what went wrong. A trial changes nothing in the cluster, so it makes no events either."""
        if verdict.problem:
            _log.warning("a pod of namespace %s is %s: %s", question.namespace, verdict.outcome.value, verdict.problem)
        if self._events is not None and not question.dry_run:
            self._events.tell(verdict, question.namespace)

    async def _watch_certificate(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_INTERVAL)
            if self._certificate.refresh():
                self._metrics.reloads.inc()

    def _problem(self) -> str | None:
        if self._stopping:
            return "the process is going down"
        if time.time() > self._certificate.expires():
            return "the certificate in tls.cert_file has expired"
        return None


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _written(question: Question, verdict: Verdict) -> bytes:
    if verdict.outcome is Outcome.REFUSED:
        return write_refused(question.uid, verdict.problem)
    return write_admitted(question.uid, verdict.patch, [verdict.warning] if verdict.warning else [])


def _bound(address: TcpAddress) -> socket.socket:
    try:
        family, *_, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(where[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StartError(
            f"listen.webhook: cannot listen on {address}: {error.strerror or error}; free it, or set another address"
        ) from error
    # asyncio does it only for sockets that it made. Without it the second half of an answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
