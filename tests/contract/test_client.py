"""What holds for the client and every decision point, over real connections."""

import asyncio
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.client import Answer, AsyncClient, Client, Question
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Outcome, Tier
from tests.fix_client import ALICE, DROP, LOOKUP, POLICY, SEARCH, Connect, ask


@pytest.fixture
def client(connect_client: Connect, pdp_address: str) -> Any:
    return connect_client(pdp_address, timeout=30)


def test_an_allowed_question_is_answered_whole(client: Any) -> None:
    answer = client.check(user=ALICE, action="tool:invoke", tool=SEARCH, policy=POLICY, request_id="r-1")
    assert answer.error is None
    assert answer.allow
    assert answer.outcome is Outcome.ALLOW
    assert isinstance(answer.tier, Tier)
    assert answer.reason
    assert answer.decision_id
    assert answer.policy_revision
    assert answer.request_id == "r-1"
    assert answer.result["allow"] is True
    assert answer.cache_ttl >= 0


def test_a_refused_question_is_a_decision_too(client: Any) -> None:
    answer = client.check(user=ALICE, action="tool:invoke", tool=DROP)
    assert not answer.allow
    assert answer.error is None
    assert answer.outcome is Outcome.DENY
    assert answer.reason
    assert answer.decision_id


def test_check_and_check_input_ask_the_same(client: Any) -> None:
    for tool in (SEARCH, DROP):
        asked = client.check(user=ALICE, action="tool:invoke", tool=tool, max_age=0)
        given = client.check_input({"user": ALICE, "action": "tool:invoke", "tool": tool}, max_age=0)
        assert (asked.allow, asked.reason, asked.result) == (given.allow, given.reason, given.result)


def test_a_request_id_is_made_where_none_is_given(client: Any) -> None:
    assert client.check(user=ALICE, action="tool:invoke", tool=SEARCH).request_id


def test_the_parameters_that_remain_come_back_as_they_were_sent(client: Any) -> None:
    parameters = {"query": "x", "limit": 10, "id": 2**53 + 1, "weights": [1, 0.5, 2.0], "none": None, "deep": {"n": -7}}
    answer = client.check(user=ALICE, action="tool:invoke", tool=LOOKUP, parameters=parameters | {"debug": True})
    assert answer.allow
    assert json.dumps(answer.filtered_parameters, sort_keys=True) == json.dumps(parameters, sort_keys=True)


def test_an_unknown_policy_denies_with_the_cause(client: Any) -> None:
    answer = client.check(user=ALICE, action="tool:invoke", tool=SEARCH, policy="no/such/policy")
    assert not answer.allow
    assert answer.reason == "the policy decision point has no such policy"
    assert answer.error.startswith("NOT_FOUND: ")
    assert "no/such/policy" in answer.error


def test_a_batch_keeps_the_order_and_a_bad_item_fails_alone(client: Any) -> None:
    batch = client.check_many(
        [
            Question.about(user=ALICE, action="tool:invoke", tool=SEARCH, request_id="a"),
            Question.about(user=ALICE, action="tool:invoke", tool=DROP, request_id="b"),
            Question.about(user=ALICE, action="tool:invoke", tool=SEARCH, policy="no/such/policy", request_id="c"),
            Question({"user": ALICE, "action": "tool:invoke", "tool": SEARCH}, request_id="d"),
        ]
    )
    assert batch.error is None
    assert [answer.allow for answer in batch.answers] == [True, False, False, True]
    assert [answer.request_id for answer in batch.answers] == ["a", "b", "c", "d"]
    assert [answer.error is None for answer in batch.answers] == [True, True, False, True]


def test_a_filter_names_the_allowed(client: Any) -> None:
    kept = client.filter(user=ALICE, action="tool:invoke", resources=[DROP, SEARCH, DROP, SEARCH])
    assert kept.error is None
    assert kept.allowed == (1, 3)
    assert [answer.allow for answer in kept.answers] == [False, True, False, True]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_raises(client: Any, timeout: float) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        client.check(user=ALICE, action="tool:invoke", timeout=timeout)


def test_what_cannot_be_sent_raises(client: Any) -> None:
    with pytest.raises(InvalidRequestError, match="document"):
        client.check_input({"x": float("nan")})


def test_a_closed_client_denies(client: Any) -> None:
    assert client.check(user=ALICE, action="tool:invoke", tool=SEARCH)
    client.close()
    client.close()
    answer = client.check(user=ALICE, action="tool:invoke", tool=SEARCH)
    assert not answer.allow
    assert answer.error.startswith("CLOSED: ")


def test_a_client_that_was_never_asked_can_be_closed(client: Any) -> None:
    client.close()
    assert not client.check(user=ALICE, action="tool:invoke", tool=SEARCH)


def test_threads_share_one_client(pdp_address: str) -> None:
    with Client(pdp_address, timeout=30) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: ask(client, request_id=f"r-{n}"), range(200)))
    assert [answer.request_id for answer in answers] == [f"r-{n}" for n in range(200)]
    assert all(answers)


def test_tasks_share_one_client(pdp_address: str) -> None:
    async def main() -> list[Answer]:
        async with AsyncClient(pdp_address, timeout=30) as client:
            asked = [client.check(action="tool:invoke", user=ALICE, tool=SEARCH) for _ in range(200)]
            return await asyncio.gather(*asked)

    assert all(asyncio.run(main()))


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", Path("docs/client.md").read_text(), re.DOTALL))
def test_the_examples_of_the_documentation_run(
    example: str, pdp_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(example.replace("127.0.0.1:9001", pdp_address), "docs/client.md", "exec"), {})  # noqa: S102 - it is ours
    printed = capsys.readouterr().out
    assert printed
    assert "UNAVAILABLE" not in printed


def test_an_async_client_denies_in_another_event_loop(pdp_address: str) -> None:
    client = AsyncClient(pdp_address, timeout=30)

    async def ask_once() -> Answer:
        return await client.check(user=ALICE, action="tool:invoke", tool=SEARCH)

    with asyncio.Runner() as first:
        assert first.run(ask_once()).allow
        with asyncio.Runner() as second:
            answer = second.run(ask_once())
        assert answer.error is not None
        assert answer.error.startswith("OTHER_LOOP: ")
        first.run(client.close())


FORKING = """
import os, sys
from sark_pdp.client import Client

client = Client(sys.argv[1], timeout=30)
tool = {"name": "search_documents", "sensitivity_level": "low"}
if sys.argv[2] == "asked before":
    assert client.check(user={"id": "alice", "roles": ["developer"]}, action="tool:invoke", tool=tool).allow
child = os.fork()
answer = client.check(user={"id": "alice", "roles": ["developer"]}, action="tool:invoke", tool=tool)
if child == 0:
    print("child", answer.allow, answer.error, flush=True)
    client.close()
    os._exit(0)
os.waitpid(child, 0)
print("parent", answer.allow, answer.error)
client.close()
"""


@pytest.mark.parametrize(("when", "child"), [("asked before", "False FORKED: "), ("asked after", "True None")])
def test_a_client_and_a_fork(pdp_address: str, when: str, child: str) -> None:
    run = subprocess.run([sys.executable, "-c", FORKING, pdp_address, when], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    lines = dict(line.split(" ", 1) for line in run.stdout.splitlines())
    assert lines["child"].startswith(child)
    assert lines["parent"] == "True None"
