"""A server of the official MCP SDK with something of everything, and its client as one of several users."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import uvicorn
import yaml
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CallToolResult,
    Completion,
    GetPromptResult,
    PromptMessage,
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from sark_pdp.mcp.guard import REFUSED

PATIENCE = 60.0
"""Seconds for what takes milliseconds on an idle machine."""
MODES = ("legacy", "2026-07-28")
"""With a session, and without."""

USERS: Mapping[str, Mapping[str, Any]] = {
    "bob": {"id": "bob", "roles": ["developer"], "teams": ["payments"]},
    "carol": {"id": "carol", "roles": ["viewer"], "teams": ["support"], "permissions": ["tool:invoke:customer_lookup"]},
    "mallory": {"id": "mallory", "roles": ["developer"]},
}
"""As the directory of the default policies has them."""
CALLS: Sequence[Mapping[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "cases" / "mcp" / "calls.yaml").read_text()
)

App: TypeAlias = Callable[..., Awaitable[None]]


def a_server(**options: Any) -> MCPServer:
    """Its tools say what they were given."""
    server = MCPServer("shop", log_level="ERROR", **options)
    _add_tools(server)
    _add_contents(server)
    return server


def _add_tools(server: MCPServer) -> None:
    @server.tool()
    def search_code(query: str = "") -> str:
        return f"searched {query}"

    @server.tool()
    def customer_lookup(customer: str, debug: bool = False, requested_by: str = "") -> str:
        return f"{customer} {debug} {requested_by}"

    @server.tool()
    def drop_database() -> str:
        return "dropped"

    @server.tool()
    async def echo(text: str, ctx: Context) -> str:
        await ctx.report_progress(1, 2, "half way")
        return text


def _add_contents(server: MCPServer) -> None:
    @server.resource("docs://guide")
    def guide() -> str:
        return "read this first"

    @server.resource("repo://readme/{part}")
    def readme(part: str) -> str:
        return f"part {part}"

    @server.resource("vault://key")
    def key() -> str:
        return "secret"

    @server.prompt()
    def summarize(text: str) -> str:
        return f"Summarize: {text}"

    @server.prompt()
    def incident_report() -> str:
        return "What has happened?"

    of_server: Any = server

    @of_server.completion()  # type: ignore[untyped-decorator]
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=[f"{argument.value}!"])


@contextmanager
def served(app: App) -> Iterator[str]:
    """A real HTTP server on loopback; gives its base URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    # Signals are those of the tests.
    running = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    running.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        running.join(PATIENCE)
        listening.close()
    assert not running.is_alive(), "the HTTP server does not end"


@asynccontextmanager
async def connected(
    url: str, user: str | None, mode: str = "legacy", token: str = "", **options: Any
) -> AsyncIterator[Client]:
    """A client of the MCP endpoint, who says by a header that he is this user, as Envoy would, or shows a token."""
    headers = {} if user is None else {"x-sark-user": user}
    if token:
        headers["authorization"] = f"Bearer {token}"
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=PATIENCE, cache=None, **options) as client:
            yield client


def in_header(scope: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The user of a request: the one that its header names."""
    name = dict(scope["headers"]).get(b"x-sark-user", b"").decode()
    return USERS.get(name)


async def told(client: Client, case: Mapping[str, Any]) -> Any:
    """The text that a case of `tests/cases/mcp/calls.yaml` gets; `{"refused": …}` where it raises, with its data."""
    arguments = dict(case["with"])
    if "ref" in arguments:
        kind = PromptReference if arguments["ref"]["type"] == "ref/prompt" else ResourceTemplateReference
        arguments["ref"] = kind.model_validate(arguments["ref"])
    try:
        result: Any = await getattr(client, case["call"])(**arguments)
    except MCPError as error:
        result = error
    match result:
        case MCPError(code=code, message=message, data=data):
            assert (code, message) == (REFUSED, f"refused by policy: {data['reason']}")
            return {"refused": data.pop("reason"), **data}
        case CallToolResult(content=[TextContent(text=text)]):
            return text
        case ReadResourceResult(contents=[TextResourceContents(text=text)]):
            return text
        case GetPromptResult(messages=[PromptMessage(content=TextContent(text=text))]):
            return text
        case _:
            return result.completion.values[0]


def wanted(case: Mapping[str, Any], user: str, by: str) -> Any:
    """What the case says of this user, where it is the guard or Envoy that judges."""
    want = case[user]
    return want[by] if isinstance(want, Mapping) and by in want else want
