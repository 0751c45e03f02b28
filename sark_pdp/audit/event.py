"""The audit event: what one record becomes, and its payload, the bytes that the chain covers.

A payload is UTF-8 JSON with all columns of the store but `chain` and `payload`. Making one is total: whatever a caller
put into its document, there is an event.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from sark_pdp.audit.filtered import filtered
from sark_pdp.audit.harmless import harmless
from sark_pdp.audit.mask import Changes, Mask
from sark_pdp.audit.subjects import Subjects, subjects_of
from sark_pdp.errors import AuditError
from sark_pdp.model import (
    AuditRecord,
    DecisionRecord,
    Document,
    FilterRecord,
    Json,
    LifecycleRecord,
    Origin,
    Outcome,
    Request,
)

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
_MICROSECONDS = 1_000_000
_LARGEST = 8 << 20
"""Bytes of a payload: more than messages become, but for odd ones, and no more than an audit writer takes."""
_LONGEST_CUT: Final = 1000
"""Characters of a text in an event that would be larger."""
_MOST_HARMLESS: Final = 1024
"""As many as L1 has by default."""
_LONGEST_HARMLESS: Final = 1024
"""Bytes: the whole is below 1.1 MiB."""
_PAUSE: Final = 16 * _MOST_HARMLESS
"""Inputs until it is tried again whether they repeat."""


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
    """Of a decision: reason, tier, age_seconds, latency_ns, action, peer, peer_uid, trace_id, what was erased or
    masked, and input, as the policy saw it."""


class _Details(Struct, frozen=True, gc=False):
    """The details of one decision, to be written: encoding it costs half of what making and encoding a dict does."""

    reason: str
    tier: str
    age_seconds: float
    latency_ns: int
    action: str | UnsetType
    peer: str | UnsetType
    peer_uid: int | UnsetType
    trace_id: str | UnsetType
    erased: list[str] | UnsetType
    masked: list[str] | UnsetType
    input: Document | msgspec.Raw


class Payloads:
    """Makes the payloads of one source. For one thread: it remembers the second that it wrote last."""

    __slots__ = ("_again", "_encode", "_harmless", "_mask", "_prefix", "_second_ns", "_source", "_unlike")

    def __init__(self, source: str, mask: Mask | None = None) -> None:
        self._source = source
        self._mask = mask or Mask()
        self._encode = msgspec.json.Encoder().encode
        # Inputs, as JSON, that nothing would be masked in: what L1 answers again comes here again. At most
        # _MOST_HARMLESS of at most _LONGEST_HARMLESS bytes. None of another kind: secrets shall not outlive their call.
        self._harmless: set[bytes] = set()
        self._again = 0
        """Inputs that were found there since it was empty."""
        self._unlike = 0
        """Inputs that are not looked for there, because those before were all different."""
        self._second_ns = 0
        self._prefix = "1970-01-01T00:00:00."

    def payload(self, record: AuditRecord, sequence: int) -> bytes:
        """The payload of a record at its place in the source; never raises for what a document holds."""
        event = self._decision(record, sequence) if type(record) is DecisionRecord else self._other(record, sequence)
        try:
            encoded = self._encode(event)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Lone surrogates, integers of thousands of digits, too deep, or no JSON at all.
            encoded = self._encode(harmless(event))
        return encoded if len(encoded) <= _LARGEST else self._encode(_without_details(encoded))

    def _decision(self, record: DecisionRecord, sequence: int) -> Event:
        request, decision = record.request, record.decision
        verdict, mask, projected = decision.verdict, self._mask, decision.projected
        if mask.of_columns or mask.of_documents:
            origin, subjects = self._told_by(request)
        else:
            origin = request.origin
            subjects = subjects_of(request.document, origin)
        plain = self._spared(projected)
        details: Any = _Details(
            mask.column("reason", verdict.reason) or "" if mask.of_columns else verdict.reason,
            _TIERS[decision.tier],
            decision.age,
            record.latency_ns,
            UNSET if subjects.action is None else subjects.action,
            origin.identity or UNSET,
            UNSET if origin.uid is None else origin.uid,
            request.trace_id or UNSET,
            UNSET,
            UNSET,
            {} if plain is None else plain,
        )
        if plain is None:
            told = mask.input(projected, changes := Changes([], []))
            details = replace(details, input=told, erased=changes.erased or UNSET, masked=changes.masked or UNSET)
        return self._about(record, sequence, request, subjects, verdict.outcome, details)

    def _spared(self, document: Document) -> Document | msgspec.Raw | None:
        """The input as it is written where nothing in it would be masked; None where something would, or may."""
        mask = self._mask
        if mask.of_documents:
            return None
        if self._unlike:
            self._unlike -= 1
            return document if mask.spares(document) else None
        try:
            # To encode it alone and then as a part costs little more than to encode it as a part.
            encoded = self._encode(document)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return document if mask.spares(document) else None
        if encoded in self._harmless:
            self._again += 1
        elif not mask.spares(document):
            return None
        elif len(encoded) <= _LONGEST_HARMLESS:
            self._remember(encoded)
        return msgspec.Raw(encoded)

    def _remember(self, encoded: bytes) -> None:
        if len(self._harmless) >= _MOST_HARMLESS:
            # Where hardly any came again, to remember them costs more than it saves.
            self._unlike = 0 if self._again >= _MOST_HARMLESS // 2 else _PAUSE
            self._again = 0
            self._harmless.clear()
        self._harmless.add(encoded)

    def _told_by(self, request: Request) -> tuple[Origin, Subjects]:
        """What the transport and the document say of who asks, as far as it may be written."""
        origin, document, mask = request.origin, request.document, self._mask
        if mask.of_columns:
            origin = replace(origin, identity=mask.column("peer", origin.identity) or "")
        if mask.of_documents:
            document = mask.document(document)
        subjects = subjects_of(document, origin)
        if mask.of_columns:
            names = ("user_id", "user_email", "server_id", "tool_name", "ip_address", "user_agent")
            subjects = replace(subjects, **{name: mask.column(name, getattr(subjects, name)) for name in names})
        return origin, subjects

    def _other(self, record: AuditRecord, sequence: int) -> Event:
        if type(record) is FilterRecord:
            return self._filter(record, sequence)
        if type(record) is LifecycleRecord:
            nothing = (None,) * 10
            time = self._timestamp(record.time_ns)
            kind, details = record.event_type, self._mask.lifecycle(record.details)
            return Event(record.id, time, self._source, sequence, kind, record.severity, *nothing, details)
        raise TypeError(f"{type(record).__name__} is no audit record")

    def _filter(self, record: FilterRecord, sequence: int) -> Event:
        request = record.requests[0]
        origin, subjects = self._told_by(request)
        outcome, details = filtered(record, self._mask, origin, subjects)
        if len(record.requests) > 1:
            # One column cannot name them all.
            match record.resource_field:
                case "tool":
                    subjects = replace(subjects, tool_name=None)
                case "server":
                    subjects = replace(subjects, server_id=None)
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
            self._mask.column("request_id", request.request_id) if self._mask.of_columns else request.request_id,
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


def _without_details(payload: bytes) -> Event:
    """Nor longer texts than any column of the store holds."""
    event = _decoder.decode(payload)
    texts = {name: value for name in event.__struct_fields__ if type(value := getattr(event, name)) is str}
    cut = {name: value[:_LONGEST_CUT] for name, value in texts.items() if name != "source"}
    reason = str(event.details.get("reason", ""))[:_LONGEST_CUT]
    left_out = f"details of an event of {len(payload)} bytes"
    return replace(event, **cut, details={"reason": reason, "left_out": left_out})


def event_of(payload: bytes) -> Event:
    """The event that a payload holds; raises AuditError where it holds none."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AuditError(f"a payload of {len(payload)} bytes is no audit event: {error}") from error
