"""docs/mcp.md as a person would follow it: its examples run against a real process, and say what it says they do."""

import asyncio
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.fix_mcp import connected, served
from tests.fix_serve import Sidecar
from tests.fix_tools import ROOT

PAGE = (ROOT / "docs" / "mcp.md").read_text()
UNTIMED = ('AsyncClient("127.0.0.1:9001", timeout=5)', 'AsyncClient("127.0.0.1:9001")')


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def examples(sidecar: Sidecar) -> list[str]:
    """The Python of the page, for the process of the test, which may be slow."""
    found = blocks("python")
    for text in UNTIMED:
        assert sum(text in block for block in found) == 1
        found = [block.replace(text, f'AsyncClient("{sidecar.grpc}", timeout=60)') for block in found]
    return found


def test_the_guard_inside_a_server(examples: list[str]) -> None:
    """Prints what the page shows."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", examples[0]], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == blocks("text")[0]


def test_the_principal_of_a_token_is_python(examples: list[str]) -> None:
    """Nobody, where there is no token."""
    namespace: dict[str, Any] = {}
    exec(examples[1], namespace)  # noqa: S102  # it is ours
    assert namespace["principal"](None) is None


def test_the_guard_before_an_application(examples: list[str]) -> None:
    """Serves whoever has a name."""
    namespace: dict[str, Any] = {}
    exec(examples[2], namespace)  # noqa: S102  # it is ours

    @namespace["server"].tool()  # type: ignore[untyped-decorator]
    def search_code(query: str) -> str:
        return f"searched {query}"

    @namespace["server"].tool()  # type: ignore[untyped-decorator]
    def drop_database() -> str:
        return "dropped"

    async def session(url: str) -> tuple[list[str], Any]:
        async with connected(url, "bob") as client:
            listed = [tool.name for tool in (await client.list_tools()).tools]
            return listed, (await client.call_tool("search_code", {"query": "TODO"})).structured_content

    with served(namespace["app"]) as url:
        assert asyncio.run(session(f"{url}/mcp")) == (["search_code"], {"result": "searched TODO"})


def test_the_configuration_of_envoy_is_yaml() -> None:
    """And names the filters that tests/e2e/test_mcp_envoy.py runs."""
    body, filters = (yaml.safe_load(block) for block in blocks("yaml"))
    assert body["with_request_body"]["max_request_bytes"] > 0
    assert [each["name"] for each in filters["http_filters"]] == [
        "envoy.filters.http.mcp",
        "envoy.filters.http.ext_authz",
    ]


def test_every_file_that_the_page_links_exists() -> None:
    """Of this repository."""
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
