"""What the client sends and what it makes of what comes back, without a connection."""

import json
import math
from types import MappingProxyType

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import Answer, CheckBatch, Filter, Question, failures, messages
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Outcome, Tier

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)
QUESTION = Question({"action": "tool:invoke"}, request_id="r-1")


def a_response(**changes: object) -> wire.CheckResponse:
    fields: dict[str, object] = {"request_id": "r-1", "allow": True, "outcome": wire.OUTCOME_ALLOW, "reason": "yes"}
    return wire.CheckResponse(**(fields | changes))  # type: ignore[arg-type]


def read_check(response: wire.CheckResponse, question: Question = QUESTION) -> Answer:
    return messages.check(question).read(response.SerializeToString())


@given(OBJECTS)
def test_a_document_arrives_as_it_was(document: dict[str, object]) -> None:
    sent = wire.CheckRequest.FromString(messages.check(Question(document)).message)
    assert json.loads(sent.input_json) == document


def test_a_question_about_a_tool_call_is_the_sark_document() -> None:
    question = Question.about(
        user={"id": "alice"},
        action="tool:invoke",
        tool=MappingProxyType({"name": "search", "tags": MappingProxyType({"a": 1})}),
        parameters={},
        policy="sark/mcp/decision",
        max_age=1.5,
        request_id="r-1",
    )
    sent = wire.CheckRequest.FromString(messages.check(question).message)
    assert json.loads(sent.input_json) == {
        "user": {"id": "alice"},
        "action": "tool:invoke",
        "tool": {"name": "search", "tags": {"a": 1}},
        "parameters": {},
    }
    assert (sent.policy, sent.request_id) == ("sark/mcp/decision", "r-1")
    assert sent.max_age.ToMilliseconds() == 1500


@pytest.mark.parametrize(("max_age", "present"), [(None, False), (0, True), (0.0, True)])
def test_no_max_age_and_a_max_age_of_zero_differ(max_age: float | None, present: bool) -> None:
    sent = wire.CheckRequest.FromString(messages.check(Question({}, max_age=max_age)).message)
    assert sent.HasField("max_age") is present


CYCLE: dict[str, object] = {}
CYCLE["self"] = CYCLE
DEEP: dict[str, object] = {}
for _ in range(100_000):
    DEEP = {"x": DEEP}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "document"),
        ("{}", "document"),
        (None, "document"),
        ({"x": math.nan}, "document"),
        ({"x": math.inf}, "document"),
        ({"x": b"bytes"}, "bytes"),
        ({"x": {1, 2}}, "set"),
        ({(1, 2): 3}, "document"),
        ({"x": "\ud800"}, "document"),
        (CYCLE, "document"),
    ],
)
def test_what_is_no_json_object_raises(document: object, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        messages.check(Question(document))  # type: ignore[arg-type]


def test_a_document_that_is_too_deep_to_encode_raises() -> None:
    with pytest.raises(InvalidRequestError, match="document"):
        messages.check(Question(DEEP))


@pytest.mark.parametrize(
    ("question", "named"),
    [
        (Question({}, max_age=-1), "max_age"),
        (Question({}, max_age=math.nan), "max_age"),
        (Question({}, max_age=math.inf), "max_age"),
        (Question({}, max_age=1e300), "max_age"),
        (Question({}, policy=5), "policy"),  # type: ignore[arg-type]
        (Question({}, request_id="\ud800"), "request_id"),
    ],
)
def test_a_malformed_question_raises(question: Question, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        messages.check(question)
    with pytest.raises(InvalidRequestError, match=named):
        messages.check_many([QUESTION, question])


@pytest.mark.parametrize(
    ("field", "resources", "named"),
    [
        ("user", [], "resource_field"),
        ("tool", [{"id": "a"}, {"id": math.nan}], r"resources\[1\]"),
        ("tool", [{"id": 2**53 + 1}], "2\\^53"),
        ("tool", ["search"], r"resources\[0\]"),
    ],
)
def test_a_malformed_filter_raises(field: str, resources: list[object], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        messages.filter_resources(QUESTION, field, resources)  # type: ignore[arg-type]


def test_an_answer_has_all_that_came() -> None:
    response = a_response(
        filtered_parameters={"limit": 10},
        result_json=b'{"allow": true, "big": 12345678901234567890}',
        decision_id="d-1",
        policy_revision="v1",
        tier=wire.TIER_L1,
        cache_ttl={"seconds": 1, "nanos": 500_000_000},
    )
    assert read_check(response) == Answer(
        allow=True,
        reason="yes",
        outcome=Outcome.ALLOW,
        tier=Tier.L1,
        decision_id="d-1",
        policy_revision="v1",
        result={"allow": True, "big": 12345678901234567890},
        filtered_parameters={"limit": 10},
        cache_ttl=1.5,  # type: ignore[arg-type]
        request_id="r-1",
        error=None,
    )


@pytest.mark.parametrize("outcome", [Outcome.DENY, Outcome.UNDEFINED, Outcome.ERROR])
def test_a_denial_that_was_decided_is_no_failure(outcome: Outcome) -> None:
    answer = read_check(a_response(allow=False, outcome=outcome, reason="no"))
    assert (answer.allow, answer.outcome, answer.reason, answer.error) == (False, outcome, "no", None)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\xff\xff\xff", id="no message"),
        pytest.param(b"", id="nothing"),
        pytest.param(a_response(outcome=wire.OUTCOME_DENY).SerializeToString(), id="allow with a denial"),
        pytest.param(a_response(outcome=wire.OUTCOME_UNSPECIFIED).SerializeToString(), id="allow with no outcome"),
        pytest.param(a_response(outcome=77).SerializeToString(), id="an outcome of the future"),
        pytest.param(a_response(allow=False).SerializeToString(), id="a denial with OUTCOME_ALLOW"),
        pytest.param(a_response(request_id="r-2").SerializeToString(), id="the answer to another request"),
        pytest.param(a_response(result_json=b"{").SerializeToString(), id="a result that is no JSON"),
        pytest.param(a_response(result_json=b"[" * 100_000).SerializeToString(), id="a result that is too deep"),
    ],
)
def test_what_is_no_valid_answer_denies(message: bytes) -> None:
    answer = messages.check(QUESTION).read(message)
    assert not answer.allow
    assert answer.outcome is Outcome.ERROR
    assert answer.reason == "the policy decision point gave no valid answer"
    assert answer.error is not None
    assert answer.error.startswith("BAD_ANSWER: ")


@given(st.binary(max_size=200))
def test_no_bytes_raise_or_turn_a_denial_into_an_allow(message: bytes) -> None:
    batch = messages.check_many([QUESTION]).read(message)
    kept = messages.filter_resources(QUESTION, "tool", [{}]).read(message)
    for answer in (messages.check(QUESTION).read(message), *batch.answers, *kept.answers):
        assert answer.allow == (answer.outcome is Outcome.ALLOW)
        assert not (answer.allow and answer.error)


def test_a_tier_of_the_future_does_not_spoil_an_answer() -> None:
    answer = read_check(a_response(tier=77))
    assert answer.allow
    assert answer.tier is None


def test_a_batch_keeps_the_order_and_one_bad_item_fails_alone() -> None:
    questions = [Question({}, request_id=name) for name in ("a", "b", "c", "d")]
    reply = wire.CheckBatchResponse()
    reply.results.add().response.CopyFrom(a_response(request_id="a"))
    error = reply.results.add().error
    error.code, error.message = 3, "document: is no object"
    reply.results.add()
    reply.results.add().response.CopyFrom(a_response(request_id="wrong"))
    batch = messages.check_many(questions).read(reply.SerializeToString())
    assert [answer.allow for answer in batch.answers] == [True, False, False, False]
    assert [answer.error for answer in batch.answers] == [
        None,
        "INVALID_ARGUMENT: document: is no object",
        "BAD_ANSWER: an empty result",
        "BAD_ANSWER: it answers another request",
    ]
    assert batch.error is None


def test_a_batch_of_the_wrong_length_denies_all() -> None:
    reply = wire.CheckBatchResponse()
    reply.results.add().response.CopyFrom(a_response())
    batch = messages.check_many([QUESTION, QUESTION]).read(reply.SerializeToString())
    assert [answer.allow for answer in batch.answers] == [False, False]
    assert batch.error == "BAD_ANSWER: 1 results for 2 questions"


DENIED = {"allow": False, "outcome": wire.OUTCOME_DENY}


@pytest.mark.parametrize(
    ("allowed", "responses", "expected"),
    [
        ([1], [DENIED, {}], (1,)),
        ([], [DENIED, DENIED], ()),
        ([0, 1], [{}, {}], (0, 1)),
        ([0], [DENIED, {}], None),
        ([1, 0], [{}, {}], None),
        ([0, 1, 2], [{}, {}], None),
        ([0], [{}], None),
    ],
)
def test_a_filter_counts_only_where_indices_and_responses_agree(
    allowed: list[int], responses: list[dict[str, object]], expected: tuple[int, ...] | None
) -> None:
    reply = wire.FilterResponse(allowed=allowed, responses=[a_response(**changes) for changes in responses])
    kept = messages.filter_resources(QUESTION, "tool", [{}, {}]).read(reply.SerializeToString())
    assert kept.allowed == (expected or ())
    assert len(kept.answers) == 2
    assert (kept.error is None) == (expected is not None)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_each_status_denies_every_question_of_a_call_with_a_reason(code: grpc.StatusCode) -> None:
    failure = failures.of_status(code, "what the library says")
    one = messages.check(QUESTION).refuse(failure)
    many = messages.check_many([QUESTION, QUESTION]).refuse(failure)
    kept = messages.filter_resources(QUESTION, "tool", [{}, {}, {}]).refuse(failure)
    assert (len(many.answers), len(kept.answers), kept.allowed) == (2, 3, ())
    for answer in (one, *many.answers, *kept.answers):
        assert not answer.allow
        assert answer.outcome is Outcome.ERROR
        assert answer.reason
        assert "library" not in answer.reason
        assert answer.request_id == "r-1"
    assert one.error == many.error == kept.error == f"{code.name}: what the library says"


def test_a_status_with_an_unknown_number_denies() -> None:
    assert failures.of_number(99, "").error == "UNKNOWN"


def test_only_what_allows_is_true_in_a_condition() -> None:
    yes, no = Answer(allow=True, reason="", outcome=Outcome.ALLOW), Answer(allow=False, reason="")
    assert yes
    assert not no
    assert CheckBatch((yes, yes))
    assert not CheckBatch((yes, no))
    assert not CheckBatch(())
    assert Filter((0,), (yes,))
    assert not Filter((), (no,))
