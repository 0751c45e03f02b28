"""The targets of the Makefile: one command starts the decision point, and what is missing is named."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.fix_serve import Sidecar

ROOT = Path(__file__).parents[2]

# Programs that answer the questions of the Makefile as such an installation does.
NO_PYTHON = "/nonexistent/python3"
OLD_PYTHON = 'case "$2" in *version_info*) exit 1;; esac'
PYTHON_WITHOUT_VENV = 'case "$2" in *ensurepip*) exit 1;; *print*) echo python3.11-venv;; esac'
OLD_GO = 'case "$2" in GOVERSION) echo go1.19.8;; esac'
LOCAL_GO = 'case "$2" in GOVERSION) echo go1.24.1;; GOTOOLCHAIN) echo local;; esac'
FAILING_GO = 'case "$1 $2" in "env GOVERSION") echo go1.99.0;; install*) exit 1;; esac'


def make(*arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=_environment(), capture_output=True, text=True, timeout=100
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the installing targets read, with nothing installed."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def program(folder: Path, body: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_help_describes_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    described = dict(line.split(maxsplit=1) for line in make("help").stdout.splitlines())
    assert sorted(described) == sorted(targets)


def test_run_starts_and_stops_the_decision_point(short_dir: Path, sark_pdp: Path) -> None:
    served = Sidecar(sark_pdp, short_dir, {})
    arguments = " ".join(f"--set={key}={value}" for key, value in served.settings.items())
    # What is installed stays as it is, whatever is newer.
    command = ["make", "--old-file=.venv/.run", "run", f"ARGS={arguments}"]
    with (short_dir / "stdout").open("wb") as output, (short_dir / "stderr").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while "policy revision" not in served.output or not served.ready():
            assert process.poll() is None, served.log
            assert time.monotonic() < deadline, served.log
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    assert not served.ready()
    assert served.grpc in served.output
    assert "sark-pdp check" in served.output


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (None, ["Python 3.11 or newer is needed", NO_PYTHON, "make PYTHON="]),
        (OLD_PYTHON, ["Python 3.11 or newer is needed", "make PYTHON="]),
        (PYTHON_WITHOUT_VENV, ["no venv module", "apt-get install python3.11-venv"]),
    ],
)
def test_run_without_a_usable_python_says_what_to_install(checkout: Path, python: str | None, says: list[str]) -> None:
    path = program(checkout, python) if python else NO_PYTHON
    ended = make("run", f"PYTHON={path}", folder=checkout)
    assert ended.returncode != 0
    assert [part for part in says if part not in ended.stderr] == []
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(("go", "says"), [(None, "no go"), (OLD_GO, "is go1.19.8"), (LOCAL_GO, "is go1.24.1")])
def test_tools_without_a_usable_go_say_what_to_install(checkout: Path, go: str | None, says: str) -> None:
    ended = make("tools", f"GO={program(checkout, go) if go else ''}", folder=checkout)
    assert ended.returncode != 0
    assert "opa is built from source with Go 1.26 or newer" in ended.stderr
    assert says in ended.stderr


def test_a_tool_that_was_not_built_does_not_count_as_installed(checkout: Path) -> None:
    assert make("tools", f"GO={program(checkout, FAILING_GO)}", folder=checkout).returncode != 0
    assert list(checkout.glob(".tools/opa-*")) == []


def _environment() -> dict[str, str]:
    """Without what a surrounding make or decision point has set."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "GO", "ARGS") and not name.startswith("SARK_PDP_")
    }
