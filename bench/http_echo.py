"""A starlette application that gives back what it gets, on uvicorn with h11: `python -m bench.http_echo PORT`."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def echo(request: Request) -> Response:
    """The body as it came."""
    return Response(await request.body(), media_type="application/json")


def main() -> None:
    """Until SIGTERM."""
    application = Starlette(routes=[Route("/echo", echo, methods=["POST"])])
    uvicorn.run(
        application, port=int(sys.argv[1]), http="h11", loop="asyncio", ws="none", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
