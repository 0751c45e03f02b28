"""What a caller gets back. All are immutable, and true only where they allow."""

from msgspec import Struct

from sark_pdp.model import Json, Outcome, Seconds, Tier


class Answer(Struct, frozen=True):
    """The answer to one question; true in a condition only where it allows."""

    allow: bool
    """True only with `Outcome.ALLOW`."""
    reason: str
    """Why, in words for a person; names no address and no library where the decision point could not be asked."""
    outcome: Outcome = Outcome.ERROR
    tier: Tier | None = None
    """Where the decision came from; None where there is none, or where this version does not know it."""
    decision_id: str = ""
    """The id of the audit event; empty where no decision was made."""
    policy_revision: str = ""
    result: Json = None
    """What the entrypoint returned, whole."""
    filtered_parameters: dict[str, Json] | None = None
    """The parameters to go on with; None where the policy said nothing of them."""
    cache_ttl: Seconds = Seconds(0.0)
    """How long the caller may reuse this answer; zero: not at all. Reuse escapes invalidation and audit."""
    request_id: str = ""
    reused: bool = False
    """True where the client gave an earlier answer again: `decision_id` is that one's, and nobody was asked."""
    error: str | None = None
    """Why no decision was made, as `STATUS: detail` for a log; None where the decision point answered."""

    def __bool__(self) -> bool:
        return self.allow


class CheckBatch(Struct, frozen=True):
    """The answers to many questions; true in a condition only where there are some and every one allows."""

    answers: tuple[Answer, ...]
    """One for each question, in the same order."""
    error: str | None = None
    """Why the batch as a whole got no answer; every one of `answers` is a denial then."""

    def __bool__(self) -> bool:
        return bool(self.answers) and all(self.answers)


class Filter(Struct, frozen=True):
    """Which of many resources are allowed; true in a condition only where any is."""

    allowed: tuple[int, ...]
    """The indices of the allowed resources, rising."""
    answers: tuple[Answer, ...]
    """One for each resource, in the same order."""
    error: str | None = None
    """Why there is no decision; nothing is allowed then."""

    def __bool__(self) -> bool:
        return bool(self.allowed)
