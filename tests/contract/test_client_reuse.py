"""Answers that the client gives again without asking: only where it is told to, and never beyond their lifetime."""

import threading
import time
from typing import Any

import grpc
import pytest

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import Answer, Question, messages
from sark_pdp.client.reuse import Reuse
from sark_pdp.model import Outcome, Seconds
from tests.fix_client import ALICE, DROP, LOOKUP, SEARCH, Connect, ask, decide, serving


class Counting:
    """A decision point that counts its answers and lets them live."""

    def __init__(self, ttl: float = 300.0, **changes: Any) -> None:
        self.asked = 0
        self._ttl = ttl
        self._changes = changes

    def __call__(self, _method: str, message: bytes, _context: grpc.ServicerContext) -> bytes:
        self.asked += 1
        answer = decide(wire.CheckRequest.FromString(message))
        answer.decision_id = f"decision-{self.asked}"
        answer.cache_ttl.FromNanoseconds(int(self._ttl * 1e9))
        answer.MergeFrom(wire.CheckResponse(**self._changes))
        return answer.SerializeToString()


def test_nothing_is_reused_unless_it_is_asked_for(connect_client: Connect) -> None:
    with serving(counting := Counting()) as address:
        client = connect_client(address, timeout=30)
        assert not any(ask(client).reused for _ in range(3))
    assert counting.asked == 3


def test_an_answer_is_reused_within_its_lifetime_and_says_so(connect_client: Connect) -> None:
    with serving(counting := Counting()) as address:
        client = connect_client(address, timeout=30, reuse=10)
        first, again = ask(client), ask(client)
    assert counting.asked == 1
    assert not first.reused
    assert again.reused
    assert again.allow
    assert again.decision_id == first.decision_id
    assert 0 < again.cache_ttl < first.cache_ttl


def test_a_refusal_is_reused_too(connect_client: Connect) -> None:
    with serving(counting := Counting()) as address:
        client = connect_client(address, timeout=30, reuse=10)
        answers = [client.check(user=ALICE, action="tool:invoke", tool=DROP) for _ in range(2)]
    assert counting.asked == 1
    assert not any(answers)


def test_an_answer_is_not_reused_beyond_its_lifetime(connect_client: Connect) -> None:
    """It is over 50 ms after the question set out, wherever the time went."""
    with serving(counting := Counting(ttl=0.05)) as address:
        client = connect_client(address, timeout=30, reuse=10)
        ask(client)
        threading.Event().wait(0.06)
        assert not ask(client).reused
    assert counting.asked == 2


DIFFERENT: list[dict[str, Any]] = [
    {"user": {"id": "bob"}},
    {"user": {**ALICE, "roles": ["admin"]}},
    {"action": "tool:list"},
    {"tool": DROP},
    {"server": {"id": "docs"}},
    {"parameters": {"query": 1}},
    {"parameters": {"query": 1.0}},
    {"parameters": {"query": True}},
    {"parameters": {"query": "1"}},
    {"parameters": {"query": None}},
    {"parameters": {}},
    {"context": {"client_ip": "10.0.0.1"}},
    {"source_agent": {"id": "a"}},
    {"target_agent": {"id": "a"}},
    {"policy": "sark/mcp/decision"},
    {"request_id": "r-1"},
]


def test_whatever_differs_in_the_question_is_another_question(connect_client: Connect) -> None:
    base: dict[str, Any] = {"user": ALICE, "action": "tool:invoke", "tool": SEARCH}
    with serving(counting := Counting()) as address:
        client = connect_client(address, timeout=30, reuse=100)
        for different in [{}, *DIFFERENT]:
            assert not client.check(**{**base, **different}).reused, different
        assert counting.asked == 1 + len(DIFFERENT)
        for different in [{}, *DIFFERENT]:
            assert client.check(**{**base, **different}).reused, different
    assert counting.asked == 1 + len(DIFFERENT)


@pytest.mark.parametrize("max_age", [0, 0.5, 3600])
def test_a_question_that_bounds_the_age_is_always_asked(connect_client: Connect, max_age: float) -> None:
    """How old an answer was when it came is not known here."""
    with serving(counting := Counting()) as address:
        client = connect_client(address, timeout=30, reuse=10)
        ask(client)
        assert not any(ask(client, max_age=max_age).reused for _ in range(2))
    assert counting.asked == 3


@pytest.mark.parametrize(
    ("ttl", "changes"),
    [
        pytest.param(0.0, {}, id="no lifetime"),
        pytest.param(300.0, {"allow": False, "outcome": wire.OUTCOME_ERROR}, id="an error of the policy"),
        pytest.param(300.0, {"outcome": 99}, id="no valid answer"),
    ],
)
def test_errors_and_answers_without_a_lifetime_are_not_reused(
    connect_client: Connect, ttl: float, changes: dict[str, Any]
) -> None:
    def answer(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        reply = wire.CheckResponse.FromString(counting(method, message, context))
        for name, value in changes.items():
            setattr(reply, name, value)
        return reply.SerializeToString()

    counting = Counting(ttl)
    with serving(answer) as address:
        client = connect_client(address, timeout=30, reuse=10)
        assert not any(ask(client).reused for _ in range(2))
    assert counting.asked == 2


def test_a_decision_point_that_fails_is_not_remembered(connect_client: Connect) -> None:
    failing = True

    def answer(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        if failing:
            context.abort(grpc.StatusCode.INTERNAL, "so it is")
        return counting(method, message, context)

    counting = Counting()
    with serving(answer) as address:
        client = connect_client(address, timeout=30, reuse=10)
        assert not ask(client)
        failing = False
        assert ask(client)


def test_who_changes_what_came_changes_no_answer_to_come(connect_client: Connect) -> None:
    with serving(Counting()) as address:
        client = connect_client(address, timeout=30, reuse=10)
        for _ in range(3):
            answer = client.check(
                user=ALICE, action="tool:invoke", tool=LOOKUP, parameters={"customer": "c", "debug": True}
            )
            assert answer.filtered_parameters == {"customer": "c"}
            assert answer.result == {"allow": True}
            answer.filtered_parameters["customer"] = "all of them"
            answer.result["allow"] = "what else"


def test_a_closed_client_denies_what_it_could_reuse(connect_client: Connect) -> None:
    with serving(Counting()) as address:
        client = connect_client(address, timeout=30, reuse=10)
        assert ask(client)
        client.close()
        assert ask(client).error.startswith("CLOSED: ")


def an_answer(ttl: float = 300.0) -> Answer:
    return Answer(allow=True, reason="", outcome=Outcome.ALLOW, cache_ttl=Seconds(ttl))


def test_at_most_so_many_answers_are_kept_and_the_least_recently_used_goes_first() -> None:
    reuse = Reuse(3)
    checks = [messages.check(Question({"n": number})) for number in range(4)]
    for check in checks[:3]:
        reuse.put(check, an_answer(), time.monotonic())
    assert reuse.get(checks[0])
    reuse.put(checks[3], an_answer(), time.monotonic())
    assert [reuse.get(check) is not None for check in checks] == [True, False, True, True]


def test_the_answer_to_a_long_question_is_not_kept() -> None:
    reuse = Reuse(3)
    check = messages.check(Question({"text": "x" * 20_000}))
    reuse.put(check, an_answer(), time.monotonic())
    assert reuse.get(check) is None


def test_the_lifetime_begins_when_the_question_set_out() -> None:
    """Not when its answer came: the decision point counts from somewhere in between."""
    reuse = Reuse(3)
    check = messages.check(Question({}))
    reuse.put(check, an_answer(10.0), time.monotonic() - 10.0)
    assert reuse.get(check) is None
    reuse.put(check, an_answer(310.0), time.monotonic() - 10.0)
    again = reuse.get(check)
    assert again is not None
    assert 0 < again.cache_ttl <= 300.0
