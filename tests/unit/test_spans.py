"""Spans: which decisions become one, what it tells, and that nothing waits for whoever takes them."""

import re
import threading
import time
from collections.abc import Sequence
from functools import partial

import pytest
from msgspec.structs import replace

from sark_pdp.model import AuditRecord, DecisionRecord, FilterRecord, LifecycleRecord, Outcome, Seconds, Tier
from sark_pdp.observability.otlp import OtlpExporter
from sark_pdp.observability.spans import Finished, Spans, TracedSink
from tests.fix_audit import MemorySink, a_decision, a_record, a_request, new_id
from tests.fix_native import wait_until
from tests.fix_otlp import Collector

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TIMEOUT = Seconds(60.0)


def parent(flags: str) -> str:
    return f"00-{TRACE}-{SPAN}-{flags}"


class Holding:
    """Takes what it gets, once it is let; gives up when told to."""

    def __init__(self) -> None:
        self.got: list[Finished] = []
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self.answers: list[str | Exception] = []
        self.aborted = False

    def export(self, finished: Sequence[Finished]) -> str:
        self.began.set()
        self.go.wait()
        if self.aborted:
            return "gave up"
        answer = self.answers.pop(0) if self.answers else ""
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            self.got += finished
        return answer

    def abort(self) -> None:
        self.aborted = True
        self.go.set()


def traced(record: DecisionRecord, trace: str) -> DecisionRecord:
    return replace(record, request=replace(record.request, trace=trace))


def told(
    *records: DecisionRecord | FilterRecord | LifecycleRecord,
    ratio: float = 1.0,
    chance: float = 0.5,
    sink: MemorySink | None = None,
) -> list[Finished]:
    """What is exported of these."""
    exporter = Holding()
    spans = Spans(exporter)
    spans.start()
    traced_sink = TracedSink(sink or MemorySink(), spans, ratio, lambda: chance)
    for record in records:
        traced_sink.put_nowait(record)
    spans.close(TIMEOUT)
    return exporter.got


SAMPLING = [
    # A parent decides, whatever the ratio.
    (parent("01"), 0.0, True),
    (parent("03"), 0.0, True),
    (parent("0b"), 0.0, True),
    (parent("00"), 1.0, False),
    (parent("02"), 1.0, False),
    (parent("fe"), 1.0, False),
    # Without one, chance does; here it says 0.5.
    ("", 1.0, True),
    ("", 0.51, True),
    ("", 0.5, False),
    ("", 0.0, False),
]


@pytest.mark.parametrize(("trace", "ratio", "sampled"), SAMPLING)
def test_the_caller_decides_whether_a_decision_is_traced_else_the_ratio(
    trace: str, ratio: float, sampled: bool
) -> None:
    record = traced(a_record({"user": "eve"}), trace)
    filtered = FilterRecord(new_id(), 5, "tool", (record.request,), (record.decision,), 1, 1)
    assert [each.id for each in told(record, filtered, ratio=ratio)] == ([record.id, filtered.id] if sampled else [])


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_span_tells_how_a_decision_came_out_and_nothing_of_its_document(outcome: Outcome) -> None:
    record = traced(a_record({"user": "eve"}, outcome=outcome), parent("01"))
    [finished] = told(record)
    assert finished == Finished(
        parent("01"),
        record.id,
        record.request.entrypoint,
        record.time_ns,
        record.latency_ns,
        outcome,
        record.decision.tier,
        record.decision.age,
    )


def test_the_audit_trail_gets_every_record_and_says_what_is_kept() -> None:
    """Sampled or not; events that are no decisions are no spans."""
    sink = MemorySink(capacity=2)
    spans = Spans(Holding())
    both = TracedSink(sink, spans, 0.0, lambda: 0.5)
    lifecycle = LifecycleRecord(new_id(), 1, "source_started", "low", {})
    records: list[AuditRecord] = [traced(a_record({}), parent("01")), lifecycle, a_record({})]
    assert [both.put_nowait(record) for record in records] == [True, True, False]
    assert sink.records == records[:2]


@pytest.mark.parametrize("required", [True, False])
def test_a_decision_that_was_not_given_is_no_span_of_it(required: bool) -> None:
    """Where it must be recorded and is not, the caller got an error instead, with another id."""
    record = traced(a_record({}), parent("01"))
    filtered = FilterRecord(new_id(), 5, "tool", (record.request,), (record.decision,), 1, 1)
    one, many = told(record, filtered, sink=MemorySink(capacity=0, deny=required))
    expected = (Outcome.ERROR, None, Tier.EVALUATED) if required else (Outcome.ALLOW, record.id, Tier.L1)
    assert (one.outcome, one.id, one.tier) == expected
    assert (many.outcome, many.allowed) == ((Outcome.ERROR, 0) if required else (Outcome.ALLOW, 1))


FILTERS = [
    ([Outcome.DENY, Outcome.ALLOW, Outcome.ERROR], Outcome.ALLOW),
    ([Outcome.DENY, Outcome.ERROR], Outcome.ERROR),
    ([Outcome.UNDEFINED, Outcome.DENY], Outcome.DENY),
    ([Outcome.UNDEFINED], Outcome.UNDEFINED),
]


@pytest.mark.parametrize(("outcomes", "outcome"), FILTERS)
def test_a_filter_is_one_span_with_the_outcome_of_its_event(outcomes: list[Outcome], outcome: Outcome) -> None:
    request = replace(a_request({}), trace=parent("01"))
    decisions = tuple(a_decision(request, each) for each in outcomes)
    record = FilterRecord(new_id(), 5, "tool", (request,) * len(outcomes), decisions, 1, 1)
    [finished] = told(record)
    assert (finished.id, finished.outcome, finished.tier) == (record.id, outcome, None)
    assert (finished.resources, finished.allowed) == (len(outcomes), outcomes.count(Outcome.ALLOW))


def finished_one() -> Finished:
    return Finished("", new_id(), a_request({}).entrypoint, 5, 1, Outcome.ALLOW, Tier.L1, Seconds(0.0))


def metrics_of(spans: Spans) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in spans.collect()
        for sample in family.samples
        if "_created" not in sample.name
    }


def test_what_finds_no_room_is_dropped_and_counted_while_an_export_hangs() -> None:
    exporter = Holding()
    exporter.go.clear()
    spans = Spans(exporter, capacity=3)
    spans.start()
    first = finished_one()
    spans.put_nowait(first)
    assert exporter.began.wait(TIMEOUT)
    rest = [finished_one() for _ in range(5)]
    for each in rest:
        spans.put_nowait(each)
    assert spans.dropped == 2
    exporter.go.set()
    spans.close(TIMEOUT)
    assert exporter.got == [first, *rest[:3]]
    assert metrics_of(spans) == {"sark_trace_spans_exported_total": 4, "sark_trace_spans_dropped_total": 2}


def test_after_the_end_nothing_is_queued() -> None:
    spans = Spans(exporter := Holding())
    spans.start()
    spans.close(TIMEOUT)
    spans.put_nowait(finished_one())
    assert (spans.dropped, exporter.got) == (1, [])


def test_no_span_is_left_behind_by_a_thread_that_sleeps() -> None:
    """Each comes when the thread may just have found nothing to do."""
    spans = Spans(exporter := Holding())
    spans.start()
    for number in range(1, 4):
        spans.put_nowait(finished_one())
        wait_until(partial(lambda expected: len(exporter.got) == expected, number))
    spans.close(TIMEOUT)
    assert spans.dropped == 0


@pytest.mark.parametrize("trouble", ["refused", ZeroDivisionError("secret")], ids=["refused", "raised"])
def test_spans_that_were_not_taken_are_counted_and_it_is_said_once(
    trouble: str | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sark_pdp")
    exporter = Holding()
    exporter.answers = [trouble, trouble]
    spans = Spans(exporter)
    spans.start()
    for dropped in (1, 2):
        spans.put_nowait(finished_one())
        wait_until(partial(lambda expected: spans.dropped == expected, dropped))
    [problem] = spans.problems()
    assert problem.startswith("Spans are not exported: ")
    assert "secret" not in problem
    spans.put_nowait(finished_one())
    wait_until(lambda: len(exporter.got) == 1)
    wait_until(lambda: spans.problems() == [])
    spans.close(TIMEOUT)
    said = [each.getMessage() for each in caplog.records if each.getMessage() != "spans could not be exported"]
    assert [line.partition(":")[0] for line in said] == ["spans are not exported", "spans are exported again"]


def test_the_end_waits_no_longer_than_its_grace_and_gives_up_on_what_hangs() -> None:
    exporter = Holding()
    exporter.go.clear()
    spans = Spans(exporter)
    spans.start()
    spans.put_nowait(finished_one())
    assert exporter.began.wait(TIMEOUT)
    spans.close(Seconds(0.05))
    assert exporter.aborted


def test_the_end_does_not_wait_for_a_collector_that_is_known_to_be_away() -> None:
    exporter = Holding()
    exporter.answers = ["away"]
    spans = Spans(exporter)
    spans.start()
    spans.put_nowait(finished_one())
    wait_until(lambda: spans.dropped == 1)
    spans.close(TIMEOUT)
    assert exporter.aborted


# OTLP ---------------------------------------------------------------------------------------------------------------


def test_a_span_continues_the_trace_of_the_caller(collector: Collector) -> None:
    exporter = OtlpExporter(collector.url, None, "a service", "pod-1")
    record = traced(a_record({"user": "eve"}), parent("01"))
    [finished] = told(record)
    before = time.time_ns()
    assert exporter.export([finished, replace(finished, parent="", outcome=Outcome.ERROR, id=None)]) == ""
    assert time.time_ns() >= before
    child, root = collector.spans
    assert collector.paths == {"/v1/traces"}
    assert (child.name, child.trace, child.parent) == ("sark_pdp.decide", TRACE, SPAN)
    assert re.fullmatch("[0-9a-f]{16}", child.id)
    assert (child.end_ns, child.end_ns - child.start_ns) == (record.time_ns, record.latency_ns)
    assert child.attributes == {
        "sark_pdp.entrypoint": record.request.entrypoint.name,
        "sark_pdp.policy.revision": record.request.entrypoint.revision,
        "sark_pdp.outcome": "allow",
        "sark_pdp.tier": "l1",
        "sark_pdp.age_seconds": 1.5,
        "sark_pdp.decision_id": record.id,
    }
    assert child.resource["service.name"] == "a service"
    assert child.resource["service.instance.id"] == "pod-1"
    assert child.scope[0] == "sark_pdp"
    assert (root.parent, root.status, child.status) == ("", 2, 0)
    assert re.fullmatch("(?!0{32})[0-9a-f]{32}", root.trace)
    assert root.trace != TRACE
    assert "sark_pdp.decision_id" not in root.attributes
    exporter.abort()


def test_a_path_of_ones_own_is_kept_and_a_refusal_is_told(collector: Collector) -> None:
    collector.statuses = [400]
    exporter = OtlpExporter(f"{collector.url}/mine?tenant=a", None, "a service", "pod-1")
    assert "400" in exporter.export([finished_one()])
    assert exporter.export([finished_one()]) == ""
    assert collector.paths == {"/mine?tenant=a"}
    exporter.abort()
    assert exporter.export([finished_one()]) != ""
