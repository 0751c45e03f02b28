"""One endpoint as an ASGI application: limits, deadline, body, answer, and what is counted of it."""

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct

from sark_pdp.errors import RequestError
from sark_pdp.model import Seconds
from sark_pdp.observability.requests import RequestMetrics
from sark_pdp.transport.handler import Refusal
from sark_pdp.transport.http import body as bodies
from sark_pdp.transport.http.caller import FOREIGN_CALLER, Peer, call_of
from sark_pdp.transport.http.endpoint import Endpoint, Headers
from sark_pdp.transport.http.errors import Fields, Problem, Refused, refused, shed
from sark_pdp.transport.http.gate import Gate, ShedError, Slot
from sark_pdp.transport.questions import Questions

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_INLINE_BYTES: Final = 16 * 1024
"""A larger body is not looked at where nothing may wait."""
_WATERMARK: Final = 64 * 1024
"""Bytes of an answer that asyncio takes at once; of a larger one it is waited for that the caller takes it."""
_JSON: Final = (b"content-type", b"application/json")
_CLOSE: Final[Fields] = ((b"connection", b"close"),)
_HUNG_UP: Final = 499
"""As nginx counts it."""

_log = logging.getLogger(__name__)


class _Answer(Struct, frozen=True):
    """What is sent."""

    status: int
    body: bytes
    headers: Fields = ()


class Exchange:
    """Carries the requests for one endpoint."""

    def __init__(self, endpoint: Endpoint, questions: Questions, gate: Gate, counted: RequestMetrics) -> None:
        self._endpoint = endpoint
        self._questions = questions
        self._gate = gate
        self._counted = counted
        self._wrong_method = Refused(
            HTTPStatus.METHOD_NOT_ALLOWED,
            Problem("method_not_allowed", f"this endpoint takes {endpoint.method} alone"),
            ((b"allow", endpoint.method.encode()),),
        )

    async def __call__(self, scope: Scope, receive: bodies.Receive, send: Send) -> None:
        """One request."""
        began = time.monotonic()
        status: int = _HUNG_UP
        try:
            if scope["method"] != self._endpoint.method:
                status = await refuse(self._wrong_method, send)
                return
            with self._gate.enter() as slot:
                answer = await self._answered(scope, receive, slot)
                status = answer.status
                slot.add(len(answer.body))
                await sent(answer.status, answer.body, answer.headers, send)
        except ShedError as error:
            status = await refuse(shed(error.reason), send)
        except bodies.GoneError:
            pass
        finally:
            self._counted.handled(scope["method"], status, Seconds(time.monotonic() - began))

    async def _answered(self, scope: Scope, receive: bodies.Receive, slot: Slot) -> _Answer:
        peer: Peer = scope["state"]["peer"]
        headers: Headers = scope["headers"]
        echoed: Fields = ()
        try:
            if peer.identity is None:
                raise bodies.RefusedError(FOREIGN_CALLER)
            is_packed = bodies.is_packed(headers)
            body = await bodies.read(receive, headers, slot, self._gate.limits.max_message_bytes)
        except bodies.RefusedError as error:
            return _Answer(error.answer.status, error.answer.body, error.answer.headers + _CLOSE)
        try:
            call = call_of(scope, peer, self._questions)
            echoed = ((b"x-request-id", call.request_id.encode("latin-1")),) if call.request_id else ()
            if is_packed:
                body = await self._gate.run(bodies.unpacked, body, self._gate.limits.max_message_bytes)
                slot.take(len(body))
            answer = self._endpoint.answer_nowait(call, body) if len(body) <= _INLINE_BYTES else None
            if answer is None:
                answer = await self._gate.run(self._endpoint.answer, call, body)
            return await self._packed(answer, headers, echoed)
        except RequestError as error:
            problem = refused(error)
        except ShedError:
            raise
        except Exception:  # noqa: BLE001 (one request fails, not the process)
            _log.exception("a request failed", extra={"endpoint": self._endpoint.path})
            problem = shed(Refusal.INTERNAL)
        return _Answer(problem.status, problem.body, problem.headers + echoed)

    async def _packed(self, answer: bytes, headers: Headers, echoed: Fields) -> _Answer:
        if len(answer) < bodies.PACKED_FROM:
            return _Answer(HTTPStatus.OK, answer, echoed)
        if not bodies.wants_packed(headers):
            return _Answer(HTTPStatus.OK, answer, bodies.VARIES + echoed)
        short = len(answer) <= _INLINE_BYTES
        small = bodies.packed(answer) if short else await self._gate.run(bodies.packed, answer)
        return _Answer(HTTPStatus.OK, small, bodies.VARIES + bodies.PACKED + echoed)


class NoEndpoint:
    """What answers where there is no endpoint."""

    def __init__(self, known: Sequence[str], counted: RequestMetrics) -> None:
        message = f"there is no such path; there are {', '.join(known)}"
        self._answer = Refused(HTTPStatus.NOT_FOUND, Problem("resource_not_found", message))
        self._counted = counted

    async def __call__(self, scope: Scope, receive: bodies.Receive, send: Send) -> None:
        """One request."""
        del receive
        began = time.monotonic()
        status = await refuse(self._answer, send)
        self._counted.handled(scope["method"], status, Seconds(time.monotonic() - began))


async def refuse(answer: Refused, send: Send) -> int:
    """Answers without having read the body, which ends the connection: what is left of it is not looked at."""
    await sent(answer.status, answer.body, answer.headers + _CLOSE, send)
    return answer.status


async def sent(status: int, body: bytes, headers: Fields, send: Send) -> None:
    """One answer; returns when the caller has taken all of it but what asyncio holds for a connection."""
    fields = [_JSON, (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    more = len(body) > _WATERMARK
    await send({"type": "http.response.body", "body": body, "more_body": more})
    if more:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
