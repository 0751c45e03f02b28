"""`sark-pdp check` and `sark-pdp status` against a running process, and against none."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sark_pdp import cli
from tests.fix_native import Channel, asking, event, wait_until
from tests.fix_serve import Sidecar, free_port

ALLOWED = '{"case": "allow"}'
OUTCOMES = {"allow": 0, "object": 0, "deny": 1, "text": 1, "nothing known": 1, "conflict": 2, "unusable": 2}
"""The exit code of each."""


def run(command: str, served: Sidecar | None, *arguments: str, text: str = "") -> Result:
    settings = served.settings if served else {"listen.grpc": f"127.0.0.1:{free_port()}", "state_dir": "/nowhere"}
    known = [f"--set={key}={settings[key]}" for key in ("listen.grpc", "listen.admin") if key in settings]
    environment = {"HOME": "/nowhere", "XDG_RUNTIME_DIR": None, "XDG_STATE_HOME": None, "COLUMNS": "200"}
    return CliRunner().invoke(cli.main, [command, *known, *arguments], input=text, env=environment)


@pytest.mark.parametrize("case", OUTCOMES)
def test_the_exit_code_of_check_is_the_decision(wired: Sidecar, case: str) -> None:
    result = run("check", wired, "--json", "--input", json.dumps({"case": case}))
    answer = json.loads(result.stdout)
    assert result.exit_code == OUTCOMES[case]
    assert answer["allow"] is (OUTCOMES[case] == 0)
    assert answer["reason"]
    assert answer["policy_revision"] == "wire-1"
    assert result.stderr == ""


def test_check_prints_a_table_for_people(wired: Sidecar) -> None:
    result = run("check", wired, "--input", '{"case": "paths", "parameters": {"debug": 1, "card": 2, "query": "x"}}')
    assert result.exit_code == 0
    rows = dict(re.split("  +", line.strip(), maxsplit=1) for line in result.stdout.splitlines())
    assert rows["decision"] == "allow"
    assert rows["from"] in {"evaluated", "l1"}
    assert rows["policy revision"] == "wire-1"
    assert json.loads(rows["parameters"]) == {"card": "[REDACTED]", "query": "x"}
    assert event(wired.spool_dir, rows["decision id"]).decision == "allow"


@pytest.mark.parametrize(("command", "arguments"), [("check", ["--input", ALLOWED]), ("status", [])])
def test_in_a_pipe_no_row_is_wrapped(wired: Sidecar, command: str, arguments: Sequence[str]) -> None:
    known = [f"--set={key}={wired.settings[key]}" for key in ("listen.grpc", "listen.admin")]
    narrow, wide = (
        CliRunner().invoke(cli.main, [command, *known, *arguments], env={"COLUMNS": columns}).stdout.splitlines()
        for columns in ("20", "200")
    )
    assert len(narrow) == len(wide)


@pytest.mark.parametrize("source", ["standard input", "-", "file", "itself"])
def test_check_takes_its_input_from_where_it_is_told(wired: Sidecar, tmp_path: Path, source: str) -> None:
    file = tmp_path / "request.json"
    file.write_text(ALLOWED)
    arguments = {
        "standard input": [],
        "-": ["--input", "-"],
        "file": ["--input", str(file)],
        "itself": ["--input", ALLOWED],
    }
    assert run("check", wired, *arguments[source], text=ALLOWED).exit_code == 0


def test_check_asks_the_entrypoint_that_it_is_told(wired: Sidecar) -> None:
    document = '{"user": {"id": "alice"}, "tool": {"owner": "alice"}}'
    result = run("check", wired, "--policy", "wire/listed", "--json", "--input", document)
    assert json.loads(result.stdout)["reason"] == "owned"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "[]"], "--input: expected a JSON object"),
        (["--input", "{"], "--input: expected a JSON object"),
        (["--input", ""], "--input: is empty"),
        (["--input", "/no/such/file.json"], "--input: /no/such/file.json: No such file"),
        (["--input", ALLOWED, "--policy", "wire/nope"], "wire/nope"),
        (["--input", ALLOWED, "--set=limits.nope=1"], "limits.nope: there is no such setting"),
    ],
)
def test_check_says_in_words_what_is_wrong_with_a_question(wired: Sidecar, arguments: Sequence[str], said: str) -> None:
    result = run("check", wired, *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("command", "arguments"), [("check", ["--input", ALLOWED]), ("status", [])])
def test_without_a_process_the_exit_code_is_2_and_the_address_is_named(command: str, arguments: Sequence[str]) -> None:
    result = run(command, None, *arguments)
    assert result.exit_code == 2
    assert "UNAVAILABLE" in result.output
    assert "Traceback" not in result.output


def test_who_may_not_ask_is_told_so(sark_pdp: Path, short_dir: Path) -> None:
    """Not that nobody answers: whoever was told that would start a second one."""
    as_others = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
    path = short_dir / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        command = [*as_others, str(sark_pdp), "status", f"--set=listen.admin=unix://{path}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"sark-pdp: unix://{path}: no permission to connect; ask as the user who runs the process\n"


def status(served: Sidecar) -> Any:
    result = run("status", served, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_status_tells_bundle_caches_and_trail(wired: Sidecar) -> None:
    before = status(wired)
    with Channel(wired.grpc) as channel:
        for _ in range(2):
            channel.check(asking("allow", salt="status"))
    after = wait_until(lambda: _committed(wired, int(before["audit"]["sequence"]) + 2))
    assert (after["serving"], after["problems"]) == (True, [])
    assert [(bundle["name"], bundle["revision"]) for bundle in after["bundles"]] == [("wire", "wire-1")]
    assert int(after["caches"][0]["hits"]) == int(before["caches"][0]["hits"]) + 1
    table = run("status", wired).stdout
    for word in ("serving", "wire-1", "l1", after["audit"]["source"]):
        assert word in table


def _committed(served: Sidecar, sequence: int) -> Any:
    now = status(served)
    return now if int(now["audit"]["sequence"]) >= sequence else None


def test_the_installed_command_answers_too(sark_pdp: Path, wired: Sidecar) -> None:
    asked = [str(sark_pdp), "check", f"--set=address={wired.grpc}", "--input", '{"case": "deny"}']
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "denied by the policy" in ended.stdout
