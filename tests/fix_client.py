"""Decision points for the client to ask, and one way to drive both clients.

`pdp_address` is a working one; whoever adds another kind adds it there, and the suite of the client runs against it.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import AsyncClient, Client, Question
from sark_pdp.model import Outcome

ALICE = {"id": "alice", "roles": ["developer"], "teams": ["search"]}
SEARCH = {"id": "search", "name": "search_documents", "sensitivity_level": "low"}
DROP = {"id": "drop", "name": "drop_database", "sensitivity_level": "critical"}
LOOKUP = {"id": "lookup", "name": "customer_lookup", "sensitivity_level": "medium"}
"""Its policy takes `debug` out of the parameters."""
POLICY = "sark/mcp/decision"

Connect: TypeAlias = Callable[..., Any]
Behaviour: TypeAlias = Callable[[str, bytes, grpc.ServicerContext], bytes]


def decide(asked: wire.CheckRequest) -> wire.CheckResponse:
    """Allows what is not critical, and takes `debug` out of the parameters."""
    document = json.loads(asked.input_json)
    allow = document.get("tool", {}).get("sensitivity_level") != "critical"
    answer = wire.CheckResponse(
        request_id=asked.request_id or "made-by-the-server",
        allow=allow,
        outcome=wire.OUTCOME_ALLOW if allow else wire.OUTCOME_DENY,
        reason="as you like" if allow else "critical tools are not for you",
        decision_id="0190-decision",
        policy_revision="fake-1",
        result_json=json.dumps({"allow": allow}).encode(),
        tier=wire.TIER_EVALUATED,
    )
    if allow and "parameters" in document:
        kept = {name: value for name, value in document["parameters"].items() if name != "debug"}
        answer.filtered_parameters.update(kept)
    return answer


def fake_pdp(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
    """Answers each of the methods."""
    match method.rpartition("/")[2]:
        case "Check":
            asked = wire.CheckRequest.FromString(message)
            if asked.policy not in ("", POLICY):
                context.abort(grpc.StatusCode.NOT_FOUND, f"policy: there is no entrypoint {asked.policy!r}")
            return decide(asked).SerializeToString()
        case "CheckBatch":
            batch = wire.CheckBatchResponse()
            for item in wire.CheckBatchRequest.FromString(message).checks:
                if item.policy in ("", POLICY):
                    batch.results.add().response.CopyFrom(decide(item))
                else:
                    batch.results.add().error.code = grpc.StatusCode.NOT_FOUND.value[0]
            return batch.SerializeToString()
        case _:
            many = wire.FilterRequest.FromString(message)
            reply = wire.FilterResponse()
            for index, resource in enumerate(many.resources):
                document = json.loads(many.template.input_json) | {many.resource_field: dict(resource)}
                answer = decide(wire.CheckRequest(input_json=json.dumps(document).encode()))
                reply.responses.add().CopyFrom(answer)
                if answer.allow:
                    reply.allowed.append(index)
            return reply.SerializeToString()


class Handlers(grpc.GenericRpcHandler):
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
            return self._behaviour(details.method, message, context)

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def serving(
    behaviour: Behaviour, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """A real gRPC server; gives its address."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, [Handlers(behaviour)])
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield address.replace(":0", f":{port}") if address.endswith(":0") else address
        finally:
            server.stop(None).wait()


class Awaited:
    """An AsyncClient with the methods of a Client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            return await getattr(self._client, name)(*arguments, **options)

        return lambda *arguments, **options: self._runner.run(call(*arguments, **options))

    def __enter__(self) -> "Awaited":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, Awaited], ids=["sync", "asyncio"])
def connect_client(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients, and closes them at the end."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(request.param(*arguments, **options))


@pytest.fixture(
    params=[
        "fake over TCP",
        "fake over a Unix socket",
        pytest.param("sark-pdp serve", marks=pytest.mark.carried),
    ]
)
def pdp_address(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[str]:
    """The address of a decision point that lets a developer call a tool of low sensitivity, not a critical one."""
    match request.param:
        case "fake over TCP":
            with serving(fake_pdp) as address:
                yield address
        case "fake over a Unix socket":
            with serving(fake_pdp, f"unix://{short_dir}/pdp.sock") as address:
                yield address
        case _:
            yield request.getfixturevalue("sidecar").grpc


def ask(client: Any, **options: Any) -> Any:
    """About a tool call that is allowed."""
    return client.check(user=ALICE, action="tool:invoke", tool=SEARCH, **options)


def assert_denied(client: Any, error: str, **options: Any) -> None:
    """Each way of asking denies everything, for this cause."""
    batch = client.check_many([Question({}), Question({})], **options)
    kept = client.filter(user=ALICE, action="tool:list", resources=[SEARCH, DROP], **options)
    answers = [ask(client, **options), *batch.answers, *kept.answers]
    assert len(answers) == 5
    assert not batch
    assert kept.allowed == ()
    for text in [batch.error, kept.error, *(answer.error for answer in answers)]:
        assert text is not None
        assert text.startswith(error), text
    for answer in answers:
        assert not answer.allow
        assert answer.outcome is Outcome.ERROR
        assert answer.reason
        assert not answer.decision_id
