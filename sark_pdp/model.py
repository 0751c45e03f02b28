"""The values that travel between the layers. All are immutable; a layer that changes one makes a copy."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NewType, Protocol, TypeAlias

from msgspec import Struct

from sark_pdp.projection import Path, Projection

Json: TypeAlias = Any
"""None, bool, int, float, str, list of Json or dict of str to Json."""

Document: TypeAlias = dict[str, Json]
"""What a policy sees as `input`."""

Seconds = NewType("Seconds", float)
"""A length of time."""

Deadline = NewType("Deadline", float)
"""A point on `time.monotonic()`, in seconds."""

NO_DEADLINE = Deadline(float("inf"))

PolicyRevision = NewType("PolicyRevision", str)
"""The revision of a bundle's manifest, or its digest where it has none."""

DecisionId = NewType("DecisionId", str)
"""A UUIDv7: the id of the audit event of a decision."""


class Outcome(IntEnum):
    """How a decision came out; numbered as on the wire."""

    ALLOW = 1
    DENY = 2
    UNDEFINED = 3
    ERROR = 4


class Tier(IntEnum):
    """Where an answer came from; numbered as on the wire."""

    EVALUATED = 1
    L1 = 2
    L2 = 3
    STALE = 4


class Entrypoint(Protocol):
    """One entrypoint of one policy revision: what a request is asked of."""

    @property
    def name(self) -> str:
        """As in `sark/mcp/decision`."""

    @property
    def revision(self) -> PolicyRevision:
        """Of the bundle that it came from."""

    @property
    def projection(self) -> Projection:
        """The part of the input that it can read."""

    @property
    def reads_data(self) -> tuple[Path, ...]:
        """The paths of data that it can read; the empty one is all of it."""

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that change with anything but the input that shapes a result: module, data, settings, name."""

    @property
    def deterministic(self) -> bool:
        """False where its module imports a built-in whose answer depends on more than its arguments."""

    def evaluate(self, input_json: bytes) -> bytes | None:
        """The result as JSON, None where it is undefined; raises EvaluationError."""

    def evaluate_nowait(self, input_json: bytes) -> bytes | None:
        """The same within about 1 ms; raises WouldWaitError where it takes longer, or the input is long."""


class Origin(Struct, frozen=True):
    """Where a request came from, as its transport saw it; empty where it cannot tell."""

    ip_address: str = ""
    user_agent: str = ""
    identity: str = ""
    """The verified identity of the peer: a SAN of its certificate."""
    uid: int | None = None
    """Of the process at the other end of a Unix socket, as the kernel tells; no name, lest it be taken for one."""


class Request(Struct, frozen=True):
    """One question: may this be done?"""

    entrypoint: Entrypoint
    document: Document
    request_id: str
    deadline: Deadline = NO_DEADLINE
    max_age: Seconds | None = None
    """No answer older than this; zero bypasses every cache; None sets no bound."""
    origin: Origin = Origin()
    projected: Document | None = None
    """`entrypoint.projection.project(document)`, where a layer above has taken it already."""
    size: int = 0
    """Bytes of the message that it came in, or its share of them: what its record counts while it waits."""
    as_of: float | None = None
    """On `time.monotonic()`: when the oldest attribute in the document was read; None where none was."""
    stale: bool = False
    """Whether such an attribute is past its lifetime: what is decided on it must not be kept."""
    trace: str = ""
    """The span that the call belongs to, as `traceparent` has it (55 characters), or empty."""

    @property
    def trace_id(self) -> str:
        """Of the trace that the call belongs to: 32 hexadecimal digits, or empty."""
        return self.trace[3:35]


class Verdict(Struct, frozen=True):
    """What a policy said about a projected input: the part of a decision that a cache may keep."""

    outcome: Outcome
    reason: str
    result: Json = None
    """What the entrypoint returned, decoded; None where it is undefined."""
    result_json: bytes = b""
    """The same as the policy returned it; empty where it is undefined."""
    remove_parameters: tuple[tuple[str, ...], ...] | None = None
    """Paths below `parameters` that are taken out of each request; None where the policy said nothing of them."""
    redact_parameters: tuple[tuple[str, ...], ...] | None = None
    """Paths below `parameters` whose values are replaced."""
    filtered_parameters: Mapping[str, Json] | None = None
    """The parameters as the policy itself rewrote them."""
    cache_ttl: Seconds | None = None
    """How long the policy lets this verdict live; zero: not at all; None: it said nothing."""


class Decision(Struct, frozen=True):
    """An answer to one request."""

    id: DecisionId
    verdict: Verdict
    tier: Tier
    projected: Document
    """What the policy was given as its input."""
    age: Seconds = Seconds(0.0)
    """Since the evaluation began."""
    reusable: Seconds = Seconds(0.0)
    """How long the caller may reuse it."""


class DecisionRecord(Struct, frozen=True):
    """What the audit trail is told of one decision."""

    id: DecisionId
    time_ns: int
    """Since the epoch, UTC."""
    request: Request
    decision: Decision
    latency_ns: int
    size: int
    """Bytes that it counts in the queue; what it takes of memory is a multiple."""


class FilterRecord(Struct, frozen=True):
    """What the audit trail is told of one principal, one action and many resources."""

    id: DecisionId
    time_ns: int
    resource_field: str
    """`tool` or `server`."""
    requests: tuple[Request, ...]
    """At least one; they differ in the resource only."""
    decisions: tuple[Decision, ...]
    latency_ns: int
    size: int
    """Bytes that it counts in the queue."""


class LifecycleRecord(Struct, frozen=True):
    """What the audit trail is told of the process itself."""

    id: DecisionId
    time_ns: int
    event_type: str
    """`source_started`, `policy_activated` and so on."""
    severity: str
    details: Mapping[str, Json]
    size: int = 0
    """Bytes that it counts in the queue."""


AuditRecord: TypeAlias = DecisionRecord | FilterRecord | LifecycleRecord
