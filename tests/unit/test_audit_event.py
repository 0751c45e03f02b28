"""What a record becomes: the columns, and a payload for whatever a caller may have sent."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from sark_pdp.audit.event import Payloads, event_of
from sark_pdp.audit.mask import Mask
from sark_pdp.audit.subjects import subjects_of
from sark_pdp.errors import AuditError
from sark_pdp.model import (
    Decision,
    DecisionRecord,
    LifecycleRecord,
    Origin,
    Outcome,
    Seconds,
    Tier,
    Verdict,
)
from sark_pdp.projection import Projection
from tests.fix_audit import NOON, a_filter, a_record, a_request, new_id

COLUMNS = [
    *("id", "timestamp", "source", "sequence", "event_type", "severity", "user_id", "user_email", "server_id"),
    *("tool_name", "decision", "policy_id", "policy_revision", "ip_address", "user_agent", "request_id", "details"),
]

SARK = {
    "user": {"id": "u-1", "email": "alice@example.com", "role": "developer"},
    "action": "tool:invoke",
    "tool": {"id": "t-1", "name": "search"},
    "server": {"id": "s-1", "name": "files"},
    "context": {"client_ip": "10.0.0.7"},
    "parameters": {"query": "select"},
}
EXT_AUTHZ = {
    "attributes": {
        "source": {"address": {"socketAddress": {"address": "10.0.0.9", "portValue": 4}}, "principal": "spiffe://a/b"},
        "request": {"http": {"method": "POST", "path": "/mcp", "headers": {"user-agent": "curl/8"}}},
    },
    "parsed_body": {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "search"}},
}


def payload_of(record: Any, sequence: int = 1) -> dict[str, Any]:
    payload = Payloads("pod/boot").payload(record, sequence)
    decoded: dict[str, Any] = json.loads(payload)
    return decoded


def test_a_payload_holds_every_column_but_chain_and_payload() -> None:
    record = a_record(SARK, (("user", "role"), ("tool", "name"), ("tool", "owner")))
    assert list(payload_of(record)) == COLUMNS
    assert payload_of(record, 7) == {
        "id": record.id,
        "timestamp": "2026-01-01T12:00:00.123456Z",
        "source": "pod/boot",
        "sequence": 7,
        "event_type": "authorization_allowed",
        "severity": "low",
        "user_id": "u-1",
        "user_email": "alice@example.com",
        "server_id": "s-1",
        "tool_name": "search",
        "decision": "allow",
        "policy_id": "sark/mcp/decision",
        "policy_revision": "r-1",
        "ip_address": "10.0.0.7",
        "user_agent": None,
        "request_id": "request-1",
        "details": {
            "reason": "because",
            "tier": "l1",
            "age_seconds": 1.5,
            "latency_ns": 1234,
            "action": "tool:invoke",
            # What the policy saw and no more: the parameters were not among it.
            "input": {"user": {"role": "developer"}, "tool": {"name": "search"}},
        },
    }


@pytest.mark.parametrize(
    ("outcome", "decision", "event_type", "severity"),
    [
        (Outcome.ALLOW, "allow", "authorization_allowed", "low"),
        (Outcome.DENY, "deny", "authorization_denied", "medium"),
        (Outcome.UNDEFINED, "undefined", "authorization_denied", "medium"),
        (Outcome.ERROR, "error", "authorization_denied", "high"),
    ],
)
def test_the_outcome_gives_type_and_severity(outcome: Outcome, decision: str, event_type: str, severity: str) -> None:
    event = payload_of(a_record(outcome=outcome))
    assert (event["decision"], event["event_type"], event["severity"]) == (decision, event_type, severity)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (NOON + 999_876_543_211, "2026-01-01T12:16:40.000000Z"),
        (-1, "1970-01-01T00:00:00.000000Z"),
        (10**30, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_timestamp_can_always_be_written(time_ns: int, text: str) -> None:
    assert payload_of(a_record(time_ns=time_ns))["timestamp"] == text


def test_timestamps_of_one_source_are_each_their_own() -> None:
    payloads = Payloads("pod/boot")
    times = [NOON, NOON + 1_000_000_000, NOON, NOON + 60_000_000_000]
    written = [json.loads(payloads.payload(a_record(time_ns=time), 1))["timestamp"][14:19] for time in times]
    assert written == ["00:00", "00:01", "00:00", "01:00"]


ORIGIN = Origin("192.0.2.1", "grpc-go/1", "client.example")


@pytest.mark.parametrize(
    ("document", "found"),
    [
        pytest.param(SARK, ("u-1", "alice@example.com", "s-1", "search", "10.0.0.7", "grpc-go/1"), id="sark"),
        pytest.param(EXT_AUTHZ, ("spiffe://a/b", None, None, "search", "10.0.0.9", "curl/8"), id="ext_authz"),
        pytest.param(
            {**SARK, "attributes": {}},
            ("u-1", "alice@example.com", "s-1", "search", "10.0.0.7", "grpc-go/1"),
            id="sark, attributes that mean nothing",
        ),
        pytest.param({}, ("client.example", None, None, None, "192.0.2.1", "grpc-go/1"), id="nothing"),
        pytest.param(
            {"user": {"id": 7}, "tool_name": "t", "server_name": "s"},
            ("7", None, "s", "t", "192.0.2.1", "grpc-go/1"),
            id="gateway, numeric id",
        ),
        pytest.param(
            {"user": "alice", "tool": "t", "server": "s"},
            ("alice", None, "s", "t", "192.0.2.1", "grpc-go/1"),
            id="bare strings",
        ),
        pytest.param(
            {"source_agent": {"id": "a-1"}, "context": {"user_agent": "x"}},
            ("a-1", None, None, None, "192.0.2.1", "x"),
            id="agent",
        ),
        pytest.param(
            {"user": {"id": {"$ne": 1}, "email": ["a"]}, "tool": [], "server": None, "context": "x"},
            ("client.example", None, None, None, "192.0.2.1", "grpc-go/1"),
            id="wrong types",
        ),
        pytest.param(
            {"user": {"id": True}, "tool": {"name": 2**70}},
            ("client.example", None, None, None, "192.0.2.1", "grpc-go/1"),
            id="no ids",
        ),
        pytest.param(
            {"attributes": {"source": [], "request": {"http": 1}}, "parsed_body": [{"jsonrpc": "2.0"}]},
            ("client.example", None, None, None, "192.0.2.1", "grpc-go/1"),
            id="ext_authz, wrong types",
        ),
        pytest.param(
            {
                "attributes": {"request": {"http": {"method": "GET"}}},
                "parsed_body": {"jsonrpc": "2.0", "method": "prompts/get", "params": {"name": "p"}},
            },
            ("client.example", None, None, None, "192.0.2.1", "grpc-go/1"),
            id="a prompt is no tool",
        ),
    ],
)
def test_subjects_come_from_the_document_then_from_the_transport(
    document: dict[str, Any], found: tuple[str | None, ...]
) -> None:
    it = subjects_of(document, ORIGIN)
    assert (it.user_id, it.user_email, it.server_id, it.tool_name, it.ip_address, it.user_agent) == found


@pytest.mark.parametrize(
    ("document", "action"),
    [
        (SARK, "tool:invoke"),
        (EXT_AUTHZ, "tools/call"),
        ({"attributes": {"request": {"http": {"method": "GET"}}}}, "GET"),
    ],
)
def test_the_action_is_in_the_details(document: dict[str, Any], action: str) -> None:
    assert payload_of(a_record(document))["details"]["action"] == action


def test_a_verified_peer_is_in_the_details() -> None:
    assert payload_of(a_record(SARK, origin=ORIGIN))["details"]["peer"] == "client.example"


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a\0b", id="NUL"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param(2**64, id="65 bits"),
        pytest.param(10**5000, id="5000 digits"),
        pytest.param(float("nan"), id="not a number"),
        pytest.param(float("inf"), id="infinite"),
        pytest.param(b"\xff", id="bytes"),
        pytest.param({1: 2}, id="a key that is no string"),
        pytest.param({(1, 2): 2}, id="a key that JSON has no form for"),
        pytest.param({"\udfff": 1}, id="a key with a lone surrogate"),
        pytest.param(object(), id="an object"),
        pytest.param(nested(100_000), id="too deep"),
    ],
)
@pytest.mark.parametrize("place", ["context", "user", "tool", "server", "source_agent", "attributes", "action"])
def test_whatever_a_document_holds_there_is_an_event(place: str, value: Any) -> None:
    record = a_record({place: value})
    event = event_of(Payloads("pod/boot").payload(record, 3))
    assert (event.id, event.sequence, event.decision) == (record.id, 3, "allow")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["user", "tool", "server", "context", "attributes", "parsed_body", "id", "name", "email", "request", "http"]
)
DOCUMENTS = st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON, max_size=3), max_size=5)


@given(DOCUMENTS)
def test_any_document_becomes_an_event_that_reads_back(document: dict[str, Any]) -> None:
    payload = Payloads("pod/boot").payload(a_record(document), 1)
    event = event_of(payload)
    assert list(json.loads(payload)) == COLUMNS
    assert event.details["reason"] == "because"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def plainly(record: DecisionRecord, sequence: int) -> dict[str, Any]:
    """The payload of a decision, column by column."""
    request, decision = record.request, record.decision
    subjects = subjects_of(request.document, request.origin)
    allowed = decision.verdict.outcome is Outcome.ALLOW
    details = {
        "reason": decision.verdict.reason,
        "tier": decision.tier.name.lower(),
        "age_seconds": decision.age,
        "latency_ns": record.latency_ns,
        "action": subjects.action,
        "peer": request.origin.identity or None,
        "peer_uid": request.origin.uid,
        "input": decision.projected,
    }
    time = datetime.fromtimestamp(record.time_ns // 1_000_000_000, UTC).replace(
        microsecond=record.time_ns // 1000 % 10**6
    )
    return {
        "id": record.id,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "source": "pod/boot",
        "sequence": sequence,
        "event_type": "authorization_allowed" if allowed else "authorization_denied",
        "severity": {"ALLOW": "low", "ERROR": "high"}.get(decision.verdict.outcome.name, "medium"),
        "user_id": subjects.user_id,
        "user_email": subjects.user_email,
        "server_id": subjects.server_id,
        "tool_name": subjects.tool_name,
        "decision": decision.verdict.outcome.name.lower(),
        "policy_id": request.entrypoint.name,
        "policy_revision": request.entrypoint.revision,
        "ip_address": subjects.ip_address,
        "user_agent": subjects.user_agent,
        "request_id": request.request_id,
        "details": {
            key: value
            for key, value in details.items()
            if key not in {"action", "peer", "peer_uid"} or value is not None
        },
    }


@pytest.mark.parametrize(
    "document", [{"user": {"id": "\x01" * (4 << 20)}}, {"a": ["x" * (1 << 20)] * 9}], ids=["who", "what"]
)
def test_an_event_is_never_larger_than_an_audit_writer_takes(document: dict[str, Any]) -> None:
    """What is asked is left out then, and who asks is cut."""
    payload = Payloads("pod/b").payload(a_record(document), 1)
    assert len(payload) < 100_000
    assert event_of(payload).details["left_out"].startswith("details of an event of ")


@given(
    DOCUMENTS,
    st.builds(Origin, TEXTS, TEXTS, TEXTS, st.none() | st.integers(0, 2**32 - 1)),
    st.builds(Verdict, st.sampled_from(Outcome), TEXTS),
    st.sampled_from(Tier),
    st.floats(0, 1e6).map(Seconds),
    st.integers(0, 4_000_000_000_000_000_000),
    TEXTS,
)
def test_a_payload_is_what_its_columns_are_written_one_by_one(
    document: dict[str, Any],
    origin: Origin,
    verdict: Verdict,
    tier: Tier,
    age: Seconds,
    time_ns: int,
    request_id: str,
) -> None:
    assume(Mask().spares(document))
    request = replace(a_request(document, origin=origin), request_id=request_id)
    decision = Decision(new_id(), verdict, tier, document, age)
    record = DecisionRecord(decision.id, time_ns, request, decision, 1234, 0)
    payload = Payloads("pod/boot").payload(record, 5)
    try:
        expected = msgspec.json.encode(plainly(record, 5))
    except (TypeError, ValueError, OverflowError, RecursionError):
        # What JSON cannot carry is replaced, and everything else stays as it is.
        event = json.loads(payload)
        assert list(event) == COLUMNS
        assert (event["id"], event["details"]["reason"]) == (record.id, verdict.reason)
    else:
        assert payload == expected


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.sampled_from(["tool", "server"]))
def test_any_filtered_documents_become_one_event(documents: list[Any], field: str) -> None:
    event = event_of(Payloads("pod/boot").payload(a_filter(field, documents, lambda _: Outcome.DENY), 1))
    assert len(event.details["refused"]) == len(event.details["resources"]) == len(documents)


def test_a_filter_names_the_allowed_and_the_refused_in_one_event() -> None:
    tools: list[Any] = [{"id": "t-1"}, {"name": "shell"}, "t-3", {}]
    outcomes = [Outcome.ALLOW, Outcome.DENY, Outcome.ALLOW, Outcome.ERROR]
    record = a_filter("tool", [{**SARK, "tool": tool} for tool in tools], outcomes.__getitem__)
    event = payload_of(record)
    assert event["id"] == record.id
    assert (event["decision"], event["event_type"], event["severity"]) == ("allow", "authorization_allowed", "low")
    assert (event["user_id"], event["server_id"], event["tool_name"]) == ("u-1", "s-1", None)
    assert event["details"]["allowed"] == ["t-1", "t-3"]
    assert event["details"]["refused"] == [
        {"resource": "shell", "decision": "deny", "reason": "because"},
        {"resource": "#3", "decision": "error", "reason": "because"},
    ]
    assert event["details"]["reason"] == "2 of 4 allowed"
    # Put together again they are the input of each decision.
    assert event["details"]["resources"] == tools
    assert event["details"]["input"] == {key: value for key, value in SARK.items() if key != "tool"}


@pytest.mark.parametrize(
    ("outcomes", "decision"),
    [
        ([Outcome.DENY, Outcome.DENY], "deny"),
        ([Outcome.DENY, Outcome.ERROR], "error"),
        ([Outcome.UNDEFINED, Outcome.UNDEFINED], "undefined"),
        ([Outcome.UNDEFINED, Outcome.DENY], "deny"),
    ],
)
def test_a_filter_that_lets_nothing_through_is_a_denial(outcomes: list[Outcome], decision: str) -> None:
    event = payload_of(a_filter("server", [SARK, SARK], outcomes.__getitem__))
    assert (event["decision"], event["event_type"]) == (decision, "authorization_denied")
    assert (event["server_id"], event["tool_name"]) == (None, "search")


def test_a_lifecycle_record_is_written_as_it_is() -> None:
    record = LifecycleRecord(new_id(), NOON, "policy_activated", "low", {"revision": "r-2"})
    event = payload_of(record)
    assert list(event) == COLUMNS
    assert (event["event_type"], event["severity"], event["details"]) == (
        "policy_activated",
        "low",
        {"revision": "r-2"},
    )
    assert {event[name] for name in COLUMNS[6:-1]} == {None}
    assert uuid.UUID(event["id"]).version == 7


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"id":1}'], ids=range(5))
def test_bytes_that_are_no_event_are_refused(payload: bytes) -> None:
    with pytest.raises(AuditError, match="no audit event"):
        event_of(payload)


KEYS = st.sampled_from("abc")


@given(
    st.lists(st.lists(KEYS, min_size=1, max_size=3).map(tuple), max_size=6),
    st.dictionaries(
        KEYS, st.recursive(st.integers(0, 9), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
    ),
)
def test_the_input_of_an_event_is_what_the_policy_saw(paths: list[tuple[str, ...]], document: dict[str, Any]) -> None:
    record = a_record(document, tuple(paths) or ((),))
    projection = record.request.entrypoint.projection
    seen = payload_of(record)["details"]["input"]
    assert projection.project(seen) == record.decision.projected == projection.project(document)


def test_what_is_absent_from_the_input_is_absent_from_the_event() -> None:
    request = a_request({"user": {"id": None}}, (("user", "id"), ("user", "role"), ("tool",)))
    assert isinstance(request.entrypoint.projection, Projection)
    details = payload_of(a_record(request.document, request.entrypoint.projection.paths))["details"]
    assert details["input"] == {"user": {"id": None}}
