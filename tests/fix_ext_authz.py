"""A decision service for ext_authz whose answers a test chooses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from google.protobuf import json_format

from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import NotReadyError, UnknownEntrypointError
from sark_pdp.interfaces import Answered
from sark_pdp.model import Decision, DecisionId, Entrypoint, Outcome, PolicyRevision, Request, Tier, Verdict
from sark_pdp.projection import Path, Projection
from tests.fix_engine import each

ENTRYPOINT = "envoy/authz/allow"
DECISION_ID = DecisionId("01890a5d-ac96-774b-bcce-b302099a8057")
REVISION = PolicyRevision("r7")
IDS = {"decision_id": DECISION_ID, "policy_revision": REVISION}
"""What every decision's dynamic metadata holds."""

ALLOW = Verdict(Outcome.ALLOW, "allowed by the policy", True, b"true")
DENY = Verdict(Outcome.DENY, "denied by the policy", False, b"false")


def message(attributes: Mapping[str, Any]) -> bytes:
    """A `CheckRequest` with these attributes, which are protobuf's JSON."""
    encoded: bytes = json_format.ParseDict({"attributes": attributes}, CheckRequest()).SerializeToString()
    return encoded


def returned(result: Any) -> Verdict:
    """The verdict of a policy that returned this."""
    return verdict_of(msgspec.json.encode(result))


class Asked:
    """An entrypoint that reads what it is told to."""

    name = ENTRYPOINT
    revision = REVISION
    fingerprint = bytes(32)
    deterministic = True
    reads_data: tuple[Path, ...] = ()

    def __init__(self, paths: Iterable[Path]) -> None:
        self.projection = Projection(paths)

    def evaluate(self, input_json: bytes) -> bytes | None:
        """Not asked: the decision is known."""
        raise AssertionError(input_json)

    def evaluate_nowait(self, input_json: bytes) -> bytes | None:
        """Not asked either."""
        raise AssertionError(input_json)


class Decisions:
    """A decision service that answers every request with `answer`, and keeps what it was asked."""

    recording = True

    def __init__(self, answer: Verdict | Exception, *, nowait: bool = True, paths: Iterable[Path] = ((),)) -> None:
        self.answer = answer
        self.asked = Asked(paths)
        self.requests: list[Request] = []
        self._nowait = nowait

    def active(self) -> "Decisions":
        """As `PolicySource`."""
        return self

    def entrypoint(self, name: str) -> Entrypoint:
        """As `PolicySource`."""
        if isinstance(self.answer, NotReadyError | UnknownEntrypointError):
            raise self.answer
        assert name == ENTRYPOINT
        return self.asked

    def decide(self, request: Request) -> Decision:
        """As `Decider`."""
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Decision(DECISION_ID, self.answer, Tier.L1, request.entrypoint.projection.project(request.document))

    def decide_nowait(self, request: Request) -> Decision | None:
        """As `Decider`."""
        return self.decide(request) if self._nowait else None

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        """As `Decider`."""
        return each(self.decide, requests)
