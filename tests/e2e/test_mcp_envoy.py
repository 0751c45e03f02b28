"""A real MCP server behind the real Envoy, which asks the real sidecar, and a real MCP client before it."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from mcp import MCPError

from tests.fix_envoy import Envoy, Response, running_envoy
from tests.fix_mcp import CALLS, MODES, a_server, connected, served, told, wanted
from tests.fix_native import event
from tests.fix_serve import Sidecar

FILTER = {
    "name": "envoy.filters.http.mcp",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.mcp.v3.Mcp",
        "max_request_body_size": 65536,
    },
}
READ_BY_FILTER = {"metadata_context_namespaces": ["envoy.filters.http.mcp"]}
WAYS: Mapping[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "the body": ({}, []),
    "what Envoy's filter read of it": ({**READ_BY_FILTER, "with_request_body": None}, [FILTER]),
    "both": (READ_BY_FILTER, [FILTER]),
}
"""What the sidecar is told of a message: fields of the ext_authz filter, and what comes before it."""

HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2025-06-18",
}


class Shop(NamedTuple):
    """One way from the client to the server."""

    envoy: Envoy
    sidecar: Sidecar
    streams: bool

    @property
    def url(self) -> str:
        """The MCP endpoint, behind Envoy."""
        return f"http://127.0.0.1:{self.envoy.port}/mcp"

    def post(self, user: str, message: Any, **headers: str) -> Response:
        """A message, without a client of MCP."""
        sent = {**HEADERS, "x-sark-user": user, **headers}
        return self.envoy.request("POST", "/mcp", sent, json.dumps(message).encode())


@contextmanager
def shops(envoy: Path, sidecar: Sidecar, way: str, *, streams: bool) -> Iterator[Shop]:
    filter_, before = WAYS[way]
    with ExitStack() as stack:
        # Sessions of their own, and answers in JSON or as streams of events.
        server = stack.enter_context(served(a_server().streamable_http_app(json_response=not streams)))
        port = urlsplit(server).port
        proxy = stack.enter_context(
            running_envoy(envoy, sidecar.grpc, {"failure_mode_allow": True, **filter_}, before, port)
        )
        yield Shop(proxy, sidecar, streams)


@pytest.fixture(scope="module", params=[*WAYS], ids=str)
def shop(request: pytest.FixtureRequest, envoy: Path, sidecar: Sidecar) -> Iterator[Shop]:
    """Told in each way; the last one answers in JSON."""
    with shops(envoy, sidecar, request.param, streams=request.param != "both") as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("user", ["bob", "carol"])
def test_a_session_through_envoy(user: str, mode: str, shop: Shop) -> None:
    """What is allowed is answered by the server; what is not is an error with the reason and a decision in the audit.

    The session lives on, and lists all that there is: Envoy does not look into answers.
    """

    async def session() -> list[Any]:
        async with connected(shop.url, user, mode) as client:
            assert len((await client.list_tools()).tools) == 4
            assert len((await client.list_resources()).resources) == 2
            assert len((await client.list_resource_templates()).resource_templates) == 1
            assert len((await client.list_prompts()).prompts) == 2
            return [await told(client, case) for case in CALLS]

    answers = asyncio.run(session())
    for case, answer in zip(CALLS, answers, strict=True):
        want = wanted(case, user, "envoy")
        if not isinstance(want, Mapping):
            assert answer == want, case["name"]
            continue
        assert answer["refused"] == want["refused"], case["name"]
        recorded = event(shop.sidecar.spool_dir, answer["decision_id"])
        assert (recorded.decision, recorded.policy_id) == ("deny", "envoy/authz/allow")
        assert recorded.policy_revision == answer["policy_revision"]
        assert recorded.details["reason"] == want["refused"]


def test_progress_comes_while_a_call_is_under_way(shop: Shop) -> None:
    """Where the server answers with a stream of events."""
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async def session() -> None:
        async with connected(shop.url, "bob", "legacy") as client:
            await client.call_tool("echo", {"text": "hello"}, progress_callback=note)

    asyncio.run(session())
    assert seen == ([1.0] if shop.streams else [])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("user", "reason"),
    [(None, "the request names no user"), ("eve", "the user is not known"), ("mallory", "the user is suspended")],
)
def test_a_session_of_nobody_does_not_begin(user: str | None, reason: str, mode: str, shop: Shop) -> None:
    """And the client says why: at the first call, where there is no handshake."""

    async def session() -> None:
        async with connected(shop.url, user, mode) as client:
            await client.list_tools()

    with pytest.RaisesGroup(pytest.RaisesExc(MCPError, match=reason), flatten_subgroups=True):
        asyncio.run(session())


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        ({"jsonrpc": "2.0", "id": 7, "method": "tools/delete"}, 200, "the MCP method is not known"),
        ({"jsonrpc": "2.0", "id": "a", "method": "tasks/get", "params": {}}, 200, "the MCP method is not known"),
        ({"jsonrpc": "2.0", "method": "notifications/unknown"}, 403, "the MCP method is not known"),
        ({"jsonrpc": "2.0", "id": 7, "method": "tools/call"}, 200, "what the message asks for is not known"),
        ([{"jsonrpc": "2.0", "id": 7, "method": "ping"}], 403, "the body is not one JSON-RPC 2.0 message"),
        (
            {"jsonrpc": "2.0", "id": 7, "method": "resources/subscribe", "params": {"uri": "file:///etc/motd"}},
            200,
            "resources of high sensitivity need multi-factor authentication",
        ),
    ],
    ids=["an unknown method", "a task", "an unknown notification", "a call of nothing", "a batch", "a subscription"],
)
def test_a_message_that_is_refused_does_not_reach_the_server(
    message: Any, status: int, reason: str, shop: Shop
) -> None:
    """The answer is one of JSON-RPC, under the id of what has one."""
    response = shop.post("bob", message)
    assert response.status == status
    assert response.header("content-type") == ["application/json"]
    answer = response.json()
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", message["id"] if status == 200 else None)
    assert answer["error"]["data"]["reason"] == reason
    assert event(shop.sidecar.spool_dir, answer["error"]["data"]["decision_id"]).details["reason"] == reason


def test_a_session_belongs_to_a_user_who_is_known(shop: Shop) -> None:
    """It begins, is notified, streams and ends; nobody else may do any of this."""
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    }
    begun = shop.post("bob", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    assert begun.status == 200
    (session,) = begun.header("mcp-session-id")
    of_session = {"mcp-session-id": session}
    notified = shop.post("bob", {"jsonrpc": "2.0", "method": "notifications/initialized"}, **of_session)
    assert notified.status == 202
    answered = shop.post("bob", {"jsonrpc": "2.0", "id": 99, "result": {}}, **of_session)
    assert answered.status == 202
    for method in ("GET", "DELETE"):
        refused = shop.envoy.request(method, "/mcp", {**HEADERS, **of_session, "x-sark-user": "eve"})
        assert refused.status == 403
        assert refused.json()["error"]["data"]["reason"] == "the user is not known"
    ended = shop.envoy.request("DELETE", "/mcp", {**HEADERS, **of_session, "x-sark-user": "bob"})
    assert ended.status == 200
    assert shop.post("bob", {"jsonrpc": "2.0", "id": 2, "method": "ping"}, **of_session).status == 404


def calls_of(*names: str, arguments: str = "") -> bytes:
    """A call of several tools at once, of which servers take the last."""
    text = ", ".join(json.dumps(name) for name in names)
    named = ", ".join(f'"name": {name}' for name in text.split(", "))
    filler = json.dumps({"text": arguments})
    return (
        f'{{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {{"arguments": {filler}, {named}}}}}'.encode()
    )


def test_of_two_names_the_one_is_judged_that_the_server_takes(shop: Shop) -> None:
    """Whoever reads the message."""
    headers = {**HEADERS, "x-sark-user": "bob"}
    answer = shop.envoy.request("POST", "/mcp", headers, calls_of("echo", "drop_database")).json()
    assert answer["error"]["data"]["reason"] == "tools of critical sensitivity need multi-factor authentication"


@pytest.mark.parametrize("shop", ["the body", "both"], indirect=True)
@pytest.mark.parametrize(
    "twin",
    [
        {"Method": "tools/call"},
        {"Params": {"name": "drop_database"}},
        {"params": {"name": "echo", "Name": "drop_database"}},
    ],
    ids=["a method", "parameters", "a name"],
)
def test_what_some_servers_take_for_another_name_does_not_reach_them(twin: dict[str, Any], shop: Shop) -> None:
    """Where the body is sent."""
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo"}, **twin}
    answer = shop.post("bob", message).json()
    assert answer["error"]["data"]["reason"] == (
        "the message has a member that differs in capitals only from one that is judged"
    )


@pytest.mark.parametrize("shop", ["what Envoy's filter read of it", "both"], indirect=True)
def test_envoys_filter_reads_bodies_that_are_not_sent_on(shop: Shop) -> None:
    """And one that is longer than the filter reads is refused."""
    headers = {**HEADERS, "x-sark-user": "bob"}
    long = shop.envoy.request("POST", "/mcp", headers, calls_of("drop_database", arguments="x" * 20_000))
    assert long.json()["error"]["data"]["reason"] == "tools of critical sensitivity need multi-factor authentication"
    allowed = shop.envoy.request("POST", "/mcp", headers, calls_of("echo", arguments="x" * 20_000))
    # The server wants a session.
    assert allowed.status == 400
    assert "session" in allowed.json()["error"]["message"].lower()
    longer = shop.envoy.request("POST", "/mcp", headers, calls_of("echo", arguments="x" * 100_000))
    # Its id was read, and tells the client which call it was.
    assert (longer.status, longer.json()["id"]) == (200, 7)
    assert longer.json()["error"]["data"]["reason"] in {
        "the body did not arrive whole",
        "the body is not one JSON-RPC 2.0 message",
    }
