"""What an application answers, on its way to the client: listings lose what the caller may not know of.

Which entries are listed shows in the answer itself, not in the request: a stream that is resumed has answers to
requests of other connections, and two requests of one id could get each other's.
"""

import logging
from typing import Any, Final

from sark_pdp.mcp import json_rpc, sse
from sark_pdp.mcp.exchange import Headers, Message, Send, answer, respond
from sark_pdp.mcp.guard import Caller, Guard, Refusal
from sark_pdp.mcp.json_rpc import MessageError
from sark_pdp.mcp.methods import LISTS
from sark_pdp.model import Json

_BAD_GATEWAY: Final = 502
_INTERNAL_ERROR: Final = -32603
_EMPTY: Final = frozenset({202, 204})
"""Statuses of answers that tell nothing."""
_ENDPOINT: Final = "endpoint"
"""The one event whose data is no message but a URI, in MCP's first transport."""
_BEFORE_JSON: Final = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
"""What some reader may skip: white space, and what tells UTF-8, 16 and 32 apart."""

_log = logging.getLogger(__name__)


async def guarded_message(guard: Guard, caller: Caller, message: Any) -> Any:
    """A message, or a batch, as the caller may see it: the same object where nothing changes."""
    if isinstance(message, list):
        seen = [await guarded_message(guard, caller, each) for each in message]
        return message if all(new is old for new, old in zip(seen, message, strict=True)) else seen
    result = message.get("result") if isinstance(message, dict) else None
    if not isinstance(result, dict):
        return message
    seen_result = await guarded_result(guard, caller, result)
    if isinstance(seen_result, Refusal):
        return seen_result.error(message.get("id"))
    return message if seen_result is result else {**message, "result": seen_result}


async def guarded_result(guard: Guard, caller: Caller, result: dict[str, Any]) -> dict[str, Any] | Refusal:
    """The same of a result."""
    changed: dict[str, Any] = {}
    for key in LISTS.keys() & result.keys():
        entries = result[key]
        if not isinstance(entries, list):
            # It would have to be understood to be judged.
            changed[key] = []
            continue
        shown = await guard.shown(caller, key, entries)
        if isinstance(shown, Refusal):
            return shown
        changed[key] = shown
    if result.get("cacheScope") == "public":
        # What one caller may see is not for the next one's cache.
        changed["cacheScope"] = "private"
    return {**result, **changed} if changed else result


class GuardedSend:
    """The `send` of one request. Sends what the application answers, judged."""

    def __init__(self, guard: Guard, caller: Caller, send: Send, errors: list[dict[str, Json]], max_bytes: int) -> None:
        """`errors` are answers to messages of the same batch that were refused."""
        self._guard = guard
        self._caller = caller
        self._send = send
        self._errors = errors
        self._max_bytes = max_bytes
        self._status = 0
        self._headers: Headers = []
        # Of an answer that is held back until it is complete.
        self._whole = bytearray()
        self._events: sse.EventReader | None = None
        self._done = False

    async def __call__(self, event: Message) -> None:
        """As ASGI has it. What comes after the end is dropped: the application is not told that it was cut short."""
        if self._done:
            return
        match event["type"]:
            case "http.response.start":
                await self._start(event["status"], [(bytes(n).lower(), bytes(v)) for n, v in event.get("headers", ())])
            case "http.response.body":
                await self._body(event.get("body", b""), more=event.get("more_body", False))

    async def _start(self, status: int, headers: Headers) -> None:
        self._status = status
        # A length that was true may not be any more, and a digest neither.
        gone = {b"content-length", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag"}
        self._headers = [each for each in headers if each[0] not in gone]
        if _value(headers, b"content-encoding") not in {b"", b"identity"}:
            await self._fail("the answer of the MCP server is compressed, so it cannot be judged")
        elif _value(headers, b"content-type").startswith(b"text/event-stream"):
            self._events = sse.EventReader()
            await self._send({"type": "http.response.start", "status": status, "headers": self._headers})
            for error in self._errors:
                await self._piece(sse.message(json_rpc.encode(error)), more=True)

    async def _body(self, piece: bytes, *, more: bool) -> None:
        if self._events is not None:
            await self._stream(self._events, piece, more=more)
            return
        self._whole += piece
        if len(self._whole) > self._max_bytes:
            await self._fail(f"the answer of the MCP server is larger than {self._max_bytes} bytes")
        elif not more:
            await self._complete(bytes(self._whole))

    async def _complete(self, body: bytes) -> None:
        self._done = True
        if not body:
            if self._errors:
                # What is left of the batch were notifications.
                await answer(self._send, 200, self._errors)
            else:
                await respond(self._send, self._status, body, self._headers)
            return
        if not _is_json(_value(self._headers, b"content-type")):
            if self._status < 400 and self._status not in _EMPTY:
                await self._fail("the answer of the MCP server is neither JSON nor a stream of events")
                return
            if not _begins_as_json(body):
                await respond(self._send, self._status, body, self._headers)
                return
            # Some clients read it whatever it is called.
        try:
            message = json_rpc.decode(body, strict=False)
        except MessageError:
            await self._fail("the answer of the MCP server is not JSON, which it says or seems to be")
            return
        seen = await guarded_message(self._guard, self._caller, message)
        if self._errors:
            if isinstance(seen, list):
                seen = [*seen, *self._errors]
            elif self._status < 400:
                seen = [seen, *self._errors]
        await respond(self._send, self._status, body if seen is message else json_rpc.encode(seen), self._headers)

    async def _stream(self, events: sse.EventReader, piece: bytes, *, more: bool) -> None:
        told = b""
        for event in events.feed(piece):
            told += await self._event(event)
        too_long = events.held > self._max_bytes
        if too_long:
            _log.warning("an event of an MCP server is too long: its stream was ended")
        # What has no end at the end of a stream is no event.
        self._done = too_long or not more
        if told or self._done:
            await self._piece(told, more=not self._done)

    async def _event(self, event: sse.Event) -> bytes:
        """Nothing for an event that cannot be judged."""
        if not event.data or (event.kind == _ENDPOINT and not _begins_as_json(event.data.encode())):
            return event.raw
        try:
            message = json_rpc.decode(event.data, strict=False)
        except MessageError:
            _log.warning("an event of an MCP server is no message: it was left out")
            return b""
        seen = await guarded_message(self._guard, self._caller, message)
        return event.raw if seen is message else event.with_data(json_rpc.encode(seen))

    async def _piece(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _fail(self, why: str) -> None:
        """In place of the whole answer."""
        self._done = True
        _log.error("%s", why)
        await answer(self._send, _BAD_GATEWAY, json_rpc.failure(_INTERNAL_ERROR, why))


def _value(headers: Headers, name: bytes) -> bytes:
    return next((value.strip().lower() for key, value in headers if key == name), b"")


def _begins_as_json(body: bytes) -> bool:
    """With an object or an array: what else there is of JSON lists nothing."""
    return body.lstrip(_BEFORE_JSON).startswith((b"{", b"["))


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip()
    return media_type == b"application/json" or media_type.endswith(b"+json")
