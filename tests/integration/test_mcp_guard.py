"""The guard before and inside real MCP servers: what clients get, what the server is given, and what fails closed."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
from mcp import Client, MCPError
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from sark_pdp.client import AsyncClient
from sark_pdp.mcp import Guard, McpMiddleware
from sark_pdp.mcp.guard import UNDECIDED
from sark_pdp.mcp.server import ServerGuard, token_user
from tests.fix_mcp import CALLS, MODES, PATIENCE, USERS, a_server, connected, in_header, served, told, wanted
from tests.fix_native import event, events
from tests.fix_serve import Sidecar, free_port

Serving: TypeAlias = Callable[..., Any]


def before(pdp: str, *, json_response: bool, **options: Any) -> Any:
    """The middleware before a server that knows nothing of it."""
    guard = Guard(AsyncClient(pdp, timeout=PATIENCE), **options)
    app = a_server().streamable_http_app(json_response=json_response)
    return McpMiddleware(app, guard=guard, principal=in_header)


def user_of_request(ctx: Any) -> Mapping[str, Any] | None:
    """The same as `in_header`, for a server that is told of the request."""
    return in_header(ctx.request.scope)


def inside(pdp: str, *, json_response: bool, **options: Any) -> Any:
    """The guard inside a server, which is told of the request."""
    guard = Guard(AsyncClient(pdp, timeout=PATIENCE), **options)
    server = a_server(middleware=[ServerGuard(guard, user_of_request)])
    return server.streamable_http_app(json_response=json_response)


PLACES: Mapping[str, tuple[Serving, bool]] = {
    "before a server that answers in JSON": (before, True),
    "before a server that answers in streams": (before, False),
    "inside a server that answers in JSON": (inside, True),
    "inside a server that answers in streams": (inside, False),
}
EVERYWHERE = pytest.mark.parametrize("place", PLACES)


@contextmanager
def guarded(place: str, pdp: str, **options: Any) -> Iterator[str]:
    """The URL of the MCP endpoint."""
    make, json_response = PLACES[place]
    with served(make(pdp, json_response=json_response, **options)) as url:
        yield f"{url}/mcp"


async def listed(client: Client) -> dict[str, list[str]]:
    """All that the client is shown."""
    return {
        "tools": [tool.name for tool in (await client.list_tools()).tools],
        "resources": [str(each.uri) for each in (await client.list_resources()).resources],
        "templates": [each.uri_template for each in (await client.list_resource_templates()).resource_templates],
        "prompts": [prompt.name for prompt in (await client.list_prompts()).prompts],
    }


SHOWN = {
    "bob": {
        "tools": ["search_code", "customer_lookup", "echo"],
        "resources": ["docs://guide", "vault://key"],
        "templates": ["repo://readme/{part}"],
        "prompts": ["summarize", "incident_report"],
    },
    "carol": {
        "tools": ["search_code", "customer_lookup", "echo"],
        "resources": ["docs://guide"],
        "templates": ["repo://readme/{part}"],
        "prompts": ["summarize"],
    },
}
"""Of what a_server has, by the default policies."""


@EVERYWHERE
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("user", SHOWN)
def test_a_guarded_session(user: str, mode: str, place: str, sidecar: Sidecar) -> None:
    """Listings show what may be known of; calls go on with what the policy leaves of their parameters, or raise."""

    async def session(url: str) -> tuple[dict[str, list[str]], list[Any]]:
        async with connected(url, user, mode) as client:
            return await listed(client), [await told(client, case) for case in CALLS]

    with guarded(place, sidecar.grpc) as url:
        shown, answers = asyncio.run(session(url))
    assert shown == SHOWN[user]
    for case, answer in zip(CALLS, answers, strict=True):
        want = wanted(case, user, "guard")
        if not isinstance(want, Mapping):
            assert answer == want, case["name"]
            continue
        assert answer["refused"] == want["refused"], case["name"]
        recorded = event(sidecar.spool_dir, answer["decision_id"])
        assert (recorded.decision, recorded.user_id) == ("deny", user)
        assert recorded.policy_revision == answer["policy_revision"]


@EVERYWHERE
def test_a_listing_is_one_question_and_one_event(place: str, sidecar: Sidecar) -> None:
    """Which names what was shown and what was not."""
    before_it = len(events(sidecar.spool_dir))

    async def session(url: str) -> None:
        async with connected(url, "carol", MODES[1]) as client:
            await client.list_prompts()
            # Comes after it in the trail: what is committed by then is all that there is of the listing.
            answer = await told(client, CALLS[0])
            event(sidecar.spool_dir, answer["decision_id"])

    with guarded(place, sidecar.grpc) as url:
        asyncio.run(session(url))
    (filtered,) = [
        each for each in events(sidecar.spool_dir)[before_it:] if each.details.get("action") == "prompt:list"
    ]
    assert filtered.user_id == "carol"
    assert filtered.details["resource_field"] == "prompt"
    assert filtered.details["allowed"] == ["summarize"]
    assert [each["resource"] for each in filtered.details["refused"]] == ["incident_report"]


@EVERYWHERE
@pytest.mark.parametrize("mode", MODES)
def test_nobody_gets_nothing(place: str, mode: str, sidecar: Sidecar) -> None:
    """Not even a session."""

    async def session(url: str) -> None:
        async with connected(url, None, mode) as client:
            await client.list_tools()

    with (
        guarded(place, sidecar.grpc) as url,
        pytest.RaisesGroup(pytest.RaisesExc(MCPError, match="the request names no user"), flatten_subgroups=True),
    ):
        asyncio.run(session(url))


@pytest.mark.filterwarnings("ignore:ping is removed")
@EVERYWHERE
def test_without_a_decision_point_nothing_is_called_and_nothing_shown(place: str) -> None:
    """And the error says why, so that nobody takes an empty listing for the truth. What asks nothing goes on."""

    async def session(url: str) -> list[MCPError]:
        failures = []
        async with connected(url, "bob", "legacy") as client:
            await client.send_ping()
            for call in (client.list_tools, client.list_resources, client.list_prompts):
                with pytest.raises(MCPError) as failed:
                    await call()
                failures.append(failed.value)
            with pytest.raises(MCPError) as failed:
                await client.call_tool("echo", {"text": "hello"})
            return [*failures, failed.value]

    with guarded(place, f"127.0.0.1:{free_port()}") as url:
        for failure in asyncio.run(session(url)):
            assert failure.code == UNDECIDED
            assert failure.message == failure.data["reason"]
            assert "cannot be reached" in failure.message
            assert "decision_id" not in failure.data


@EVERYWHERE
def test_the_application_tells_what_it_knows(place: str, sidecar: Sidecar) -> None:
    """Of its server and of its tools; and which actions stand for listing."""
    attributes: dict[str, dict[str, Any]] = {"search_code": {"sensitivity_level": "critical"}}

    async def session(url: str) -> list[str]:
        async with connected(url, "bob", MODES[1]) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    def shown(**options: Any) -> list[str]:
        with guarded(place, sidecar.grpc, **options) as url:
            return asyncio.run(session(url))

    assert shown(describe=lambda _, name: attributes.get(name, {})) == ["customer_lookup", "echo"]
    assert shown(server={"id": "s", "visibility": "private"}) == []
    assert shown(server={"id": "s", "owner_id": "bob", "visibility": "private"}) == [
        "search_code",
        "customer_lookup",
        "drop_database",
        "echo",
    ]
    assert shown(actions={"tool:list": "tool:invoke"}) == ["search_code", "customer_lookup", "echo"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_server_without_http_is_guarded_too(mode: str, sidecar: Sidecar) -> None:
    """In the same process here; the principal is the application's to tell."""

    async def session() -> tuple[dict[str, list[str]], Any, Any]:
        async with AsyncClient(sidecar.grpc, timeout=PATIENCE) as pdp:
            server = a_server(middleware=[ServerGuard(Guard(pdp), lambda _: USERS["carol"])])
            async with Client(server, mode=mode, read_timeout_seconds=PATIENCE) as client:
                lookup = {"name": "customer_lookup", "arguments": {"customer": "c", "debug": True}}
                return (
                    await listed(client),
                    await told(client, CALLS[0]),
                    await told(client, {"call": "call_tool", "with": lookup}),
                )

    shown, refused, filtered = asyncio.run(session())
    assert shown == SHOWN["carol"]
    assert refused["refused"] == CALLS[0]["carol"]["refused"]
    assert filtered == "c False "


class Tokens:
    """Verifies the tokens of this test."""

    async def verify_token(self, token: str) -> AccessToken | None:
        """As the SDK asks."""
        if token not in USERS:
            return None
        return AccessToken(token=token, client_id="an-app", scopes=["mcp"], subject=token, claims={"iss": "here"})


def test_the_principal_of_a_verified_token(sidecar: Sidecar) -> None:
    """Is who the SDK says, in each request; what roles he has is the application's to say."""
    seen: list[Any] = []

    def user(ctx: Any) -> Mapping[str, Any] | None:
        of_token = token_user(ctx)
        seen.append(of_token)
        return None if of_token is None else USERS[str(of_token["id"])]

    async def session(url: str, token: str) -> Any:
        async with connected(url, None, "legacy", token=token) as client:
            return [tool.name for tool in (await client.list_tools()).tools], await told(client, CALLS[0])

    here = AnyHttpUrl("http://127.0.0.1")
    guard = Guard(AsyncClient(sidecar.grpc, timeout=PATIENCE))
    server = a_server(
        middleware=[ServerGuard(guard, user)],
        token_verifier=Tokens(),
        auth=AuthSettings(issuer_url=here, resource_server_url=None),
    )
    with served(server.streamable_http_app()) as url:
        assert asyncio.run(session(f"{url}/mcp", "bob")) == (SHOWN["bob"]["tools"], CALLS[0]["bob"])
        shown, refused = asyncio.run(session(f"{url}/mcp", "carol"))
        assert (shown, refused["refused"]) == (SHOWN["carol"]["tools"], CALLS[0]["carol"]["refused"])
    assert {each["id"] for each in seen} == {"bob", "carol"}
    assert seen[0] == {"id": "bob", "client_id": "an-app", "scopes": ["mcp"], "claims": {"iss": "here"}}
