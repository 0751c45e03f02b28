"""The README as a person would follow it: each block of `sh` and of `python` is run, against a real process."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.fix_native import wait_until
from tests.fix_serve import Sidecar
from tests.fix_tools import ROOT

README = (ROOT / "README.md").read_text()
NO_ANSWER = "the policy decision point did not answer in time"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], sidecar: Sidecar) -> subprocess.CompletedProcess[str]:
    """Runs it where the README is, with the settings that lead to the process of the test."""
    environment = {
        **os.environ,
        "SARK_PDP_ADDRESS": sidecar.grpc,
        "SARK_PDP_LISTEN__ADMIN": sidecar.admin,
        "SARK_PDP_AUDIT__SPOOL_DIR": str(sidecar.spool_dir),
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def placed(block: str, sidecar: Sidecar, scratch: Path) -> str:
    """The block with the programs, the port and the scratch files of this run."""
    return (
        block.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        .replace("127.0.0.1:9001", sidecar.grpc)
        .replace("127.0.0.1:9002", str(sidecar.settings["listen.http"]))
        .replace("/tmp/my-", f"{scratch}/my-")
    )


@pytest.mark.usefixtures("opa", "ghz")
@pytest.mark.timeout(300)
def test_every_shell_command_of_the_readme_succeeds(sidecar: Sidecar, tmp_path: Path) -> None:
    """In their order, which is that of a first visit."""
    found = blocks("sh")
    assert len(found) >= 6
    for block in found:
        done = run(["bash", "-euo", "pipefail", "-c", placed(block, sidecar, tmp_path)], sidecar)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_what_the_readme_shows_is_what_is_answered(sidecar: Sidecar) -> None:
    """Allowed, refused, filtered: the three examples of the first minute."""
    allowed, refused, filtered = (
        run(["bash", "-c", placed(block, sidecar, Path("/tmp"))], sidecar).stdout for block in blocks("sh")[:3]
    )
    assert "allow" in allowed.split()
    assert "deny" in refused.split()
    assert '"debug"' not in filtered.partition('"filtered_parameters"')[2].partition("}")[0]
    assert '"customer": "c-17"' in filtered


def test_the_python_examples_of_the_readme_run(sidecar: Sidecar, tmp_path: Path) -> None:
    """As a script of its own."""
    found = blocks("python")
    assert found
    for block in found:
        command = [sys.executable, "-c", placed(block, sidecar, tmp_path)]
        done = wait_until(partial(answered, command, sidecar))
        assert done.stdout.startswith("True a role grants")


def answered(command: list[str], sidecar: Sidecar) -> subprocess.CompletedProcess[str] | None:
    """What it printed; None where the question missed its deadline of 0.2 s, as on a busy machine it may."""
    done = run(command, sidecar)
    assert done.returncode == 0, done.stderr
    return None if NO_ANSWER in done.stdout else done


def test_every_file_that_the_readme_links_exists() -> None:
    """Of this repository."""
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
