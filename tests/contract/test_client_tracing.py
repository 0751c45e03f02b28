"""Questions belong to the trace of whoever asks them, also where they travel together."""

import asyncio
import subprocess
import sys
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.client import AsyncClient, Question
from tests.fix_client import ALICE, SEARCH, Connect, ask, fake_pdp, serving
from tests.fix_native import event
from tests.fix_serve import Sidecar

TRACER = TracerProvider().get_tracer("test")


class Listening:
    """A decision point that remembers the metadata of each call, and the request ids in it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any], list[str]]] = []

    def __call__(self, method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        name = method.rpartition("/")[2]
        checks = wire.CheckBatchRequest.FromString(message).checks if name == "CheckBatch" else []
        ids = [each.request_id for each in checks]
        if name == "Check":
            ids = [wire.CheckRequest.FromString(message).request_id]
        self.heard.append((name, dict(context.invocation_metadata() or ()), ids))
        return fake_pdp(method, message, context)


def parent_of(span: trace.Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def test_every_kind_of_question_belongs_to_the_current_span(connect_client: Connect) -> None:
    with serving(listening := Listening()) as address:
        client = connect_client(address, timeout=30)
        with TRACER.start_as_current_span("asking") as span:
            assert ask(client)
            assert client.check_many([Question({"tool": SEARCH})])
            assert client.filter(user=ALICE, action="tool:list", resources=[SEARCH])
    assert [name for name, _, _ in listening.heard] == ["Check", "CheckBatch", "Filter"]
    assert [metadata["traceparent"] for _, metadata, _ in listening.heard] == [parent_of(span)] * 3


def test_the_state_of_the_trace_goes_with_it(connect_client: Connect) -> None:
    context = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0), trace_state=TraceState([("vendor", "x")]))
    with serving(listening := Listening()) as address, trace.use_span(NonRecordingSpan(context)):
        assert ask(connect_client(address, timeout=30))
    ((_, metadata, _),) = listening.heard
    assert metadata["traceparent"] == "00-00000000000000000000000000000001-0000000000000002-00"
    assert metadata["tracestate"] == "vendor=x"


@pytest.mark.parametrize("options", [{}, {"trace": False}])
def test_without_a_span_or_where_it_is_not_wanted_nothing_is_sent(
    connect_client: Connect, options: dict[str, bool]
) -> None:
    with serving(listening := Listening()) as address:
        client = connect_client(address, timeout=30, **options)
        if options:
            with TRACER.start_as_current_span("asking"):
                assert ask(client)
        else:
            assert ask(client)
    ((_, metadata, _),) = listening.heard
    assert not {"traceparent", "tracestate"} & set(metadata)


def test_questions_of_two_traces_do_not_share_a_batch_and_none_loses_its_own() -> None:
    """A call has one trace: of twelve questions asked at once, by three spans and by none, four calls come."""

    async def main(address: str) -> dict[str, set[str]]:
        expected: dict[str, set[str]] = {}
        async with AsyncClient(address, timeout=30) as client:
            tasks = []
            for name in ("a", "b", "c"):
                with TRACER.start_as_current_span(name) as span:
                    ids = {f"{name}-{number}" for number in range(3)}
                    expected[parent_of(span)] = ids
                    tasks += [asyncio.create_task(_check(client, id_)) for id_ in ids]
            expected[""] = {f"none-{number}" for number in range(3)}
            tasks += [asyncio.create_task(_check(client, id_)) for id_ in expected[""]]
            assert all(await asyncio.gather(*tasks))
        return expected

    with serving(listening := Listening()) as address:
        expected = asyncio.run(main(address))
    assert [name for name, _, _ in listening.heard] == ["CheckBatch"] * 4
    assert {metadata.get("traceparent", ""): set(ids) for _, metadata, ids in listening.heard} == expected


async def _check(client: AsyncClient, request_id: str) -> Any:
    return await client.check(user=ALICE, action="tool:invoke", tool=SEARCH, request_id=request_id)


IMPORTING = """
import sys
from sark_pdp.client import Client

with Client("127.0.0.1:1", timeout=5) as client:
    client.check(action="tool:invoke")
print(*(name for name in sys.modules if name.startswith("opentelemetry")))
"""


def test_nothing_of_opentelemetry_is_imported_where_the_application_does_not() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == []


@pytest.mark.carried
def test_the_audit_trail_tells_the_trace_of_each_question_of_a_batch(sidecar: Sidecar) -> None:
    """Through a real decision point: two spans, two questions each, all asked at once."""

    async def main() -> list[tuple[str, str]]:
        async with AsyncClient(sidecar.grpc, timeout=30) as client:
            asked = []
            for name in ("a", "b"):
                with TRACER.start_as_current_span(name) as span:
                    trace_id = f"{span.get_span_context().trace_id:032x}"
                    asked += [(trace_id, asyncio.create_task(_check(client, f"{name}-{n}"))) for n in range(2)]
            return [(trace_id, (await task).decision_id) for trace_id, task in asked]

    for trace_id, decision in asyncio.run(main()):
        assert event(sidecar.spool_dir, decision).details["trace_id"] == trace_id
