"""`sark-pdp cache invalidate` against a running process, and against none."""

import json
from collections.abc import Sequence

import pytest
from click.testing import CliRunner, Result

from sark_pdp import cli
from sark_pdp._proto.decision_pb2 import TIER_EVALUATED, TIER_L1, CheckRequest
from tests.fix_native import Channel
from tests.fix_serve import Sidecar


def run(served: Sidecar | None, *arguments: str) -> Result:
    admin = "unix:///nowhere/admin.sock" if served is None else served.admin
    environment = {"HOME": "/nowhere", "XDG_RUNTIME_DIR": None, "XDG_STATE_HOME": None, "COLUMNS": "200"}
    command = ["cache", "invalidate", f"--set=listen.admin={admin}", "--set=state_dir=/nowhere", *arguments]
    return CliRunner().invoke(cli.main, command, env=environment)


@pytest.mark.parametrize(
    ("arguments", "reached"),
    [
        (["--user", "ada"], True),
        (["--user", "bob", "--user", "ada"], True),
        (["--policy", "wire/listed"], True),
        (["--all"], True),
        (["--user", "bob", "--tool", "t1", "--server", "s1", "--tool-name", "query", "--data-root", "catalog"], False),
    ],
)
def test_what_is_named_is_decided_anew(wired: Sidecar, arguments: Sequence[str], reached: bool) -> None:
    document = {"user": {"id": "ada"}, "server": {"id": "s1"}, "tool": {"id": "t1", "name": "query"}}
    asked = CheckRequest(policy="wire/listed", input_json=json.dumps(document).encode())
    with Channel(wired.grpc) as channel:
        channel.check(asked)
        assert channel.check(asked).tier == TIER_L1
        result = run(wired, *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("done: the process that was asked decides it anew; no other one heard of it")
        assert (channel.check(asked).tier == TIER_EVALUATED) is reached


def test_one_json_object_tells_who_hears_of_it(wired: Sidecar) -> None:
    result = run(wired, "--user", "ada", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"shared": False})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what: --user"),
        (["--tool-name", "query"], "--tool-name is the name of a tool of one --server"),
        (["--server", "a", "--server", "b", "--tool-name", "query"], "of one --server"),
        (["--user", ""], "user_id: is empty"),
    ],
)
def test_it_says_in_words_what_is_wrong(wired: Sidecar, arguments: Sequence[str], said: str) -> None:
    result = run(wired, *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_without_a_process_the_exit_code_is_2_and_the_address_is_named() -> None:
    result = run(None, "--all")
    assert result.exit_code == 2
    assert "no process answers on unix:///nowhere/admin.sock" in result.output
