"""All endpoints, in the order in which paths are compared."""

from collections.abc import Sequence

from sark_pdp.transport.http.answers import encode
from sark_pdp.transport.http.asking import Asking
from sark_pdp.transport.http.authzen import Configuration, Evaluation, Evaluations
from sark_pdp.transport.http.data import Data
from sark_pdp.transport.http.endpoint import Call, Endpoint
from sark_pdp.transport.http.gateway import Authorize, AuthorizeAgent
from sark_pdp.transport.http.policy import BatchEvaluate, Evaluate


class OpenApi:
    """What the others take and give."""

    path = "/openapi.json"
    method = "GET"

    def __init__(self, version: str) -> None:
        self._version = version

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        """Never: it is made when it is asked for, which is seldom."""
        del call, body
        return None

    def answer(self, call: Call, body: bytes) -> bytes:
        """The document."""
        from sark_pdp.transport.http.openapi import document

        del call, body
        return encode(document(self._version))


def endpoints(
    asking: Asking, gateway_entrypoint: str | None, a2a_entrypoint: str | None, version: str
) -> Sequence[Endpoint]:
    """The entrypoints are asked by the gateway's endpoints; None: the one that every endpoint asks."""
    return (
        Evaluate(asking),
        BatchEvaluate(asking),
        Authorize(asking, gateway_entrypoint),
        AuthorizeAgent(asking, a2a_entrypoint),
        Evaluation(asking),
        Evaluations(asking),
        Configuration(),
        Data(asking),
        OpenApi(version),
    )
