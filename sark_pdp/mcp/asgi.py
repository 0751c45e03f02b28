"""The guard before an ASGI application that speaks MCP over streamable HTTP, a server or a proxy of one."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

from sark_pdp.mcp import json_rpc
from sark_pdp.mcp.exchange import App, Receive, Scope, Send, answer, forwarded, read_body, replayed
from sark_pdp.mcp.guard import Call, Caller, Filtered, Guard, Refusal, Ruling
from sark_pdp.mcp.json_rpc import MessageError, Messages
from sark_pdp.mcp.responses import GuardedSend
from sark_pdp.model import Json

User: TypeAlias = Mapping[str, Json]
Principal: TypeAlias = Callable[[Scope], "User | Awaitable[User | None] | None"]

MEBI: Final = 1024 * 1024

_LONGEST: Final = 512
"""Characters of a header that is told to the policy and the audit trail."""

_log = logging.getLogger(__name__)


class McpMiddleware:
    """Lets through what the policy allows, with the parameters that it leaves; listings show what may be known.

    Every path but those in `exempt` is guarded. A request that is refused is answered with HTTP 200 and a JSON-RPC
    error under its id; what has no id, or names nobody, with 403; what is no message with 400. Answers may be JSON or
    streams of events, resumed ones too; of a batch what is allowed goes on.

    The application must not compress what it answers, and whatever else answers in its place (CORS, authentication)
    belongs outside of this.
    """

    def __init__(
        self,
        app: App,
        *,
        guard: Guard,
        principal: Principal,
        exempt: Collection[str] = (),
        max_request_bytes: int = 4 * MEBI,
        max_answer_bytes: int = 16 * MEBI,
        max_batch: int = 100,
    ) -> None:
        """`principal` makes the user of the policy's document from the connection's scope, never from the body.

        It may be a coroutine function; None is nobody, and refused. `max_answer_bytes` bounds an answer in JSON, or one
        event of a stream; `max_batch` the messages of a batch.
        """
        self._app = app
        self._guard = guard
        self._principal = principal
        self._exempt = frozenset(exempt)
        self._max_request_bytes = max_request_bytes
        self._max_answer_bytes = max_answer_bytes
        self._max_batch = max_batch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        match scope["type"]:
            case "lifespan":
                await self._app(scope, receive, send)
            case "http" if scope["path"] in self._exempt:
                await self._app(scope, receive, send)
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": "MCP is spoken over HTTP here"})
            case other:
                raise RuntimeError(f"an ASGI scope of type {other!r} is not known, and so not let through")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in {"POST", "GET", "DELETE"}:
            await answer(send, 405, None, [(b"allow", b"POST, GET, DELETE")])
            return
        caller = await self._caller(scope)
        if isinstance(caller, Refusal):
            await answer(send, 403, caller.error(None))
        elif scope["method"] == "POST":
            await self._post(caller, scope, receive, send)
        else:
            await self._pass_on(caller, forwarded(scope), receive, send)

    async def _post(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self._max_request_bytes)
            if body is None:
                return
            messages = json_rpc.read_messages(body, self._max_batch)
        except MessageError as problem:
            await answer(send, problem.http_status, json_rpc.failure(problem.code, str(problem)))
            return
        calls = [Call(each["method"], each.get("params") or {}) for each in messages.all if "method" in each]
        going, refused = _sorted(messages, await self._guard.judge(caller, calls))
        errors = [refusal.error(message["id"]) for message, refusal in refused if json_rpc.is_request(message)]
        if not going:
            # Of notifications alone nothing is told but that they were refused.
            status, told = (200, errors) if errors else (403, [refusal.error(None) for _, refusal in refused])
            await answer(send, status, told if messages.batch else told[0])
            return
        kept = None if going == list(messages.all) else (going[0].get("params") or {}).get("arguments")
        inner = Messages(tuple(going), messages.batch).encode()
        await self._pass_on(caller, forwarded(scope, inner, kept), replayed(inner, receive), send, errors)

    async def _pass_on(
        self, caller: Caller, scope: Scope, receive: Receive, send: Send, errors: list[dict[str, Json]] | None = None
    ) -> None:
        guarded = GuardedSend(self._guard, caller, send, errors or [], self._max_answer_bytes)
        await self._app(scope, receive, guarded)

    async def _caller(self, scope: Scope) -> Caller | Refusal:
        user = self._principal(scope)
        if inspect.isawaitable(user):
            user = await user
        if user is None:
            return Refusal("the request names no user")
        headers = {name: value.decode("latin-1")[:_LONGEST] for name, value in scope["headers"]}
        context: dict[str, Json] = {}
        if scope.get("client"):
            context["client_ip"] = scope["client"][0]
        if b"user-agent" in headers:
            context["user_agent"] = headers[b"user-agent"]
        return Caller(user, context, headers.get(b"x-request-id", ""))


def _sorted(
    messages: Messages, rulings: list[Ruling]
) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], Refusal]]]:
    """What goes on, as it goes on, and what is refused."""
    going: list[dict[str, Any]] = []
    refused: list[tuple[dict[str, Any], Refusal]] = []
    remaining = iter(rulings)
    for message in messages.all:
        match next(remaining) if "method" in message else None:
            case Refusal() as refusal:
                refused.append((message, refusal))
            case Filtered(arguments=arguments):
                going.append({**message, "params": {**(message.get("params") or {}), "arguments": arguments}})
            case _:
                going.append(message)
    return going, refused
