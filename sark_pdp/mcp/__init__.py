"""Policy for MCP servers and proxies: a guard that asks the decision point, and the ways to put it before a server.

`Guard` judges calls and listings; `McpMiddleware` puts it before any ASGI application that speaks MCP over HTTP, and
`server.ServerGuard` (which needs the `mcp` package) into a server of the official SDK, whatever its transport. Both
deny where no decision can be had.
"""

from sark_pdp.mcp.asgi import McpMiddleware
from sark_pdp.mcp.guard import Caller, Guard, Refusal

__all__ = ["Caller", "Guard", "McpMiddleware", "Refusal"]
