"""What the fronts count, as Prometheus' metric families."""

from collections.abc import Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from sark_pdp.observability.metrics import FrontReadings

_GAUGES = {
    "connections": ("connections", "Connections that are open."),
    "calls_in_flight": ("calls_in_flight", "Calls of one message each way that wait for an answer."),
    "streams": ("open_streams", "Calls of several messages that are open."),
    "bytes_in_flight": ("in_flight_bytes", "Bytes of messages that are being received or answered."),
    "pool_depth": ("pool_depth", "Messages that wait for a thread of the pool."),
}
"""By field of `FrontReadings`: the end of its name, and its help."""
_COUNTERS = {
    "connections_accepted": ("connections_accepted", "Connections that were taken."),
    "connections_refused": ("connections_refused", "Connections turned away: too many, or no handshake."),
    "calls_begun": ("calls_begun", "Requests that came in, whether they were answered or not."),
    "not_grpc": ("foreign_requests", "Requests that were no gRPC calls."),
    "bytes_in": ("received_bytes", "Bytes received, without those of TLS."),
    "bytes_out": ("sent_bytes", "Bytes sent, without those of TLS."),
}


def front_families(fronts: Sequence[tuple[str, FrontReadings]]) -> list[Metric]:
    """None where there is no front; the label `listener` tells one from the other."""
    if not fronts:
        return []
    labels = ["listener"]
    families: list[Metric] = []
    for field, (name, text) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"sark_front_{name}", text, labels=labels)
        for listener, now in fronts:
            gauge.add_metric([listener], getattr(now, field))
        families.append(gauge)
    for field, (name, text) in _COUNTERS.items():
        counter = CounterMetricFamily(f"sark_front_{name}", text, labels=labels)
        for listener, now in fronts:
            counter.add_metric([listener], getattr(now, field))
        families.append(counter)
    inline = CounterMetricFamily(
        "sark_front_inline_answers", "Messages answered on the front's own thread, without waiting.", labels=labels
    )
    waits = SummaryMetricFamily(
        "sark_front_pool_wait_seconds", "Time that messages waited for a thread of the pool.", labels=labels
    )
    for listener, now in fronts:
        inline.add_metric([listener], now.inline)
        waits.add_metric([listener], count_value=now.pooled, sum_value=now.pool_waited)
    return [*families, inline, waits]
