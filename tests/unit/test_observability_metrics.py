"""Metrics: every count arrives, under the names and labels that dashboards expect."""

import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sark_pdp.interfaces import StoreStatistics
from sark_pdp.model import Outcome, Seconds, Tier
from sark_pdp.observability.bundles import BundleReading
from sark_pdp.observability.exposition import AuditReadings, Readings, registry
from sark_pdp.observability.instruments import Counter, Histogram
from sark_pdp.observability.metrics import EVALUATION_BUCKETS, FrontReadings, Metrics

READINGS = Readings(
    stores=lambda: [StoreStatistics("l1", entries=3, capacity=10, hits=5, misses=7)],
    bundles=lambda: [BundleReading("default", "r1", failing=False)],
    audit=lambda: AuditReadings(2, 4096, 1, ships=True, shipped=9, lag_seconds=1.5),
)


@pytest.fixture
def often_switching() -> Iterator[None]:
    """Lets threads interrupt each other as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def scraped(registry: CollectorRegistry, metric: str, /, **labels: str) -> float | None:
    """One sample, as a scraper reads it from the text."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    return samples.get((metric, frozenset(labels.items())))


@pytest.mark.usefixtures("often_switching")
def test_no_count_is_lost_between_threads() -> None:
    counter, histogram, metrics = Counter(), Histogram((1.0,)), Metrics()

    def count() -> None:
        for _ in range(20_000):
            counter.inc()
            histogram.observe(0.5)
            metrics.decision(Outcome.ALLOW, Tier.L1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 80_000
    assert histogram.cumulative() == ([("1.0", 80_000), ("+Inf", 80_000)], 40_000.0)
    assert (Outcome.ALLOW, Tier.L1, 80_000) in metrics.decisions()


@given(st.lists(st.floats(0, 1) | st.sampled_from(EVALUATION_BUCKETS)))
def test_a_bucket_counts_what_is_not_above_its_bound(values: list[float]) -> None:
    histogram = Histogram(EVALUATION_BUCKETS)
    for value in values:
        histogram.observe(value)
    buckets, total = histogram.cumulative()
    ordered = sorted(values)
    not_above = [bisect_left(ordered, bound) + ordered.count(bound) for bound in EVALUATION_BUCKETS]
    assert [count for _, count in buckets] == [*not_above, len(values)]
    assert [float(bound) for bound, _ in buckets[:-1]] == list(EVALUATION_BUCKETS)
    assert total == sum(values)


def test_every_metric_is_exposed_under_its_name() -> None:
    metrics = Metrics()
    everything = registry(metrics, READINGS)
    metrics.decision(Outcome.DENY, Tier.EVALUATED)
    metrics.evaluation("sark/mcp/decision", Outcome.DENY, Seconds(0.002))
    check = metrics.calls("/sark.pdp.v1.PolicyDecision/Check", "unary")
    check.handled(0, 0.0002)
    check.handled(3, 0.3)
    metrics.shed.inc()
    metrics.activation.observe(0.2)
    method = {"grpc_type": "unary", "grpc_service": "sark.pdp.v1.PolicyDecision", "grpc_method": "Check"}
    policy = {"policy": "sark/mcp/decision", "decision": "deny"}
    expected: list[tuple[str, dict[str, str], float]] = [
        ("sark_decisions_total", {"outcome": "deny", "tier": "evaluated"}, 1),
        ("sark_decisions_total", {"outcome": "allow", "tier": "l1"}, 0),
        ("sark_policy_evaluation_duration_seconds_bucket", policy | {"le": "0.001"}, 0),
        ("sark_policy_evaluation_duration_seconds_bucket", policy | {"le": "0.0025"}, 1),
        ("sark_policy_evaluation_duration_seconds_count", policy, 1),
        ("sark_policy_evaluation_duration_seconds_sum", policy, 0.002),
        ("grpc_server_handled_total", method | {"grpc_code": "OK"}, 1),
        ("grpc_server_handled_total", method | {"grpc_code": "InvalidArgument"}, 1),
        ("grpc_server_handling_seconds_bucket", method | {"le": "0.005"}, 1),
        ("grpc_server_handling_seconds_count", method, 2),
        ("sark_bundle_activation_seconds_count", {}, 1),
        ("sark_shed_requests_total", {}, 1),
        ("sark_cache_hits_total", {"cache_name": "l1"}, 5),
        ("sark_cache_misses_total", {"cache_name": "l1"}, 7),
        ("sark_cache_entries", {"cache_name": "l1"}, 3),
        ("sark_bundle_info", {"name": "default", "revision": "r1"}, 1),
        ("sark_audit_queue_depth", {}, 2),
        ("sark_audit_spool_bytes", {}, 4096),
        ("sark_audit_dropped_total", {}, 1),
        ("sark_audit_shipped_total", {}, 9),
        ("sark_audit_lag_seconds", {}, 1.5),
    ]
    assert [(name, labels, scraped(everything, name, **labels)) for name, labels, _ in expected] == expected
    assert scraped(everything, "process_resident_memory_bytes") is not None
    assert scraped(everything, "python_gc_collections_total", generation="0") is not None


def test_what_a_front_tells_is_exposed_for_each_listener() -> None:
    metrics = Metrics()
    everything = registry(metrics, READINGS)
    assert scraped(everything, "sark_front_connections", listener="grpc") is None
    told = FrontReadings(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0.25, 14)
    metrics.read_front("grpc", lambda: told)
    metrics.read_front("admin", lambda: FrontReadings(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0))
    expected: list[tuple[str, float]] = [
        ("sark_front_connections", 1),
        ("sark_front_connections_accepted_total", 2),
        ("sark_front_connections_refused_total", 3),
        ("sark_front_calls_begun_total", 4),
        ("sark_front_calls_in_flight", 5),
        ("sark_front_open_streams", 6),
        ("sark_front_foreign_requests_total", 7),
        ("sark_front_received_bytes_total", 8),
        ("sark_front_sent_bytes_total", 9),
        ("sark_front_in_flight_bytes", 10),
        ("sark_front_inline_answers_total", 11),
        ("sark_front_pool_wait_seconds_count", 12),
        ("sark_front_pool_wait_seconds_sum", 0.25),
        ("sark_front_pool_depth", 14),
    ]
    assert [(name, scraped(everything, name, listener="grpc")) for name, _ in expected] == expected
    assert {scraped(everything, name, listener="admin") for name, _ in expected} == {0}


def test_a_dashboard_finds_the_bounds_that_it_asks_for() -> None:
    metrics = Metrics()
    metrics.evaluation("p", Outcome.ALLOW, Seconds(0.0))
    metrics.calls("/s/m", "unary")
    everything = registry(metrics, READINGS)
    for bound in ("0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1"):
        assert scraped(
            everything, "sark_policy_evaluation_duration_seconds_bucket", policy="p", decision="allow", le=bound
        )
    for bound in ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0"):
        name = "grpc_server_handling_seconds_bucket"
        assert scraped(everything, name, grpc_type="unary", grpc_service="s", grpc_method="m", le=bound) == 0


def test_calls_of_one_method_are_counted_together() -> None:
    metrics = Metrics()
    assert metrics.calls("/s/m", "unary") is metrics.calls("/s/m", "unary")
    assert metrics.calls("/s/m", "unary") is not metrics.calls("/s/n", "unary")


def test_a_part_that_cannot_be_read_costs_only_its_own_metrics(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> AuditReadings:
        raise OSError("no spool")

    metrics = Metrics()
    metrics.shed.inc()
    everything = registry(metrics, Readings(READINGS.stores, READINGS.bundles, broken))
    assert scraped(everything, "sark_audit_queue_depth") is None
    assert scraped(everything, "sark_shed_requests_total") == 1
    assert "metrics could not be read" in caplog.text
