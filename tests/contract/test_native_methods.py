"""What each native method promises of its answers, over real gRPC."""

import json
import queue
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct, Value

from sark_pdp._proto import decision_pb2 as wire
from tests.fix_native import NATIVE, Channel, asking, event, events, failure, metric
from tests.fix_serve import Sidecar

pytestmark = pytest.mark.carried

ALLOW, DENY, ERROR = wire.OUTCOME_ALLOW, wire.OUTCOME_DENY, wire.OUTCOME_ERROR
PARAMETERS = {"query": "x", "debug": True, "auth": {"user": "a", "token": "t"}, "card": [4, 2]}
RESULTS: dict[str, tuple[int, str, Any]] = {
    "allow": (ALLOW, "allowed by the policy", True),
    "deny": (DENY, "denied by the policy", False),
    "object": (ALLOW, "an object", {"allow": True, "reason": "an object", "cache_ttl": 5, "more": [1, None]}),
    "allowed": (ALLOW, "as in opa-envoy-plugin", {"allowed": True, "audit_reason": "as in opa-envoy-plugin"}),
    "silent": (DENY, "the policy returned no decision", {"reason": "no word on allow"}),
    "text": (DENY, "the policy returned no decision", "yes"),
    "number": (DENY, "the policy returned no decision", 42),
    "set": (DENY, "the policy returned no decision", ["a"]),
}
"""By case: outcome, reason, and the whole result."""


@pytest.fixture(scope="module")
def channel(wired: Sidecar) -> Iterator[Channel]:
    with Channel(wired.grpc) as opened:
        yield opened


def owned(*owners: str) -> list[Struct]:
    """Tools of these owners."""
    tools = []
    for index, owner in enumerate(owners):
        tools.append(Struct())
        tools[-1].update({"id": f"tool-{index}", "owner": owner})
    return tools


@pytest.mark.parametrize("case", RESULTS)
def test_each_shape_of_a_result_is_returned_whole_and_only_a_boolean_true_allows(channel: Channel, case: str) -> None:
    outcome, reason, result = RESULTS[case]
    answer = channel.check(case=case)
    assert (answer.outcome, answer.reason, json.loads(answer.result_json)) == (outcome, reason, result)
    assert answer.allow is (outcome == ALLOW)
    assert answer.policy_revision == "wire-1"


def test_one_document_in_each_of_its_forms_is_one_question(channel: Channel) -> None:
    document = {"user": {"id": "alice"}, "tool": {"owner": "alice"}}
    parts: dict[str, Any] = {name: Struct() for name in document}
    for name, fields in document.items():
        parts[name].update(fields)
    whole = Struct()
    whole.update(document)
    forms = [
        wire.CheckRequest(input_json=json.dumps(document).encode()),
        wire.CheckRequest(input=whole),
        wire.CheckRequest(authorization=wire.Authorization(**parts)),
    ]
    for form in forms:
        form.policy = "wire/listed"
    answers = [channel.check(form) for form in forms]
    assert [answer.allow for answer in answers] == [True] * 3
    assert [answer.tier for answer in answers[1:]] == [wire.TIER_L1] * 2


def test_a_request_id_is_echoed_and_audited_or_made(wired: Sidecar, channel: Channel) -> None:
    for given in ("a request", ""):
        answer = channel.check(case="deny", request_id=given)
        assert answer.request_id == given or uuid.UUID(answer.request_id).version == 7
        assert event(wired.spool_dir, answer.decision_id).request_id == answer.request_id


def test_the_decision_id_is_that_of_one_audit_event_for_a_cached_answer_too(wired: Sidecar, channel: Channel) -> None:
    answers = [channel.check(case="object", user={"id": "alice"}, salt="audited") for _ in range(3)]
    assert len({answer.decision_id for answer in answers}) == 3
    for answer in answers:
        assert uuid.UUID(answer.decision_id).version == 7
        recorded = event(wired.spool_dir, answer.decision_id)
        assert recorded.event_type == "authorization_allowed"
        assert (recorded.user_id, recorded.policy_revision) == ("alice", "wire-1")
        assert recorded.details["tier"] == wire.Tier.Name(answer.tier).removeprefix("TIER_").lower()
        # What the policy does not read, it was not given.
        assert recorded.details["input"] == {"case": "object", "salt": "audited"}
    assert [answer.tier for answer in answers] == [wire.TIER_EVALUATED, wire.TIER_L1, wire.TIER_L1]


def test_an_answer_tells_how_long_it_may_be_reused(channel: Channel) -> None:
    """At most as long as L1 keeps it, less where the policy says so, and only what is left."""
    first = channel.check(case="object", salt="reused")
    again = channel.check(case="object", salt="reused")
    assert 0 < again.cache_ttl.ToNanoseconds() < first.cache_ttl.ToNanoseconds() <= 5e9
    assert 5e9 < channel.check(case="allow", salt="reused").cache_ttl.ToNanoseconds() <= 10e9


@pytest.mark.parametrize(
    ("case", "policy"),
    [("uncached", ""), (None, "wire/clock"), ("conflict", "")],
    ids=["cache_ttl of zero", "a policy that reads the clock", "an error"],
)
def test_some_answers_are_never_reused(channel: Channel, case: str | None, policy: str) -> None:
    for _ in range(2):
        answer = channel.check(asking(case, policy))
        assert answer.tier == wire.TIER_EVALUATED
        assert answer.cache_ttl.ToNanoseconds() == 0


def test_max_age_bounds_how_old_an_answer_may_be_and_zero_bypasses_the_cache(wired: Sidecar, channel: Channel) -> None:
    def evaluations() -> float:
        return metric(wired, "sark_policy_evaluation_duration_seconds_count", policy="wire/decide")

    before = evaluations()
    tiers = [
        channel.check(asking("allow", max_age=max_age, salt="aged")).tier for max_age in (None, 3600, 0, 1e-9, None)
    ]
    evaluated, cached = wire.TIER_EVALUATED, wire.TIER_L1
    assert tiers == [evaluated, cached, evaluated, evaluated, cached]
    assert evaluations() - before == 3


def test_parameters_come_back_without_what_the_policy_removes_and_with_marks_for_what_it_redacts(
    channel: Channel,
) -> None:
    for tier in (wire.TIER_EVALUATED, wire.TIER_L1):
        # Applied after the cache: each request has its own parameters.
        answer = channel.check(case="paths", salt="both tiers", parameters={**PARAMETERS, "tier": tier})
        assert answer.tier == tier
        expected = {"query": "x", "auth": {"user": "a"}, "card": "[REDACTED]", "tier": tier}
        assert MessageToDict(answer.filtered_parameters) == expected


@pytest.mark.parametrize(
    ("case", "document", "expected"),
    [
        ("allow", {"parameters": PARAMETERS}, None),
        ("paths", {}, None),
        ("paths", {"parameters": "none"}, {}),
        ("paths", {"parameters": {}}, {}),
        ("paths", {"parameters": {"debug": True}}, {}),
        ("rewritten", {"parameters": PARAMETERS}, {"only": "this"}),
    ],
)
def test_there_are_filtered_parameters_where_the_policy_spoke_of_them(
    channel: Channel, case: str, document: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    answer = channel.check(asking(case, **document))
    assert answer.allow
    assert answer.HasField("filtered_parameters") is (expected is not None)
    assert MessageToDict(answer.filtered_parameters) == (expected or {})


def test_parameters_that_the_answer_cannot_carry_are_refused(channel: Channel) -> None:
    too_large = asking("paths", parameters={"n": 10**400})
    refused = failure(lambda: channel.check(too_large))
    assert (refused.code, refused.details.partition(":")[0]) == ("INVALID_ARGUMENT", "parameters")
    bad, good = channel.batch(too_large, asking("paths", parameters={"n": 1}))
    assert (bad.error.code, good.response.allow) == (3, True)


def test_a_batch_keeps_the_order_and_a_bad_item_fails_alone(wired: Sidecar, channel: Channel) -> None:
    bad = wire.CheckRequest(request_id="bad", input_json=b"[]")
    unknown = asking("allow", policy="wire/nope")
    results = channel.batch(asking("allow", request_id="1"), bad, asking("deny"), unknown, asking("conflict"))
    kinds = [result.WhichOneof("result") for result in results]
    assert kinds == ["response", "error", "response", "error", "response"]
    assert [results[index].response.outcome for index in (0, 2, 4)] == [ALLOW, DENY, ERROR]
    assert results[0].response.request_id == "1"
    assert (results[1].error.code, results[1].error.message) == (3, "input_json: not a JSON object")
    assert results[3].error.code == 5
    assert len({result.response.decision_id for result in results}) == 4
    for index in (0, 2, 4):
        event(wired.spool_dir, results[index].response.decision_id)


@pytest.mark.parametrize("method", ["CheckBatch", "Filter"])
def test_max_batch_bounds_items(channel: Channel, method: str) -> None:
    many: dict[str, Any] = {
        "CheckBatch": wire.CheckBatchRequest(checks=[asking("allow")] * 6),
        "Filter": wire.FilterRequest(template=asking(), resource_field="tool", resources=owned(*"abcdef")),
    }
    refused = failure(lambda: channel.call(NATIVE + method, many[method]))
    field = {"CheckBatch": "checks", "Filter": "resources"}[method]
    assert refused.code == "INVALID_ARGUMENT"
    assert refused.details == f"{field}: 6 items are more than limits.max_batch allows (5)"


def test_an_empty_batch_and_an_empty_filter_have_empty_answers(channel: Channel) -> None:
    assert channel.batch() == []
    assert channel.filter(wire.FilterRequest(template=asking(), resource_field="tool")) == wire.FilterResponse()


@pytest.mark.parametrize("method", ["CheckBatch", "Filter"])
def test_a_malformed_message_is_an_invalid_argument(channel: Channel, method: str) -> None:
    refused = failure(lambda: channel.call(NATIVE + method, b"\x0a\xff\xff"))
    assert (refused.code, refused.details.partition(":")[0]) == ("INVALID_ARGUMENT", "message")


def test_a_stream_answers_in_order_each_as_it_comes_and_outlives_bad_items(wired: Sidecar, channel: Channel) -> None:
    asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = channel.stream(iter(asked.get, None))

    def ask(message: bytes) -> wire.CheckResponse:
        asked.put(message)
        return wire.CheckResponse.FromString(next(answers))

    def said(request: wire.CheckRequest) -> wire.CheckResponse:
        return ask(request.SerializeToString())

    assert said(asking("allow", request_id="first")).request_id == "first"
    bad = {
        "input_json: not a JSON object": wire.CheckRequest(request_id="bad", input_json=b"[]").SerializeToString(),
        "policy: there is no entrypoint": asking("allow", "wire/nope", request_id="bad").SerializeToString(),
        "message: the bytes are not": b"\x0a\xff\xff",
        "the message is larger than limits.max_message_bytes": asking("allow", f="x" * (81 << 10)).SerializeToString(),
    }
    for reason, message in bad.items():
        answer = ask(message)
        assert (answer.outcome, answer.allow, answer.decision_id) == (ERROR, False, "")
        assert answer.reason.startswith(reason)
        assert answer.request_id == ("bad" if b"bad" in message else "")
    last = said(asking("deny"))
    assert last.outcome == DENY
    event(wired.spool_dir, last.decision_id)
    # Messages that come at once are answered in their order, slow ones before quick ones.
    for number, case in enumerate(["timeout", "allow", "deny"]):
        asked.put(asking(case, request_id=str(number)).SerializeToString())
    in_order = [wire.CheckResponse.FromString(next(answers)) for _ in range(3)]
    assert [answer.request_id for answer in in_order] == ["0", "1", "2"]
    assert [answer.outcome for answer in in_order] == [ERROR, ALLOW, DENY]
    asked.put(None)
    assert list(answers) == []
    assert answers.code().name == "OK"


def test_a_decision_that_a_stream_cannot_say_is_recorded_once(wired: Sidecar, channel: Channel) -> None:
    """Known at once or not: what was decided is not decided again to say that it cannot be said."""
    large = asking("paths", request_id=str(uuid.uuid4()), parameters={"number": 10**400})
    answers = channel.stream(iter([large.SerializeToString()] * 3 + [asking("deny").SerializeToString()]))
    *unsaid, last = [wire.CheckResponse.FromString(answer) for answer in answers]
    for answer in unsaid:
        assert (answer.request_id, answer.outcome, answer.allow) == (large.request_id, ERROR, False)
        assert answer.reason == "parameters: a number is too large for filtered_parameters"
    event(wired.spool_dir, last.decision_id)
    assert len([each for each in events(wired.spool_dir) if each.request_id == large.request_id]) == len(unsaid)


@pytest.mark.parametrize("field", ["tool", "server", "resource", "prompt"])
def test_a_filter_names_what_is_allowed_and_is_audited_as_one_event(
    wired: Sidecar, channel: Channel, field: str
) -> None:
    key = "owner_id" if field == "server" else "owner"
    resources = owned("alice", "bob", "alice")
    for resource in resources:
        resource[key] = resource["owner"]
        if field == "resource":
            # What MCP's resources are known by.
            resource["uri"] = resource["id"]
            del resource["id"]
    template = asking(policy="wire/listed", user={"id": "alice"}, action=f"{field}:list", request_id=f"list {field}")
    answer = channel.filter(wire.FilterRequest(template=template, resource_field=field, resources=resources))
    assert list(answer.allowed) == [0, 2]
    assert [response.allow for response in answer.responses] == [True, False, True]
    assert {response.request_id for response in answer.responses} == {f"list {field}"}
    (decision_id,) = {response.decision_id for response in answer.responses}
    recorded = event(wired.spool_dir, decision_id)
    assert recorded.details["resource_field"] == field
    assert recorded.details["allowed"] == ["tool-0", "tool-2"]
    assert [refused["resource"] for refused in recorded.details["refused"]] == ["tool-1"]
    assert [each.id for each in events(wired.spool_dir) if each.request_id == f"list {field}"] == [decision_id]


@pytest.mark.parametrize(
    ("changes", "code", "details"),
    [
        (
            {"resource_field": "user"},
            "INVALID_ARGUMENT",
            "resource_field: must be one of tool, server, resource, prompt",
        ),
        ({"resource_field": ""}, "INVALID_ARGUMENT", "resource_field: must be one of tool, server, resource, prompt"),
        ({"template": None}, "INVALID_ARGUMENT", "template: is missing"),
        ({"template": wire.CheckRequest()}, "INVALID_ARGUMENT", "document: "),
        ({"template": asking(policy="wire/nope")}, "NOT_FOUND", "policy: there is no entrypoint 'wire/nope'"),
        ({"resources": [Struct(fields={"n": Value()})]}, "INVALID_ARGUMENT", "resources[0]: a value has no kind"),
    ],
)
def test_a_bad_filter_is_refused_whole(channel: Channel, changes: dict[str, Any], code: str, details: str) -> None:
    good = {"template": asking(policy="wire/listed"), "resource_field": "tool", "resources": owned("alice")}
    refused = failure(lambda: channel.filter(wire.FilterRequest(**(good | changes))))
    assert refused.code == code
    assert refused.details.startswith(details)


def test_a_resource_counts_for_the_depth_of_the_document_that_it_becomes_part_of(channel: Channel) -> None:
    def filter_nested(levels: int) -> wire.FilterResponse:
        deep: dict[str, Any] = {}
        for _ in range(levels - 1):
            deep = {"a": deep}
        resource = Struct()
        resource.update(deep)
        template = asking(policy="wire/listed")
        return channel.filter(wire.FilterRequest(template=template, resource_field="tool", resources=[resource]))

    assert len(filter_nested(29).responses) == 1
    assert failure(lambda: filter_nested(30)).details.startswith("resources[0]: nested deeper than limits.max_depth")


def test_what_a_policy_does_not_read_does_not_spoil_the_cache(channel: Channel) -> None:
    channel.check(case="allow", salt="same", trace="1")
    assert channel.check(case="allow", salt="same", trace=str(time.time())).tier == wire.TIER_L1
    assert channel.check(case="allow", salt="other", trace="1").tier == wire.TIER_EVALUATED


def test_typed_values_that_look_alike_are_different_questions(channel: Channel) -> None:
    values: list[Any] = [1, 1.0, True, "1", None, [1], {"1": 1}]
    tiers = [channel.check(asking("allow", salt={"typed": value})).tier for value in values]
    assert tiers == [wire.TIER_EVALUATED] * len(values)
