"""`make demo`: walks through its six requests, and leaves nothing behind, however it ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.fix_native import wait_until
from tests.fix_tools import ROOT

PATIENCE = 110
DEMO = [sys.executable, "-W", "error", "-m", "tests.demo"]


def started(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """In a session of its own, so that what it leaves behind can be found."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_behind(session: int) -> list[str]:
    """What still runs of a session."""
    found = []
    for process in psutil.process_iter(["pid", "name", "status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info["name"])
        except ProcessLookupError:
            continue
    return found


def require_walk(output: str) -> None:
    """Six requests, each with its decision and its event."""
    assert re.findall(r"^(\d)\. ", output, re.MULTILINE) == list("123456")
    decisions = re.findall(r"^decision +(\w+): (.+?) *$", output, re.MULTILINE)
    assert decisions == [
        ("allow", "the method is part of any session"),
        ("allow", "a role grants tools of medium sensitivity in production"),
        ("allow", "a role grants tools of medium sensitivity in production"),
        ("deny", "tools of critical sensitivity need multi-factor authentication"),
        ("deny", "nothing grants tools of medium sensitivity in production"),
        ("deny", "the user is not known"),
    ]
    answers = re.findall(r"^answer +HTTP (\d+): (.+?) *$", output, re.MULTILINE)
    assert [status for status, _ in answers] == ["200"] * 6
    assert answers[1][1] == "searched TODO"
    assert answers[3][1] == f"error -32003, refused by policy: {decisions[3][1]}"
    events = re.findall(r"^audit event +([-0-9a-f]{36}) \((\w+), .*tier (\w+), [0-9.]+ ms\)", output, re.MULTILINE)
    assert [kind for _, kind, _ in events] == ["authorization_allowed"] * 3 + ["authorization_denied"] * 3
    assert len({decision_id for decision_id, _, _ in events}) == 6
    # The second search is the first one's answer, unless that took longer than it may be kept.
    assert events[1][2] == "evaluated"


@pytest.mark.usefixtures("envoy", "sark_pdp")
@pytest.mark.timeout(300)
def test_the_demo_walks_twice() -> None:
    """By `make` and by itself, at the same time: no port and no folder is in the way."""
    runs = [started(["make", "--old-file=.venv/.dev", "demo"]), started(DEMO)]
    for run in runs:
        output, errors = run.communicate(timeout=PATIENCE * 2)
        assert run.returncode == 0, output + errors
        require_walk(output)
        assert left_behind(run.pid) == []


@pytest.mark.usefixtures("envoy", "sark_pdp")
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_ends_what_it_started(told: signal.Signals) -> None:
    """Whenever that is."""
    run = started(DEMO)
    try:
        assert run.stdout is not None
        wait_until(run.stdout.readline, PATIENCE)
        run.send_signal(told)
        output, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == 130, output + errors
        assert "all that was started has ended" in output
        assert left_behind(run.pid) == []
    finally:
        run.kill()


@pytest.mark.parametrize("broken", ["#!/bin/sh\necho no such libc >&2\nexit 1\n", None], ids=["fails", "is missing"])
def test_without_envoy_it_says_what_to_do(broken: str | None, tmp_path: Path) -> None:
    """In a line, before anything is started."""
    program = tmp_path / "envoy"
    if broken is not None:
        program.write_text(broken)
        program.chmod(0o755)
    run = started(DEMO, {"ENVOY": str(program)})
    output, errors = run.communicate(timeout=PATIENCE)
    assert (run.returncode, output) == (2, "")
    assert errors.startswith(f"the demo cannot go on: Envoy ({program}) does not run: ")
    assert "name another one with ENVOY" in errors
    assert len(errors.splitlines()) == 1
    assert left_behind(run.pid) == []
