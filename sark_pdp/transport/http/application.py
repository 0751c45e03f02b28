"""All endpoints as one ASGI application."""

from collections.abc import Sequence

from starlette.routing import Route, Router

from sark_pdp.observability.requests import OTHER, HttpMetrics
from sark_pdp.transport.http.endpoint import Endpoint
from sark_pdp.transport.http.exchange import Exchange, NoEndpoint
from sark_pdp.transport.http.gate import Gate
from sark_pdp.transport.http.listener import Application
from sark_pdp.transport.questions import Questions


def application(endpoints: Sequence[Endpoint], questions: Questions, gate: Gate, metrics: HttpMetrics) -> Application:
    """Carries requests to their endpoints; `questions` tells who makes them."""
    # The methods of each are looked at by its exchange, so that a wrong one is answered in the one shape of errors.
    routes = [
        Route(endpoint.path, Exchange(endpoint, questions, gate, metrics.of(label(endpoint.path))))
        for endpoint in endpoints
    ]
    known = [label(endpoint.path) for endpoint in endpoints]
    return Router(routes, redirect_slashes=False, default=NoEndpoint(known, metrics.of(OTHER)))


def label(path: str) -> str:
    """How metrics and people call an endpoint: `/v1/data/{path}`."""
    return path.replace(":path}", "}")
