"""The audit event: what one record becomes, and its payload, the bytes that the chain covers.

A payload is UTF-8 JSON with all columns of the store but `chain` and `payload`. Making one is total: whatever a caller
put into its document, there is an event.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sark_pdp.audit.subjects import Subjects, subjects_of, text_of
from sark_pdp.errors import AuditError
from sark_pdp.model import (
    AuditRecord,
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
# Of `tool_invoked` a decision point knows nothing: it saw that a call may be made, not that it was.
_ALLOWED: Final = "authorization_allowed"
_DENIED: Final = "authorization_denied"
# Event type, severity and decision by the number of the outcome: an enumeration is slow as the key of a mapping.
_COLUMNS: Final = (
    ("", "", ""),
    (_ALLOWED, "low", "allow"),
    (_DENIED, "medium", "deny"),
    (_DENIED, "medium", "undefined"),
    (_DENIED, "high", "error"),
)
_TIERS: Final = ("", "evaluated", "l1", "l2", "stale")
_LAST_NS = 253_402_300_799_999_999_999
"""Of the year 9999: what RFC 3339 can write."""
_DEEPEST = 100
_MICROSECONDS = 1_000_000


class Event(Struct, frozen=True, gc=False):
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
    """Of a decision: reason, tier, age_seconds, latency_ns, action, peer, peer_uid, and input, as the policy saw it."""


class _Details(Struct, frozen=True, gc=False):
    """The details of one decision, to be written: encoding it costs half of what making and encoding a dict does."""

    reason: str
    tier: str
    age_seconds: float
    latency_ns: int
    action: str | UnsetType
    peer: str | UnsetType
    peer_uid: int | UnsetType
    input: Document


class Payloads:
    """Makes the payloads of one source. For one thread: it remembers the second that it wrote last."""

    __slots__ = ("_encode", "_prefix", "_second_ns", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._encode = msgspec.json.Encoder().encode
        self._second_ns = 0
        self._prefix = "1970-01-01T00:00:00."

    def payload(self, record: AuditRecord, sequence: int) -> bytes:
        """The payload of a record at its place in the source; never raises for what a document holds."""
        event = self._decision(record, sequence) if type(record) is DecisionRecord else self._other(record, sequence)
        try:
            return self._encode(event)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Lone surrogates, integers of thousands of digits, too deep, or no JSON at all.
            return self._encode(_harmless(event, 0))

    def _decision(self, record: DecisionRecord, sequence: int) -> Event:
        request, decision = record.request, record.decision
        verdict, origin = decision.verdict, request.origin
        subjects = subjects_of(request.document, origin)
        details: Any = _Details(
            verdict.reason,
            _TIERS[decision.tier],
            decision.age,
            record.latency_ns,
            UNSET if subjects.action is None else subjects.action,
            origin.identity or UNSET,
            UNSET if origin.uid is None else origin.uid,
            decision.projected,
        )
        return self._about(record, sequence, request, subjects, verdict.outcome, details)

    def _other(self, record: AuditRecord, sequence: int) -> Event:
        if type(record) is FilterRecord:
            return self._filter(record, sequence)
        if type(record) is LifecycleRecord:
            nothing = (None,) * 10
            time = self._timestamp(record.time_ns)
            kind, details = record.event_type, dict(record.details)
            return Event(record.id, time, self._source, sequence, kind, record.severity, *nothing, details)
        raise TypeError(f"{type(record).__name__} is no audit record")

    def _filter(self, record: FilterRecord, sequence: int) -> Event:
        request = record.requests[0]
        subjects = subjects_of(request.document, request.origin)
        outcome, details = _filtered(record, subjects)
        if len(record.requests) > 1:
            several = {"tool_name": None} if record.resource_field == "tool" else {"server_id": None}
            subjects = msgspec.structs.replace(subjects, **several)
        return self._about(record, sequence, request, subjects, outcome, details)

    def _about(
        self,
        record: DecisionRecord | FilterRecord,
        sequence: int,
        request: Request,
        subjects: Subjects,
        outcome: Outcome,
        details: Any,
    ) -> Event:
        event_type, severity, name = _COLUMNS[outcome]
        return Event(
            record.id,
            self._timestamp(record.time_ns),
            self._source,
            sequence,
            event_type,
            severity,
            subjects.user_id,
            subjects.user_email,
            subjects.server_id,
            subjects.tool_name,
            name,
            request.entrypoint.name,
            request.entrypoint.revision,
            subjects.ip_address,
            subjects.user_agent,
            request.request_id,
            details,
        )

    def _timestamp(self, time_ns: int) -> str:
        microsecond = (time_ns - self._second_ns) // 1000
        if not 0 <= microsecond < _MICROSECONDS:
            time_us = min(max(time_ns, 0), _LAST_NS) // 1000
            second, microsecond = divmod(time_us, _MICROSECONDS)
            self._second_ns = second * 1_000_000_000
            self._prefix = datetime.fromtimestamp(second, UTC).isoformat()[:19] + "."
        # Two thirds of what a format costs.
        return self._prefix + str(microsecond).rjust(6, "0") + "Z"


_decoder: Final = msgspec.json.Decoder(Event)


def event_of(payload: bytes) -> Event:
    """The event that a payload holds; raises AuditError where it holds none."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AuditError(f"a payload of {len(payload)} bytes is no audit event: {error}") from error


def _filtered(record: FilterRecord, subjects: Subjects) -> tuple[Outcome, dict[str, Json]]:
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
    origin = record.requests[0].origin
    if origin.identity:
        details["peer"] = origin.identity
    if origin.uid is not None:
        details["peer_uid"] = origin.uid
    details["input"] = {key: value for key, value in common.items() if key != field}
    details["resources"] = resources
    first = (o for o in (Outcome.ALLOW, Outcome.ERROR, Outcome.DENY) if o in outcomes)
    return next(first, Outcome.UNDEFINED), details


def _name(resource: Json, index: int) -> str:
    """What a reader knows a resource by: its id, else its name, else its place in the request."""
    named = resource if type(resource) is dict else {"id": resource}
    return text_of(named.get("id")) or text_of(named.get("name")) or f"#{index}"


def _harmless(value: Json, depth: int) -> Json:
    """The same value with everything replaced that JSON or UTF-8 cannot carry."""
    if depth > _DEEPEST:
        return "(nested too deeply)"
    if isinstance(value, Struct):
        value = {name: below for name, below in msgspec.structs.asdict(value).items() if below is not UNSET}
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
