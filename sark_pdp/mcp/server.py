"""The guard inside a server of the official SDK (the `mcp` package), low-level or not, whatever its transport."""

import dataclasses
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from sark_pdp.mcp.guard import Call, Caller, Filtered, Guard, Refusal
from sark_pdp.mcp.responses import guarded_result
from sark_pdp.model import Json

User: TypeAlias = Mapping[str, Json]
Context: TypeAlias = ServerRequestContext[Any, Any]
Principal: TypeAlias = Callable[[Context], "User | Awaitable[User | None] | None"]

_log = logging.getLogger(__name__)


def token_user(_: Context) -> User | None:
    """The user of the access token that the SDK has verified for this request; None where there is none.

    `id` is the subject, or the client where a token names nobody else. What else the token says is in `claims`,
    `client_id` and `scopes`; that `roles` or `teams` of it count is the application's to decide.
    """
    token = get_access_token()
    if token is None:
        return None
    return {
        "id": token.subject or token.client_id,
        "client_id": token.client_id,
        "scopes": list(token.scopes),
        "claims": dict(token.claims or {}),
    }


class ServerGuard:
    """A middleware of the SDK: `server.middleware.append(ServerGuard(guard, principal))`.

    What the policy refuses is raised as an MCPError, which the client's call raises again; a notification that it
    refuses is dropped. Append it last: what is appended after it is not judged.
    """

    def __init__(self, guard: Guard, principal: Principal = token_user) -> None:
        """`principal` makes the user of the policy's document from what the transport knows; None is nobody."""
        self._guard = guard
        self._principal = principal

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """As the SDK has it."""
        caller = await self._caller(ctx)
        if isinstance(caller, Refusal):
            _refuse(caller, ctx)
            return None
        (ruling,) = await self._guard.judge(caller, [Call(ctx.method, ctx.params or {})])
        if isinstance(ruling, Refusal):
            _refuse(ruling, ctx)
            return None
        if isinstance(ruling, Filtered):
            ctx = dataclasses.replace(ctx, params={**(ctx.params or {}), "arguments": ruling.arguments})
        return await self._seen(caller, await call_next(ctx))

    async def _seen(self, caller: Caller, result: HandlerResult) -> HandlerResult:
        if isinstance(result, BaseModel):
            result = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        if not isinstance(result, dict):
            return result
        seen = await guarded_result(self._guard, caller, result)
        if isinstance(seen, Refusal):
            raise _error(seen)
        return seen

    async def _caller(self, ctx: Context) -> Caller | Refusal:
        user = self._principal(ctx)
        if inspect.isawaitable(user):
            user = await user
        if user is None:
            return Refusal("the request names no user")
        context: dict[str, Json] = {}
        # The SDK's HTTP transports attach a request of Starlette; what others attach is not known.
        client, headers = getattr(ctx.request, "client", None), getattr(ctx.request, "headers", {})
        if client is not None:
            context["client_ip"] = client.host
        if "user-agent" in headers:
            context["user_agent"] = headers["user-agent"]
        request_id = headers.get("x-request-id", "")
        return Caller(user, context, request_id)


def _refuse(refusal: Refusal, ctx: Context) -> None:
    """A request fails; a notification, which nobody waits for, is not handled."""
    if ctx.request_id is not None:
        raise _error(refusal)
    _log.info("a notification of an MCP client was refused", extra={"reason": refusal.reason})


def _error(refusal: Refusal) -> MCPError:
    return MCPError(refusal.code, refusal.message, refusal.data)
