"""The audit event: what one record becomes, and its payload, the bytes that the chain covers.

A payload is UTF-8 JSON with all columns of the store but `chain` and `payload`. Making one is total: whatever a caller
put into its document, there is an event.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from sark_pdp.audit.subjects import Subjects, subjects_of, text_of
from sark_pdp.errors import AuditError
from sark_pdp.model import (
    AuditRecord,
    Decision,
    DecisionRecord,
    Document,
    FilterRecord,
    Json,
    LifecycleRecord,
    Outcome,
    Request,
)

DECISIONS: Final = {
    Outcome.ALLOW: "allow",
    Outcome.DENY: "deny",
    Outcome.UNDEFINED: "undefined",
    Outcome.ERROR: "error",
}
_TIERS: Final = ("", "evaluated", "l1", "l2", "stale")
_SEVERITIES: Final = {"allow": "low", "deny": "medium", "undefined": "medium", "error": "high"}
_LAST_NS = 253_402_300_799_999_999_999
"""Of the year 9999: what RFC 3339 can write."""
_DEEPEST = 100
_NANOSECONDS = 1_000_000_000


class Event(Struct, frozen=True):
    """One row of the audit trail, in the order of its payload; None is a column that does not apply."""

    id: str
    """A UUIDv7; of a decision: the `decision_id` that the caller got."""
    timestamp: str
    """RFC 3339, UTC, microseconds."""
    source: str
    """`<host or pod>/<boot id>`."""
    sequence: int
    """Gapless within its source, from 1."""
    event_type: str
    severity: str
    """low, medium, high or critical."""
    user_id: str | None
    user_email: str | None
    server_id: str | None
    tool_name: str | None
    decision: str | None
    """allow, deny, undefined or error."""
    policy_id: str | None
    """The entrypoint."""
    policy_revision: str | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, Json]
    """Of a decision: reason, tier, age_seconds, latency_ns, action, peer, and input, the input as the policy saw it."""


class Payloads:
    """Makes the payloads of one source. For one thread: it remembers the second that it wrote last."""

    __slots__ = ("_encode", "_prefix", "_second_ns", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._encode = msgspec.json.Encoder().encode
        self._second_ns = 0
        self._prefix = "1970-01-01T00:00:00"

    def payload(self, record: AuditRecord, sequence: int) -> bytes:
        """The payload of a record at its place in the source; never raises for what a document holds."""
        event = self._event(record, sequence)
        try:
            return self._encode(event)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Lone surrogates, integers of thousands of digits, too deep, or no JSON at all.
            return self._encode(_harmless(msgspec.structs.asdict(event), 0))

    def _event(self, record: AuditRecord, sequence: int) -> Event:
        if type(record) is DecisionRecord:
            request, decision = record.request, record.decision
            subjects = subjects_of(request.document, request.origin)
            name = DECISIONS[decision.verdict.outcome]
            details = _details(request, decision, subjects, record.latency_ns)
            return self._decided(record, sequence, name, request, subjects, details)
        if type(record) is FilterRecord:
            request = record.requests[0]
            subjects = subjects_of(request.document, request.origin)
            name, details = _filtered(record, subjects)
            if len(record.requests) > 1:
                several = {"tool_name": None} if record.resource_field == "tool" else {"server_id": None}
                subjects = msgspec.structs.replace(subjects, **several)
            return self._decided(record, sequence, name, request, subjects, details)
        if type(record) is LifecycleRecord:
            nothing = (None,) * 10
            time = self._timestamp(record.time_ns)
            kind, details = record.event_type, dict(record.details)
            return Event(record.id, time, self._source, sequence, kind, record.severity, *nothing, details)
        raise TypeError(f"{type(record).__name__} is no audit record")

    def _decided(
        self,
        record: DecisionRecord | FilterRecord,
        sequence: int,
        decision: str,
        request: Request,
        subjects: Subjects,
        details: dict[str, Json],
    ) -> Event:
        return Event(
            record.id,
            self._timestamp(record.time_ns),
            self._source,
            sequence,
            # Of `tool_invoked` a decision point knows nothing: it saw that a call may be made, not that it was.
            "authorization_allowed" if decision == "allow" else "authorization_denied",
            _SEVERITIES[decision],
            subjects.user_id,
            subjects.user_email,
            subjects.server_id,
            subjects.tool_name,
            decision,
            request.entrypoint.name,
            request.entrypoint.revision,
            subjects.ip_address,
            subjects.user_agent,
            request.request_id,
            details,
        )

    def _timestamp(self, time_ns: int) -> str:
        fraction = time_ns - self._second_ns
        if not 0 <= fraction < _NANOSECONDS:
            time_ns = min(max(time_ns, 0), _LAST_NS)
            second, fraction = divmod(time_ns, _NANOSECONDS)
            self._second_ns = second * _NANOSECONDS
            self._prefix = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        return f"{self._prefix}.{fraction // 1000:06d}Z"


_decoder: Final = msgspec.json.Decoder(Event)


def event_of(payload: bytes) -> Event:
    """The event that a payload holds; raises AuditError where it holds none."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AuditError(f"a payload of {len(payload)} bytes is no audit event: {error}") from error


def _details(request: Request, decision: Decision, subjects: Subjects, latency_ns: int) -> dict[str, Json]:
    details: dict[str, Json] = {
        "reason": decision.verdict.reason,
        "tier": _TIERS[decision.tier],
        "age_seconds": decision.age,
        "latency_ns": latency_ns,
    }
    if subjects.action is not None:
        details["action"] = subjects.action
    if request.origin.identity:
        details["peer"] = request.origin.identity
    details["input"] = decision.projected
    return details


def _filtered(record: FilterRecord, subjects: Subjects) -> tuple[str, dict[str, Json]]:
    """One decision about many resources: allowed where any is, for then the principal got something to see.

    The input is kept once without its resource, the resources beside it in the order of the request: together they are
    the input of each decision.
    """
    field = record.resource_field
    allowed: list[Json] = []
    refused: list[Json] = []
    resources: list[Json] = []
    common: Document = {}
    outcomes = set()
    for request, decision in zip(record.requests, record.decisions, strict=False):
        common = decision.projected
        resources.append(common.get(field))
        name = _name(request.document.get(field), len(resources) - 1)
        outcome = decision.verdict.outcome
        outcomes.add(outcome)
        if outcome is Outcome.ALLOW:
            allowed.append(name)
        else:
            refused.append({"resource": name, "decision": DECISIONS[outcome], "reason": decision.verdict.reason})
    details: dict[str, Json] = {
        "reason": f"{len(allowed)} of {len(resources)} allowed",
        "resource_field": field,
        "allowed": allowed,
        "refused": refused,
        "latency_ns": record.latency_ns,
    }
    if subjects.action is not None:
        details["action"] = subjects.action
    if record.requests[0].origin.identity:
        details["peer"] = record.requests[0].origin.identity
    details["input"] = {key: value for key, value in common.items() if key != field}
    details["resources"] = resources
    first = (o for o in (Outcome.ALLOW, Outcome.ERROR, Outcome.DENY) if o in outcomes)
    return DECISIONS[next(first, Outcome.UNDEFINED)], details


def _name(resource: Json, index: int) -> str:
    """What a reader knows a resource by: its id, else its name, else its place in the request."""
    named = resource if type(resource) is dict else {"id": resource}
    return text_of(named.get("id")) or text_of(named.get("name")) or f"#{index}"


def _harmless(value: Json, depth: int) -> Json:
    """The same value with everything replaced that JSON or UTF-8 cannot carry."""
    if depth > _DEEPEST:
        return "(nested too deeply)"
    if type(value) is str:
        return value.encode("utf-8", "replace").decode("utf-8")
    if type(value) is dict:
        return {_harmless(str(key), depth): _harmless(below, depth + 1) for key, below in value.items()}
    if type(value) in {list, tuple}:
        return [_harmless(below, depth + 1) for below in value]
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):
        return f"(a value of type {type(value).__name__})"
    return value
