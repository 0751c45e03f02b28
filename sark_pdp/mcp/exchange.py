"""ASGI, as far as the middleware needs it: whole bodies in, whole answers out, and what is told to who is behind."""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final, TypeAlias

from sark_pdp.mcp.json_rpc import MessageError, encode

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

_JSON: Final = (b"content-type", b"application/json")
_MIRROR: Final = b"mcp-param-"
_ENCODED: Final = "=?base64?"


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The body of a request; None where its client has gone. Raises MessageError for one that is not read."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise MessageError("the message is compressed", http_status=415)
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        body += event.get("body", b"")
        if len(body) > most:
            raise MessageError(f"the message is larger than {most} bytes", http_status=413)
        if not event.get("more_body", False):
            return bytes(body)


async def answer(send: Send, status: int, told: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """An answer in JSON; none where `told` is None."""
    body = b"" if told is None else encode(told)
    await respond(send, status, body, [*headers, *([_JSON] if body else [])])


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """An answer whose headers do not tell its length."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def replayed(body: bytes, receive: Receive) -> Receive:
    """Gives this body first, then what comes after the one that was read."""
    pending = [body]

    async def receive_again() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return receive_again


def forwarded(scope: Scope, body: bytes | None = None, arguments: Any = None) -> Scope:
    """The scope for who is behind: uncompressed, without ways around `send`, with the length of `body`.

    Where a policy changed the `arguments` of a call, headers that mirror (`Mcp-Param-…`) what is no longer among them
    are gone, too.
    """
    left = None if arguments is None else set(_texts(arguments))
    headers = [(name, value) for name, value in scope["headers"] if _goes_on(name, value, left)]
    headers = [each for each in headers if body is None or each[0] not in {b"content-length", b"transfer-encoding"}]
    if body is not None:
        headers.append((b"content-length", str(len(body)).encode()))
    return {**scope, "headers": headers, "extensions": {}}


def _goes_on(name: bytes, value: bytes, left: set[str] | None) -> bool:
    if left is not None and name.lower().startswith(_MIRROR):
        return _mirrored(value) in left
    return name.lower() != b"accept-encoding"


def _mirrored(value: bytes) -> str | None:
    """What a header says of an argument, as the protocol encodes it; None where it is malformed."""
    text = value.decode("latin-1")
    if not text.startswith(_ENCODED):
        return text
    try:
        return base64.b64decode(text[len(_ENCODED) :].removesuffix("?="), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _texts(arguments: Any) -> Iterator[str]:
    """Each value below, as a header would say it."""
    pending = [arguments]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
        else:
            yield value if isinstance(value, str) else json.dumps(value)
