"""What the endpoints share that answer one question: the seam's two ways of answering."""

from sark_pdp.model import Decision, Request
from sark_pdp.transport.http.asking import Asking
from sark_pdp.transport.http.endpoint import Call


class Single:
    """One body, one request, one decision."""

    method = "POST"

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def answer_nowait(self, call: Call, body: bytes) -> bytes | None:
        """The answer where it is known, or quickly made; an error is known at once, too."""
        request = self._request(call, body)
        decision = self._asking.decide_nowait(request)
        return None if decision is None else self._encoded(request, decision)

    def answer(self, call: Call, body: bytes) -> bytes:
        """The same; may wait."""
        request = self._request(call, body)
        return self._encoded(request, self._asking.decide(request))

    def _request(self, call: Call, body: bytes) -> Request:
        raise NotImplementedError

    def _encoded(self, request: Request, decision: Decision) -> bytes:
        raise NotImplementedError
