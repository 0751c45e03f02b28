"""docs/http.md as a person would follow it: each command is run, and what stands below it is in the answer."""

import re
import subprocess

import pytest

from tests.fix_serve import Sidecar
from tests.fix_tools import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^# (.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("command", "expected"), BLOCKS, ids=range(len(BLOCKS)))
def test_what_the_page_shows_is_what_is_answered(default_http: Sidecar, command: str, expected: str) -> None:
    placed = command.replace("127.0.0.1:9002", str(default_http.settings["listen.http"]))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", placed], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_every_command_is_run_and_every_endpoint_is_on_the_page() -> None:
    assert len(BLOCKS) == PAGE.count("```sh\n") > 6
    from sark_pdp.transport.http.application import label
    from sark_pdp.transport.http.bodies_described import OPERATIONS

    missing = [it.path for it in OPERATIONS if label(it.path).replace("/{path}", "/{entrypoint}") not in PAGE]
    assert missing == []


def test_every_page_that_it_links_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
