"""The HTTP/JSON API of the sidecar, built from its settings. Imported only where `listen.http` is set."""

from importlib.metadata import version

from sark_pdp.addresses import Address
from sark_pdp.decision.service import DecisionService
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.observability.requests import HttpMetrics
from sark_pdp.settings import Settings
from sark_pdp.transport.carrier import Limits
from sark_pdp.transport.http.application import application, label
from sark_pdp.transport.http.asking import Asking
from sark_pdp.transport.http.endpoints import endpoints
from sark_pdp.transport.http.gate import Gate
from sark_pdp.transport.http.listener import Listener
from sark_pdp.transport.questions import Questions
from sark_pdp.transport.tls import Tls


class HttpApi:
    """Endpoints, their limits, and what carries them."""

    def __init__(
        self, settings: Settings, service: DecisionService, questions: Questions, metrics: Metrics, tls: Tls | None
    ) -> None:
        limits, policy = settings.limits, settings.policy
        asking = Asking(service, questions, limits.max_batch, limits.max_values)
        served = endpoints(asking, policy.gateway_entrypoint, policy.a2a_entrypoint, version("sark-pdp"))
        self.metrics = HttpMetrics([label(endpoint.path) for endpoint in served])
        self._gate = Gate(
            Limits(limits.max_concurrent, limits.in_flight_bytes, limits.max_message_bytes), metrics.shed.inc
        )
        self._listener = Listener(application(served, questions, self._gate, self.metrics), tls)
        self._settings = settings.listen

    def start(self) -> list[Address]:
        """Requests are answered when this returns, at these addresses. Raises StartError."""
        listen = self._settings
        found = [
            self._listener.listen(address, "listen.http", listen.socket_mode, listen.socket_owner)
            for address in listen.http or ()
        ]
        self._listener.start()
        return found

    def stop(self, grace: Seconds) -> None:
        """Takes no more requests, lets those that are being answered finish within `grace`."""
        self._listener.stop(grace)
        self._gate.close()
