"""Answers are joined of encoded pieces; whoever reads them must not be able to tell."""

from typing import Any

import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from hypothesis import example, given
from hypothesis import strategies as st

from sark_pdp._proto.decision_pb2 import CheckBatchResult, CheckResponse
from sark_pdp.model import Decision, DecisionId, Outcome, PolicyRevision, Request, Seconds, Tier, Verdict
from sark_pdp.projection import Projection
from sark_pdp.transport import wire
from sark_pdp.transport.remembered import Remembered
from sark_pdp.transport.responses import Responses
from tests.fix_audit import FakeEntrypoint

DECISION_ID = DecisionId("01890a5d-ac96-774b-bcce-b302099a8057")

TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
PARAMETERS = st.none() | st.dictionaries(TEXT, st.booleans() | TEXT, max_size=3)
VERDICTS = st.builds(
    Verdict,
    st.sampled_from(Outcome),
    TEXT,
    result_json=st.binary(max_size=300),
    filtered_parameters=PARAMETERS,
)


@given(
    verdict=VERDICTS,
    tier=st.sampled_from(Tier),
    request_id=TEXT,
    revision=TEXT,
    reusable=st.floats(0, 1e9),
)
@example(Verdict(Outcome.DENY, ""), Tier.L1, "", "", 0.0)
def test_an_answer_is_the_message_that_protobuf_would_have_made(
    verdict: Verdict, tier: Tier, request_id: str, revision: str, reusable: float
) -> None:
    entrypoint = FakeEntrypoint(Projection([()]), revision=PolicyRevision(revision))
    request = Request(entrypoint, {"parameters": {"kept": 1}}, request_id)
    decision = Decision(
        DecisionId("01890a5d-ac96-774b-bcce-b302099a8057"), verdict, tier, {}, reusable=Seconds(reusable)
    )
    responses = Responses()
    for _ in range(2):
        response = CheckResponse.FromString(responses.encode(request, decision))
        assert (response.request_id, response.decision_id) == (request_id, decision.id)
        assert (response.allow, response.reason) == (verdict.outcome is Outcome.ALLOW, verdict.reason)
        assert (int(response.outcome), int(response.tier)) == (int(verdict.outcome), int(tier))
        assert (response.result_json, response.policy_revision) == (verdict.result_json, revision)
        assert response.HasField("cache_ttl")
        assert response.cache_ttl.ToNanoseconds() == int(reusable * 1e9)
        assert response.HasField("filtered_parameters") is (verdict.filtered_parameters is not None)
        assert MessageToDict(response.filtered_parameters) == (verdict.filtered_parameters or {})


@given(st.integers(0, 2**63 - 1), st.integers(1, 2**29 - 1))
@example(127, 1)
@example(128, 15)
@example(16_384, 16)
def test_numbers_are_written_as_protobuf_reads_them(number: int, field: int) -> None:
    encoded = wire.integer(field, number)
    tag, rest = _read(encoded)
    value, rest = _read(rest)
    assert (tag, value, rest) == (field << 3, number, b"")
    assert _read(wire.tag(field)) == (field << 3 | 2, b"")


def _read(encoded: bytes) -> tuple[int, bytes]:
    value = shift = 0
    for index, byte in enumerate(encoded):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, encoded[index + 1 :]
    raise AssertionError(encoded)


@given(st.floats(0, 3e11))
@example(0.0)
@example(0.999999999)
@example(127.5)
@example(128.0)
def test_a_duration_is_read_to_the_nanosecond(seconds: float) -> None:
    assert Duration.FromString(wire.duration(seconds)).ToNanoseconds() == int(seconds * 1e9)


@given(st.binary(max_size=300))
def test_a_message_within_another_is_read_back(reason: bytes) -> None:
    inner = CheckResponse(result_json=reason)
    tag = wire.tag(CheckBatchResult.RESPONSE_FIELD_NUMBER)
    assert CheckBatchResult.FromString(wire.embedded(tag, inner.SerializeToString())).response == inner


class Counting:
    """Makes a text of a verdict and a revision, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, verdict: Verdict, revision: PolicyRevision) -> str:
        self.made += 1
        return f"{verdict.reason} {revision}"


def a_verdict(reason: Any, length: int = 4) -> Verdict:
    return Verdict(Outcome.ALLOW, str(reason), True, msgspec.json.encode("x" * length))


def test_what_was_made_of_a_verdict_is_made_once_for_each_revision() -> None:
    make = Counting()
    remembered = Remembered(make)
    verdict, other = a_verdict("a"), a_verdict("b")
    for revision in ("r1", "r2", "r2", "r1"):
        assert remembered.get(verdict, PolicyRevision(revision)) == f"a {revision}"
        assert remembered.get(other, PolicyRevision("r1")) == "b r1"
    assert make.made == 4


@pytest.mark.parametrize(("length", "made"), [(1000, 1), (2000, 3)])
def test_what_is_long_is_made_each_time(length: int, made: int) -> None:
    """What is kept is bounded by its number, and so must be its size."""
    make = Counting()
    remembered = Remembered(make)
    verdict = a_verdict("a", length)
    assert [remembered.get(verdict, PolicyRevision("r")) for _ in range(3)] == ["a r"] * 3
    assert make.made == made


def test_an_error_takes_no_place() -> None:
    """Whoever sees to it that a policy fails again and again must not make the answers to others dear."""
    make = Counting()
    remembered = Remembered(make)
    usual = a_verdict("usual")
    for number in range(3000):
        assert remembered.get(Verdict(Outcome.ERROR, str(number)), PolicyRevision("r")) == f"{number} r"
        assert remembered.get(usual, PolicyRevision("r")) == "usual r"
    assert make.made == 3001


def test_what_is_kept_does_not_grow_without_end_and_is_never_mixed_up() -> None:
    """Most of these verdicts are gone by the time that others come, and their addresses with them."""
    remembered = Remembered(Counting())
    for number in range(5000):
        assert remembered.get(a_verdict(number), PolicyRevision("r")) == f"{number} r"
        assert len(remembered._known) <= 1024
