"""Spans of a real sidecar, as a collector gets them: whose children they are, and that no answer depends on it."""

import json
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from sark_pdp._proto import decision_pb2 as wire
from tests.fix_authority import Authority
from tests.fix_http import BATCH, EVALUATE, HttpClient
from tests.fix_native import (
    CHECK,
    EXT_AUTHZ,
    NATIVE,
    STREAM,
    TIMEOUT,
    Channel,
    asking,
    assert_quiet,
    event,
    http,
    metric,
    running,
    wait_until,
    wire_policy,
)
from tests.fix_otlp import Collector, Span
from tests.fix_serve import Serve, Sidecar, free_port
from tests.fix_tools import ROOT

DROPPED = "sark_trace_spans_dropped_total"
EXPORTED = "sark_trace_spans_exported_total"


class Caller:
    """A span of somebody who asks."""

    def __init__(self) -> None:
        self.trace, self.id = uuid.uuid4().hex, uuid.uuid4().hex[:16]

    def header(self, flags: str = "01") -> str:
        return f"00-{self.trace}-{self.id}-{flags}"


@pytest.fixture(scope="module")
def traced(sark_pdp: Path, wire_bundle: Path, shared_state: str, shared_collector: Collector) -> Iterator[Sidecar]:
    settings = {
        **wire_policy(wire_bundle),
        "listen.http": f"127.0.0.1:{free_port()}",
        "state_dir": shared_state,
        "audit.source_name": "pod-1",
        "tracing.otlp_endpoint": shared_collector.url,
    }
    with running(sark_pdp, settings) as served:
        yield served


@pytest.fixture
def channel(traced: Sidecar) -> Iterator[Channel]:
    with Channel(traced.grpc) as made:
        yield made


def call(channel: Channel, method: str, message: Any, header: str) -> bytes:
    answer: bytes = channel.channel.unary_unary(method)(
        message.SerializeToString(), timeout=TIMEOUT, metadata=(("traceparent", header),)
    )
    return answer


# Whose child a span is -----------------------------------------------------------------------------------------------


def check(served: Sidecar, channel: Channel, header: str) -> None:
    call(channel, CHECK, asking("allow"), header)


def stream(served: Sidecar, channel: Channel, header: str) -> None:
    messages = iter([asking("allow").SerializeToString()])
    answers: Any = channel.channel.stream_stream(STREAM)(messages, timeout=TIMEOUT, metadata=(("traceparent", header),))
    assert len(list(answers)) == 1


def envoy_of_a_request(served: Sidecar, channel: Channel, header: str) -> None:
    """What Envoy was asked counts before what its own call says."""
    call(channel, EXT_AUTHZ, http("/allow", traceparent=header), Caller().header("00"))


def envoy_itself(served: Sidecar, channel: Channel, header: str) -> None:
    call(channel, EXT_AUTHZ, http("/allow"), header)


def over_http(served: Sidecar, channel: Channel, header: str) -> None:
    with HttpClient(str(served.settings["listen.http"])) as client:
        assert client.post(EVALUATE, {"case": "allow"}, traceparent=header).status == 200


WAYS = [check, stream, envoy_of_a_request, envoy_itself, over_http]


@pytest.mark.parametrize("ask", WAYS)
def test_a_decision_is_a_child_of_the_callers_span(
    traced: Sidecar, shared_collector: Collector, channel: Channel, ask: Callable[[Sidecar, Channel, str], None]
) -> None:
    """Evaluated or from the cache, and as the audit trail has it."""
    caller = Caller()
    for _ in range(2):
        ask(traced, channel, caller.header())
    for span in shared_collector.wait_for(caller.id, 2):
        recorded = event(traced.spool_dir, span.attributes["sark_pdp.decision_id"])
        assert (span.name, span.trace, span.status) == ("sark_pdp.decide", caller.trace, 0)
        assert (recorded.details["trace_id"], recorded.policy_id) == (caller.trace, "wire/decide")
        assert (recorded.source.partition("/")[0], recorded.policy_revision) == ("pod-1", "wire-1")
        assert span.end_ns - span.start_ns == recorded.details["latency_ns"]
        age = span.attributes.pop("sark_pdp.age_seconds")
        assert age == recorded.details["age_seconds"]
        assert span.attributes == {
            "sark_pdp.entrypoint": "wire/decide",
            "sark_pdp.policy.revision": "wire-1",
            "sark_pdp.outcome": "allow",
            "sark_pdp.tier": recorded.details["tier"],
            "sark_pdp.decision_id": recorded.id,
        }
        assert span.resource["service.name"] == "sark-pdp"
        assert span.resource["service.instance.id"] == "pod-1"


@pytest.mark.parametrize("ask", WAYS)
def test_a_caller_that_is_not_sampled_gets_no_span(
    traced: Sidecar, shared_collector: Collector, channel: Channel, ask: Callable[[Sidecar, Channel, str], None]
) -> None:
    """Seen by a later one that is: spans are exported in order."""
    unsampled, sampled = Caller(), Caller()
    ask(traced, channel, unsampled.header("00"))
    ask(traced, channel, sampled.header("01"))
    shared_collector.wait_for(sampled.id)
    assert [span for span in shared_collector.spans if unsampled.trace in (span.trace, span.parent)] == []


def test_without_a_caller_a_span_is_the_root_of_a_trace_of_its_own(
    traced: Sidecar, shared_collector: Collector, channel: Channel
) -> None:
    ids = [channel.check(case="deny").decision_id for _ in range(3)]

    def found() -> list[Span]:
        spans = [span for span in shared_collector.spans if span.attributes.get("sark_pdp.decision_id") in ids]
        return spans if len(spans) == len(ids) else []

    spans = wait_until(found)
    assert {span.parent for span in spans} == {""}
    assert len({span.trace for span in spans}) == 3
    assert {span.attributes["sark_pdp.outcome"] for span in spans} == {"deny"}


def test_each_item_of_a_batch_is_a_child_of_the_calls_span(
    traced: Sidecar, shared_collector: Collector, channel: Channel
) -> None:
    caller = Caller()
    asked = wire.CheckBatchRequest(checks=[asking(case) for case in ("allow", "deny", "conflict")])
    answer = wire.CheckBatchResponse.FromString(call(channel, f"{NATIVE}CheckBatch", asked, caller.header()))
    spans = shared_collector.wait_for(caller.id, 3)
    told = {span.attributes["sark_pdp.decision_id"]: span for span in spans}
    by_order = [told[result.response.decision_id] for result in answer.results]
    assert [span.attributes["sark_pdp.outcome"] for span in by_order] == ["allow", "deny", "error"]
    assert [span.status for span in by_order] == [0, 0, 2]
    assert len({span.id for span in spans}) == 3


def test_each_item_of_a_batch_over_http_is_too(traced: Sidecar, shared_collector: Collector) -> None:
    caller = Caller()
    with HttpClient(str(traced.settings["listen.http"])) as client:
        items = [{"case": "allow"}, {"case": "deny"}]
        assert client.post(BATCH, {"requests": items}, traceparent=caller.header()).status == 200
    shared_collector.wait_for(caller.id, 2)


def test_a_filter_is_one_span(traced: Sidecar, shared_collector: Collector, channel: Channel) -> None:
    caller, resources = Caller(), [Struct(), Struct(), Struct()]
    for index, resource in enumerate(resources):
        resource.update({"id": f"tool-{index}"})
    asked = wire.FilterRequest(template=asking("allow"), resource_field="tool", resources=resources)
    answer = wire.FilterResponse.FromString(call(channel, f"{NATIVE}Filter", asked, caller.header()))
    [span] = shared_collector.wait_for(caller.id)
    assert (span.attributes["sark_pdp.filter.resources"], span.attributes["sark_pdp.filter.allowed"]) == (3, 3)
    assert {response.decision_id for response in answer.responses} == {span.attributes["sark_pdp.decision_id"]}


def test_what_was_exported_is_counted(traced: Sidecar, shared_collector: Collector, channel: Channel) -> None:
    caller = Caller()
    call(channel, CHECK, asking("allow"), caller.header())
    shared_collector.wait_for(caller.id)
    wait_until(lambda: metric(traced, EXPORTED) == len(shared_collector.spans))
    assert metric(traced, DROPPED) == 0


# On other terms ------------------------------------------------------------------------------------------------------


def test_without_an_audit_trail_the_span_of_an_http_request_is_known_too(
    serve: Serve, wire_bundle: Path, shared_state: str, collector: Collector
) -> None:
    served = serve(
        {
            **wire_policy(wire_bundle),
            "state_dir": shared_state,
            "audit.spool_max_bytes": "0",
            "tracing.otlp_endpoint": collector.url,
            "tracing.sample_ratio": 0,
            "tracing.service_name": "a name",
        }
    )
    served.wait_ready()
    caller = Caller()
    with Channel(served.grpc) as channel:
        channel.envoy(http("/allow"))
        channel.envoy(http("/allow", traceparent=caller.header()))
    collector.wait_for(caller.id)
    # The one without a parent was not sampled.
    [span] = collector.spans
    assert span.resource["service.name"] == "a name"


def test_a_collector_is_reached_over_tls_and_must_be_known(
    serve: Serve, wire_bundle: Path, shared_state: str, authority: Authority, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("collector"))
    other = tmp_path / "other"
    other.mkdir()
    collector = Collector(context)
    try:
        for known in (Authority(other).file, authority.file):
            served = serve(
                {
                    **wire_policy(wire_bundle),
                    "state_dir": shared_state,
                    "audit.spool_dir": str(tmp_path / known.parent.name / "audit"),
                    "tracing.otlp_endpoint": collector.url,
                    "tracing.ca_file": str(known),
                }
            )
            served.wait_ready()
            with Channel(served.grpc) as channel:
                channel.check(case="allow")
            wait_until(lambda served=served: metric(served, DROPPED) + metric(served, EXPORTED) == 1)  # type: ignore[misc]
            assert metric(served, EXPORTED) == (known == authority.file)
        assert len(collector.spans) == 1
    finally:
        collector.close()


# A collector in trouble ----------------------------------------------------------------------------------------------


def ask_many(channel: Channel, times: int, number: int = 1000) -> None:
    """A thousand decisions a call."""
    for _ in range(times):
        results = channel.batch(*[asking("allow")] * number)
        assert {result.response.outcome for result in results} == {wire.OUTCOME_ALLOW}


def test_a_collector_that_does_not_answer_delays_nothing_and_what_is_dropped_is_counted(
    serve: Serve, wire_bundle: Path, shared_state: str, collector: Collector
) -> None:
    """All answers come while it holds back its own; what has no room in the queue is lost, and the end does not wait
    longer than its grace for it."""
    collector.answering.clear()
    served = serve(
        {
            **wire_policy(wire_bundle),
            "state_dir": shared_state,
            "tracing.otlp_endpoint": collector.url,
            "shutdown.grace": "1s",
        }
    )
    served.wait_ready()
    with Channel(served.grpc) as channel:
        channel.check(case="allow")
        assert collector.held.wait(TIMEOUT)
        ask_many(channel, 6)
        assert metric(served, DROPPED) >= 6000 - 4096
        assert collector.spans == []
    assert served.stop() == 0
    assert_quiet(served.log)
    assert "spans are lost" in served.log


def test_a_collector_that_is_away_is_told_of_once_and_used_as_soon_as_it_is_back(
    serve: Serve, wire_bundle: Path, shared_state: str, collector: Collector
) -> None:
    collector.statuses = [400] * 3
    served = serve({**wire_policy(wire_bundle), "state_dir": shared_state, "tracing.otlp_endpoint": collector.url})
    served.wait_ready()
    with Channel(served.grpc) as channel, Channel(served.admin) as admin:
        for dropped in range(1, 4):
            channel.check(case="allow")
            wait_until(lambda dropped=dropped: metric(served, DROPPED) == dropped)  # type: ignore[misc]
        assert any("Spans are not exported: " in problem for problem in admin.status().problems)
        channel.check(case="allow")
        collector.wait_for()
        wait_until(lambda: not admin.status().problems)
    messages = [json.loads(line)["message"] for line in served.log.splitlines()]
    told = [message for message in messages if "spans" in message]
    assert [message.partition(":")[0] for message in told] == ["spans are not exported", "spans are exported again"]
    assert_quiet(served.log)


def test_nobody_at_the_address_is_nothing_but_a_warning(serve: Serve, wire_bundle: Path, shared_state: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    served = serve({**wire_policy(wire_bundle), "state_dir": shared_state, "tracing.otlp_endpoint": nowhere})
    served.wait_ready()
    with Channel(served.grpc) as channel:
        ask_many(channel, 1)
        wait_until(lambda: metric(served, DROPPED) == 1000)
    assert served.stop() == 0
    assert_quiet(served.log)


def test_what_was_decided_last_is_exported_before_the_end(
    serve: Serve, wire_bundle: Path, shared_state: str, collector: Collector
) -> None:
    served = serve({**wire_policy(wire_bundle), "state_dir": shared_state, "tracing.otlp_endpoint": collector.url})
    served.wait_ready()
    caller = Caller()
    with Channel(served.grpc) as channel:
        asked = wire.CheckBatchRequest(checks=[asking("allow")] * 1000)
        call(channel, f"{NATIVE}CheckBatch", asked, caller.header())
    assert served.stop() == 0
    assert len([span for span in collector.spans if span.parent == caller.id]) == 1000


# Off -----------------------------------------------------------------------------------------------------------------

IMPORTS = """
import sys
from sark_pdp.app import App
from sark_pdp.settings import load

app = App(load(None, sys.argv[1:]).settings)
app.start()
app.stop()
names = ("opentelemetry", "requests", "sark_pdp.observability.spans", "sark_pdp.observability.otlp")
print(*sorted(name for name in sys.modules if name.startswith(names)))
"""


def settings_of(folder: Path, state: str, **tracing: str) -> list[str]:
    settings = {
        "listen.grpc": f"127.0.0.1:{free_port()}",
        "listen.http": f"127.0.0.1:{free_port()}",
        "listen.metrics": f"127.0.0.1:{free_port()}",
        "listen.admin": f"unix://{folder}/a.sock",
        "audit.spool_dir": str(folder / "audit"),
        "state_dir": state,
        **{f"tracing.{key}": value for key, value in tracing.items()},
    }
    return [f"{key}={value}" for key, value in settings.items()]


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"])
def test_where_it_is_off_nothing_of_it_is_imported(
    sark_pdp: Path, short_dir: Path, shared_state: str, endpoint: str
) -> None:
    """Seen from within a process that has started and stopped."""
    command = [str(sark_pdp.parent / "python"), "-c", IMPORTS]
    arguments = settings_of(short_dir, shared_state, otlp_endpoint=endpoint)
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout.strip()) is bool(endpoint), done.stdout


def test_where_it_is_off_no_metric_tells_of_it(sidecar: Sidecar) -> None:
    status, text = sidecar.get("/metrics")
    assert status == 200
    assert "sark_trace" not in text


WITHOUT = "import sys; sys.modules['opentelemetry'] = None; from sark_pdp.cli import main; main()"


def test_a_missing_package_is_one_line_that_says_what_to_install(
    sark_pdp: Path, short_dir: Path, shared_state: str
) -> None:
    settings = settings_of(short_dir, shared_state, otlp_endpoint="http://127.0.0.1:9")
    arguments = ["serve", *(f"--set={each}" for each in settings)]
    command = [str(sark_pdp.parent / "python"), "-c", WITHOUT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "tracing.otlp_endpoint: needs the package opentelemetry" in line
    assert "install sark-pdp[tracing]" in line
