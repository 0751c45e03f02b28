"""The middleware on the wire: whatever is posted, and whatever a server answers, in JSON or in a stream of events."""

import asyncio
import gzip
import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from mcp.server.streamable_http import EventMessage, EventStore

from sark_pdp.client import AsyncClient
from sark_pdp.mcp import Guard, McpMiddleware
from sark_pdp.mcp.guard import Caller
from sark_pdp.mcp.responses import GuardedSend
from tests.fix_envoy import Response
from tests.fix_mcp import PATIENCE, USERS, a_server, in_header, served
from tests.fix_serve import Sidecar

MESSAGES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "mcp" / "messages.yaml").read_text())
MOST = 50_000
"""Bytes of an answer."""
JSON = "application/json"
EVENTS = "text/event-stream"

LISTED = {"tools": [{"name": "echo"}, {"name": "drop_database"}, {"name": ""}, {"title": "no name"}, "no tool"]}
SHOWN = {"tools": [{"name": "echo"}]}


class Server:
    """Keeps what it was sent, and answers what it is told to, in as many pieces."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: tuple[int, str, list[bytes]] = (200, JSON, [b"{}"])
        self.headers: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            for name in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{name}.complete"})
            return
        body = b""
        more = True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], headers, body))
        status, kind, pieces = self.answer
        told = {"content-type": kind, **self.headers} if kind else self.headers
        start = [(name.encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": status, "headers": start})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Shop:
    """A server behind the middleware."""

    def __init__(self, url: str, server: Server) -> None:
        self.host = urlsplit(url).netloc
        self.server = server

    def request(
        self, method: str, body: bytes = b"", path: str = "/mcp", headers: Mapping[str, str] | None = None
    ) -> Response:
        """As bob, if the headers do not say otherwise."""
        sent = {"x-sark-user": "bob", "content-type": JSON, "accept-encoding": "gzip", **(headers or {})}
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Response(response.status, tuple(response.getheaders()), response.read())
        finally:
            connection.close()

    def answered(self, status: int, kind: str, *pieces: bytes, method: str = "POST", **headers: str) -> Response:
        """What becomes of an answer of the server."""
        self.server.answer = (status, kind, list(pieces))
        self.server.headers = headers
        return self.request(method, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}' if method == "POST" else b"")


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@pytest.fixture(scope="module")
def serving(sidecar: Sidecar, server: Server) -> Iterator[Shop]:
    guard = Guard(AsyncClient(sidecar.grpc, timeout=PATIENCE), also_allowed=["shop/hours"])
    app = McpMiddleware(
        server,
        guard=guard,
        principal=in_header,
        exempt=["/health"],
        max_request_bytes=20_000,
        max_answer_bytes=MOST,
    )
    with served(app) as url:
        yield Shop(url, server)


@pytest.fixture
def shop(serving: Shop) -> Shop:
    serving.server.seen.clear()
    serving.server.answer = (200, JSON, [b"{}"])
    serving.server.headers = {}
    return serving


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def result_of(value: Any, call_id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "result": value}


# What is posted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["name"])
def test_what_is_posted(case: Mapping[str, Any], shop: Shop) -> None:
    """The server gets what was judged, and nothing else."""
    passes = case.get("passes")
    answers = [result_of({}, each.get("id")) for each in passes] if isinstance(passes, list) else result_of({})
    shop.server.answer = (200, JSON, [encoded(answers)])
    response = shop.request("POST", case["body"].encode())
    if passes is None:
        assert shop.server.seen == []
    else:
        ((_, headers, body),) = shop.server.seen
        assert json.loads(body) == passes
        assert int(headers["content-length"]) == len(body)
        assert "accept-encoding" not in headers
    told = response.json()
    if "refused" in case:
        assert response.status == 200
        assert [each["id"] for each in told if "error" in each] == case["refused"]
        assert [each for each in told if "result" in each] == (answers if passes else [])
    elif passes is None:
        assert response.status == case["status"]
        assert (told["id"], told["error"]["code"]) == (case.get("id"), case["code"])
        assert case["message"] in told["error"]["message"]
    else:
        assert (response.status, told) == (200, answers)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b" " * 20_001, {}, 413, "larger than 20000 bytes"),
        (b"[" * 300 + b"]" * 300, {}, 400, "nested deeper"),
        (b"[" * 20_000, {}, 400, "not valid JSON"),
        (encoded([{"jsonrpc": "2.0", "method": "ping"}] * 101), {}, 400, "a batch must have"),
        (gzip.compress(b"{}"), {"content-encoding": "gzip"}, 415, "compressed"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"x-sark-user": "eve"}, 403, "names no user"),
    ],
    ids=["too long", "too deep", "far too deep", "too many", "compressed", "from nobody"],
)
def test_what_is_not_even_read(body: bytes, headers: dict[str, str], status: int, message: str, shop: Shop) -> None:
    """Is refused with an error that JSON-RPC knows."""
    response = shop.request("POST", body, headers=headers)
    assert response.status == status
    assert message in response.json()["error"]["message"]
    assert shop.server.seen == []


def test_headers_that_repeat_a_filtered_parameter_are_gone(shop: Shop) -> None:
    """Others pass, and so do all where nothing is filtered."""
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "customer_lookup", "arguments": {"customer": "Zoë", "debug": True, "limit": 5}},
    }
    mirrored = {"mcp-param-customer": "=?base64?Wm/Dqw==?=", "mcp-param-limit": "5", "mcp-param-debug": "true"}
    shop.request("POST", encoded(call), headers=mirrored)
    call["params"]["name"] = "search_code"  # type: ignore[index]
    shop.request("POST", encoded(call), headers=mirrored)
    filtered, whole = ({n for n in headers if n.startswith("mcp-param-")} for _, headers, _ in shop.server.seen)
    assert filtered == {"mcp-param-customer", "mcp-param-limit"}
    assert whole == set(mirrored)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_of_http_are_none_of_mcp(method: str, shop: Shop) -> None:
    response = shop.request(method)
    assert (response.status, response.header("allow")) == (405, ["POST, GET, DELETE"])
    assert shop.server.seen == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_streams_and_ends_of_sessions_are_for_who_has_a_name(method: str, shop: Shop) -> None:
    assert shop.request(method).status == 200
    assert shop.request(method, headers={"x-sark-user": "eve"}).status == 403
    assert len(shop.server.seen) == 1


def test_a_path_that_is_exempt_is_left_alone(shop: Shop) -> None:
    """Just this one."""
    assert shop.request("GET", path="/health", headers={"x-sark-user": ""}).status == 200
    for path in ("/health/", "/health2", "/%2e/health", "//health"):
        assert shop.request("GET", path=path, headers={"x-sark-user": ""}).status == 403, path


# What is answered ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CR LF", "CR"])
def test_a_listing_in_a_stream_loses_what_may_not_be_seen(end: bytes, step: int, method: str, shop: Shop) -> None:
    """However it is cut into pieces, on the stream of a request or on one that is resumed; the rest is as it was."""
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": LISTED}
    lines = [
        b": a comment",
        b"",
        b"id: 0",
        b"data:",
        b"",
        b"event: message",
        b"data: " + encoded(progress),
        b"",
        b"data: " + encoded(asked),
        b"",
        b"id: 8",
        b"event: message",
        b"retry: 10",
        b"data: " + encoded(result_of(LISTED))[:18],
        b"data:" + encoded(result_of(LISTED))[18:],
        b"",
        b"data: " + encoded(result_of({"content": []}, "x")),
        b"",
    ]
    stream = end.join(lines) + end
    # A CR at the end may be half of CR LF, so it does not end an event.
    stream += b"\n" if end == b"\r" else b""
    pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
    response = shop.answered(200, EVENTS, *pieces, method=method)
    events = [dict(read(event)) for event in response.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")]
    assert [json.loads(event["data"]) for event in events if event.get("data")] == [
        progress,
        asked,
        result_of(SHOWN),
        result_of({"content": []}, "x"),
    ]
    (of_listing,) = [event for event in events if event.get("id") == "8"]
    assert (of_listing["event"], of_listing["retry"]) == ("message", "10")
    assert b": a comment" in response.body
    assert b"drop_database" not in response.body.replace(encoded(asked), b"")


def read(event: bytes) -> Iterator[tuple[str, str]]:
    for line in event.decode().splitlines():
        name, _, value = line.partition(":")
        if name:
            yield name, value.removeprefix(" ")


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (result_of(LISTED), result_of(SHOWN)),
        ([result_of(LISTED, 1), result_of({"a": 1}, 2)], [result_of(SHOWN, 1), result_of({"a": 1}, 2)]),
        (result_of({"prompts": "all of them"}), result_of({"prompts": []})),
        (
            result_of({**LISTED, "nextCursor": "c", "ttlMs": 5, "cacheScope": "public"}),
            result_of({**SHOWN, "nextCursor": "c", "ttlMs": 5, "cacheScope": "private"}),
        ),
        (result_of({"contents": [], "cacheScope": "public"}), result_of({"contents": [], "cacheScope": "private"})),
        (result_of({"tools": []}), result_of({"tools": []})),
        (
            result_of(
                {
                    "resources": [{"uri": "docs://a"}, {"uri": "nowhere"}],
                    "resourceTemplates": [{"uriTemplate": "repo://{x}"}],
                }
            ),
            result_of({"resources": [{"uri": "docs://a"}], "resourceTemplates": [{"uriTemplate": "repo://{x}"}]}),
        ),
        ({"detail": "Not Found"}, {"detail": "Not Found"}),
        (
            {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}},
            {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}},
        ),
    ],
    ids=["tools", "a batch", "no list", "public", "public contents", "none", "resources", "no JSON-RPC", "an error"],
)
def test_an_answer_in_json_loses_what_may_not_be_seen(answer: Any, seen: Any, shop: Shop) -> None:
    """And nothing of it is for the cache of others."""
    body = encoded(answer)
    response = shop.answered(200, f"{JSON}; charset=utf-8", body[:9], body[9:], **{"x-of-server": "1"})
    assert (response.status, response.json()) == (200, seen)
    assert response.header("content-length") == [str(len(response.body))]
    assert response.header("x-of-server") == ["1"]


class Store(EventStore):
    """Keeps the events of one stream, as the SDK wants it kept."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Its number."""
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        """All of the stream that came after it."""
        stream_id: str = self.kept[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self.kept, 1):
            if number > int(last_event_id) and of == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


def test_a_stream_of_the_sdk_that_is_resumed(sidecar: Sidecar) -> None:
    """Lists no more than the first time, whoever's request it was."""
    store = Store()
    app = McpMiddleware(
        a_server().streamable_http_app(event_store=store),
        guard=Guard(AsyncClient(sidecar.grpc, timeout=PATIENCE)),
        principal=in_header,
    )
    headers = {"accept": f"{JSON}, {EVENTS}", "mcp-protocol-version": "2025-11-25"}
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a test", "version": "1"}}
    with served(app) as url:
        shop = Shop(url, Server())

        def post(message: dict[str, Any]) -> Response:
            return shop.request("POST", encoded({"jsonrpc": "2.0", **message}), headers=headers)

        begun = post({"id": 1, "method": "initialize", "params": about})
        headers["mcp-session-id"] = begun.header("mcp-session-id")[0]
        post({"method": "notifications/initialized"})
        first = post({"id": 2, "method": "tools/list"})
        (primed,) = [number for number, (of, kept) in enumerate(store.kept, 1) if of == "2" and kept is None]
        resumed = first_event(shop, {**headers, "last-event-id": str(primed)})
    assert b"drop_database" in encoded([kept.model_dump() for _, kept in store.kept if kept is not None])
    for seen in (first.body, resumed):
        assert b"search_code" in seen
        assert b"drop_database" not in seen


def first_event(shop: Shop, headers: Mapping[str, str]) -> bytes:
    """The first event with data of a stream, which does not end."""
    connection = http.client.HTTPConnection(shop.host, timeout=PATIENCE)
    try:
        connection.request("GET", "/mcp", headers={"x-sark-user": "bob", **headers})
        response = connection.getresponse()
        assert response.status == 200
        for line in response:
            if line.startswith(b"data: {"):
                return line
        pytest.fail("the stream has no event")
    finally:
        connection.close()


def test_a_listing_of_thousands(shop: Shop) -> None:
    """Is asked about in parts, in its order."""
    names = [name for number in range(500) for name in (f"docs://{number}", f"nothing{number}", f"repo://{number}")]
    response = shop.answered(200, JSON, encoded(result_of({"resources": [{"uri": name} for name in names]})))
    shown = [each["uri"] for each in response.json()["result"]["resources"]]
    assert shown == [name for name in names if "://" in name]


@pytest.mark.parametrize(
    ("kind", "pieces", "headers", "why"),
    [
        (JSON, [b"x" * MOST, b"x"], {}, "larger than"),
        (JSON, [gzip.compress(encoded(result_of(LISTED)))], {"content-encoding": "gzip"}, "compressed"),
        (EVENTS, [gzip.compress(b"data: {}\n\n")], {"content-encoding": "br"}, "compressed"),
        ("text/plain", [encoded(result_of(LISTED))], {}, "neither JSON nor a stream"),
        ("", [encoded(result_of(LISTED))], {}, "neither JSON nor a stream"),
        (JSON, [b'{"jsonrpc"'], {}, "not JSON, which it says or seems to be"),
    ],
    ids=["too long", "compressed", "a compressed stream", "text", "no type", "cut off"],
)
def test_an_answer_that_cannot_be_judged_is_not_given(
    kind: str, pieces: list[bytes], headers: dict[str, str], why: str, shop: Shop
) -> None:
    """An error that says why comes in its place."""
    response = shop.answered(200, kind, *pieces, **headers)
    assert response.status == 502
    assert why in response.json()["error"]["message"]
    assert b"drop_database" not in response.body


@pytest.mark.parametrize("status", [202, 204, 400, 404, 500])
@pytest.mark.parametrize("kind", ["text/plain", "text/html", ""])
def test_a_listing_loses_what_may_not_be_seen_whatever_it_is_called(status: int, kind: str, sidecar: Sidecar) -> None:
    """With statuses of which other text passes: what reads it as JSON gets no more."""
    for before, encoding in ((b"", "utf-8"), (b" \r\n", "utf-8"), (b"\xef\xbb\xbf", "utf-8"), (b"", "utf-16")):
        listing = before + json.dumps(result_of(LISTED)).encode(encoding)
        shown = judged(sidecar, status, kind, listing)
        assert json.loads(shown) == result_of(SHOWN)
    assert json.loads(judged(sidecar, status, kind, encoded([result_of(LISTED)]))) == [result_of(SHOWN)]


def judged(sidecar: Sidecar, status: int, kind: str, answer: bytes) -> bytes:
    """What the middleware makes of an answer: a client of HTTP drops what comes with 204."""
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def judge() -> None:
        async with AsyncClient(sidecar.grpc, timeout=PATIENCE) as pdp:
            guarded = GuardedSend(Guard(pdp), Caller(USERS["bob"]), send, [], MOST)
            headers = [(b"content-type", kind.encode())] if kind else []
            await guarded({"type": "http.response.start", "status": status, "headers": headers})
            await guarded({"type": "http.response.body", "body": answer})

    asyncio.run(judge())
    assert sent[0]["status"] == status
    return b"".join(each.get("body", b"") for each in sent)


def test_text_that_begins_as_json_and_is_none_is_not_given(shop: Shop) -> None:
    """Nor is what is too deep to be judged."""
    for body in (b"[Errno 2] " + encoded(result_of(LISTED)), b"[" * 300 + encoded(result_of(LISTED)) + b"]" * 300):
        response = shop.answered(404, "text/plain", body)
        assert response.status == 502
        assert b"drop_database" not in response.body


@pytest.mark.parametrize("before", [b"", b"  ", b"\xef\xbb\xbf"])
def test_the_event_of_the_first_transport_tells_a_path_and_nothing_else(before: bytes, shop: Shop) -> None:
    """A listing under its name is judged, or left out."""
    told = b"event: endpoint\ndata: /messages?session=1\n\n"
    listing = b"event: endpoint\ndata: " + before + encoded(result_of(LISTED)) + b"\n\n"
    response = shop.answered(200, EVENTS, told, listing)
    assert response.body.startswith(told)
    assert b"drop_database" not in response.body


@pytest.mark.parametrize(
    "event",
    [b"data: no message\n\n", b"data: " + encoded(result_of(LISTED)), b"data: " + b"x" * (MOST + 1) + b"\n\n"],
    ids=["no message", "without an end", "too long"],
)
def test_an_event_that_cannot_be_judged_is_left_out(event: bytes, shop: Shop) -> None:
    """Or ends its stream."""
    first = encoded(result_of({"content": []}))
    response = shop.answered(200, EVENTS, b"data: " + first + b"\n\n", event[:30_000], event[30_000:])
    assert response.status == 200
    assert response.body == b"data: " + first + b"\n\n"


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (202, "", b""),
        (202, JSON, b""),
        (202, "text/plain", b"Accepted"),
        (404, "text/plain", b"Not Found"),
        (204, "", b""),
    ],
)
def test_an_answer_that_tells_nothing_passes(status: int, kind: str, body: bytes, shop: Shop) -> None:
    response = shop.answered(status, kind, body)
    assert (response.status, response.body) == (status, body)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [(JSON, encoded([result_of({}, 2)])), (EVENTS, b"data: " + encoded(result_of({}, 2)) + b"\n\n"), ("", b"")],
    ids=["JSON", "a stream", "nothing"],
)
def test_what_is_refused_of_a_batch_is_told_beside_the_rest(kind: str, answer: bytes, shop: Shop) -> None:
    """However the server answers the rest."""
    shop.server.answer = (200 if answer else 202, kind, [answer])
    refused = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "drop_database"}}
    response = shop.request("POST", encoded([refused, {"jsonrpc": "2.0", "id": 2, "method": "ping"}]))
    assert response.status == 200
    if kind == EVENTS:
        told = [
            json.loads(dict(read(event))["data"]) for event in response.body.replace(b"\r", b"").split(b"\n\n")[:-1]
        ]
    else:
        told = response.json()
    assert sorted(each["id"] for each in told) == ([1, 2] if answer else [1])
    assert [each["id"] for each in told if "error" in each] == [1]
