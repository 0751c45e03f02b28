"""What a day asks of sidecars, in minutes: calls of every kind, more at noon, few of them the same."""

import asyncio
import itertools
import json
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from envoy.service.auth.v3 import external_auth_pb2 as envoy
from msgspec import Struct

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import AsyncClient, Question

_Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

_TICK: Final = 0.02
_TIMEOUT: Final = 10.0
_MOST_WAITING: Final = 500
"""Calls that have no answer yet, of one sidecar; what comes on top is not sent."""
_WAVE: Final = 0.45
"""How far the rate swings around its middle."""
_HTTP_USERS: Final = ("ada", "bob", "carol", "dan", "grace", "oscar", "mallory", "nobody")
_ROUTES: Final = ("health", "docs", "docs", "docs", "orders", "orders", "admin")


class Place(Struct, frozen=True):
    """Where a sidecar listens, and how many calls a second it gets, by and large."""

    grpc: str
    http: str
    rate: float


class Sent(Struct):
    """Counted by the load's own thread."""

    calls: int = 0
    failed: int = 0
    """That should have been answered."""
    held_back: int = 0
    """Not sent, because too many waited."""


class Registry(Struct, frozen=True):
    """Who asks, and for what, the most frequent first."""

    users: Sequence[str]
    tools: Sequence[str]


@contextmanager
def mixed_load(places: Sequence[Place], registry: Registry, seconds: float) -> Iterator[Sent]:
    """Sends until the block ends; `seconds` is how long that will take, for the wave to have its length."""
    sent, ended = Sent(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_send(places, registry, seconds, ended, sent)))
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


async def _send(
    places: Sequence[Place], registry: Registry, seconds: float, ended: threading.Event, sent: Sent
) -> None:
    callers = [_Caller(place, registry, number, sent) for number, place in enumerate(places)]
    try:
        await asyncio.gather(*(caller.run(seconds, ended) for caller in callers))
    finally:
        for caller in callers:
            await caller.close()


class _Caller:
    """Whoever asks one sidecar; all belongs to one event loop."""

    def __init__(self, place: Place, registry: Registry, number: int, sent: Sent) -> None:
        self._place, self._registry, self._sent = place, registry, sent
        self._phase = number * 1.3
        self._chance = random.Random(number)
        self._channel = grpc.aio.insecure_channel(place.grpc)
        self._check: _Call = self._channel.unary_unary("/sark.pdp.v1.PolicyDecision/Check")
        self._authorize: _Call = self._channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")
        self._client = AsyncClient(place.grpc, timeout=_TIMEOUT)
        self._waiting: set[asyncio.Future[None]] = set()
        self._users = list(itertools.accumulate(1 / (at + 1) for at in range(len(registry.users))))
        self._tools = list(itertools.accumulate(1 / (at + 1) for at in range(len(registry.tools))))

    async def run(self, seconds: float, ended: threading.Event) -> None:
        """A share of each kind at every tick, with what chance adds."""
        kinds: tuple[tuple[float, Callable[[], Awaitable[object]]], ...] = (
            (0.62, self._native),
            (0.3, self._envoy),
            (0.05, self._json),
            (0.015, self._batch),
            (0.01, self._filter),
            (0.003, self._malformed),
            (0.002, self._unknown),
        )
        begin = time.monotonic()
        for tick in itertools.count(1):
            if ended.is_set():
                break
            at = time.monotonic() - begin
            rate = self._place.rate * (1 + _WAVE * math.sin(at / seconds * 2 * math.pi * 1.25 + self._phase))
            number = rate * _TICK
            for share, ask in kinds:
                self._begin(ask, self._whole(number * share))
            await asyncio.sleep(max(0.0, begin + tick * _TICK - time.monotonic()))
        await asyncio.gather(*self._waiting)

    async def close(self) -> None:
        """Of its connections."""
        await self._client.close()
        await self._channel.close()

    def _whole(self, number: float) -> int:
        return int(number) + (self._chance.random() < number % 1)

    def _begin(self, ask: Callable[[], Awaitable[object]], number: int) -> None:
        for _ in range(number):
            if len(self._waiting) >= _MOST_WAITING:
                self._sent.held_back += 1
                continue
            call = asyncio.ensure_future(self._counted(ask))
            self._waiting.add(call)
            call.add_done_callback(self._waiting.discard)

    async def _counted(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._sent.calls += 1
        try:
            await ask()
        except grpc.aio.AioRpcError as error:
            refused = error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
            self._sent.failed += not refused
        except OSError:
            self._sent.failed += 1

    def _document(self) -> dict[str, Any]:
        (user,) = self._chance.choices(self._registry.users, cum_weights=self._users)
        return {"action": "tool:invoke", "user": {"id": user, "mfa_verified": True}, "tool": {"id": self._tool()}}

    def _tool(self) -> str:
        (tool,) = self._chance.choices(self._registry.tools, cum_weights=self._tools)
        return tool

    async def _native(self) -> None:
        await self._check(_asking(self._document()), timeout=_TIMEOUT)

    async def _malformed(self) -> None:
        await self._check(wire.CheckRequest(input_json=b"{").SerializeToString(), timeout=_TIMEOUT)

    async def _unknown(self) -> None:
        await self._check(_asking({}, policy="no/such/entrypoint"), timeout=_TIMEOUT)

    async def _envoy(self) -> None:
        path = f"/{self._chance.choice(_ROUTES)}/{self._chance.randrange(3)}"
        headers = {":path": path, "x-sark-user": self._chance.choice(_HTTP_USERS)}
        http = {"method": self._chance.choice(("GET", "GET", "POST")), "path": path, "headers": headers}
        message = envoy.CheckRequest(attributes={"request": {"http": http}})
        await self._authorize(message.SerializeToString(), timeout=_TIMEOUT)

    async def _batch(self) -> None:
        answered = await self._client.check_many([Question(self._document()) for _ in range(10)])
        self._sent.failed += answered.error is not None

    async def _filter(self) -> None:
        document = self._document()
        tools = [{"id": self._tool()} for _ in range(20)]
        answered = await self._client.filter(action="tool:list", user=document["user"], resources=tools)
        self._sent.failed += answered.error is not None

    async def _json(self) -> None:
        document = self._document()
        asked = {"user_id": document["user"]["id"], "action": "tool:invoke", "tool": document["tool"]}
        body = json.dumps(asked).encode()
        host, _, port = self._place.http.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /api/v1/policy/evaluate HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), _TIMEOUT)
        writer.close()
        self._sent.failed += b" 200 " not in answer[:16]


def _asking(document: dict[str, Any], policy: str = "") -> bytes:
    return wire.CheckRequest(policy=policy, input_json=json.dumps(document).encode()).SerializeToString()
