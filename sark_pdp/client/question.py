"""What is asked: one document, and which policy to ask."""

import json
from collections.abc import Mapping

from msgspec import Struct

from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Document, Json

_EXACT = 2**53
"""Up to here a double holds every integer, and so does a `google.protobuf.Struct`."""


class Question(Struct, frozen=True):
    """One question: what the policy sees as `input`, and how to ask it."""

    document: Mapping[str, Json]
    policy: str = ""
    """The entrypoint, as in `sark/mcp/decision`; empty: the one that the decision point is configured with."""
    max_age: float | None = None
    """In seconds: no answer older than this; zero bypasses every cache; None sets no bound."""
    request_id: str = ""
    """Echoed and audited; where it is empty the decision point makes one."""

    @classmethod
    def about(
        cls,
        *,
        action: str,
        user: Mapping[str, Json] | None = None,
        tool: Mapping[str, Json] | None = None,
        server: Mapping[str, Json] | None = None,
        parameters: Mapping[str, Json] | None = None,
        context: Mapping[str, Json] | None = None,
        source_agent: Mapping[str, Json] | None = None,
        target_agent: Mapping[str, Json] | None = None,
        policy: str = "",
        max_age: float | None = None,
        request_id: str = "",
    ) -> "Question":
        """The SARK document; what is None is left out of it."""
        parts = {
            "user": user,
            "action": action,
            "tool": tool,
            "server": server,
            "parameters": parameters,
            "context": context,
            "source_agent": source_agent,
            "target_agent": target_agent,
        }
        document = {name: part for name, part in parts.items() if part is not None}
        return cls(document, policy, max_age, request_id)


def encode(field: str, document: Mapping[str, Json]) -> bytes:
    """The document as JSON; raises InvalidRequestError, naming `field`, for what JSON cannot hold."""
    if not isinstance(document, Mapping):
        raise InvalidRequestError(field, f"must be a mapping, is of type {type(document).__name__}")
    try:
        # Not msgspec: it writes NaN as null, which a policy would take for an absent value.
        text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise InvalidRequestError(field, f"is not a JSON object: {problem}") from problem


def copy(field: str, resource: Mapping[str, Json]) -> Document:
    """The resource in plain dicts and lists that a Struct holds unchanged; raises InvalidRequestError."""

    def exact(digits: str) -> int:
        number = int(digits)
        if abs(number) > _EXACT:
            raise InvalidRequestError(field, f"{number} is beyond 2^53, where the wire rounds; send it as a string")
        return number

    document: Document = json.loads(encode(field, resource), parse_int=exact)
    return document


def _plain(value: object) -> Document:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")
