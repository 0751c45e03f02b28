"""Writes the Grafana dashboard: `python charts/dashboard.py > charts/sark-pdp/dashboards/sark-pdp.json`.

Panels are data here and JSON there; a test compares the two, and asks a real Prometheus every expression.
"""

import json
import re
import sys
from typing import Any, NamedTuple

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 24, 7
"""Of a line of panels, in Grafana's units."""
_COLUMNS = 3
"""At most; a line of fewer panels has wider ones."""
_POD = 'namespace=~"$namespace",pod=~"$pod"'


class Panel(NamedTuple):
    """One graph; `queries` are expressions with their legends.

    In an expression `@` is the selection of pods, and `rate(metric)` that of the pods over the usual interval.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    promised: float | None = None
    """Drawn as a dashed line."""
    colors: tuple[tuple[str, str], ...] = ()
    """Of lines that mean good or bad, by their legend; the others have those of Grafana's palette."""


def _quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({histogram})))", f"p{percent}")
        for share, percent in ((0.5, 50), (0.95, 95), (0.99, 99))
    )


def _latency(service: str) -> tuple[tuple[str, str], ...]:
    return _quantiles(f'grpc_server_handling_seconds_bucket{{grpc_method="Check",grpc_service="{service}",@}}')


_OUTCOMES = (("allow", "green"), ("deny", "orange"), ("error", "red"), ("undefined", "purple"))
_HITS = "sum by (cache_name) (rate(sark_cache_hits_total))"
_MISSES = "sum by (cache_name) (rate(sark_cache_misses_total))"
_SLOW_QUERIES = "histogram_quantile(0.99, sum by (le, operation, table) (rate(sark_db_query_duration_seconds_bucket)))"
_ACTIVATING = "sum(rate(sark_bundle_activation_seconds"
_SHED = "sum(rate(sark_shed_requests_total))"
_BROKEN = '(sum(rate(grpc_server_handled_total{grpc_code=~"Internal|Unavailable|Unknown",@})) or vector(0))'
_BAD = f'sum(rate(sark_decisions_total{{outcome="error",@}})) + {_SHED} + {_BROKEN}'
_ALL = f"sum(rate(sark_decisions_total)) + {_SHED} + {_BROKEN}"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Answers": (
        Panel(
            "Latency of Check",
            "s",
            _latency("sark.pdp.v1.PolicyDecision"),
            "From when a call was taken up until it ended. Promised: 5 ms for 99 %.",
            0.005,
        ),
        Panel(
            "Latency through Envoy",
            "s",
            _latency("envoy.service.auth.v3.Authorization"),
            "Of ext_authz. Promised: 5 ms for 99 %.",
            0.005,
        ),
        Panel(
            "Latency over HTTP",
            "s",
            _quantiles("sark_http_request_duration_seconds_bucket"),
            "Of the JSON API.",
        ),
        Panel(
            "Throughput",
            "reqps",
            (
                ("sum by (grpc_method) (rate(grpc_server_handled_total)) > 0", "{{grpc_method}}"),
                ("sum(rate(sark_http_requests_total))", "HTTP"),
                ("sum(rate(sark_decisions_total))", "decisions"),
            ),
            "A batch is one call and many decisions.",
        ),
        Panel(
            "Decisions by outcome",
            "ops",
            (("sum by (outcome) (rate(sark_decisions_total))", "{{outcome}}"),),
            colors=_OUTCOMES,
        ),
        Panel(
            "Decisions by tier",
            "ops",
            (("sum by (tier) (rate(sark_decisions_total))", "{{tier}}"),),
            "Where answers came from.",
        ),
        Panel(
            "Calls that failed or were shed",
            "reqps",
            (
                (
                    'sum by (grpc_code) (rate(grpc_server_handled_total{grpc_code!="OK",@}))',
                    "{{grpc_code}}",
                ),
                (_SHED, "shed"),
            ),
            colors=(("shed", "red"),),
        ),
        Panel(
            "Bad answers",
            "percentunit",
            ((f"({_BAD}) / (({_ALL}) > 0)", "share"),),
            "Where nobody got a decision: it failed, or the call was shed or broken. Promised: below 0.05 %.",
            0.0005,
        ),
    ),
    "Policies and caches": (
        Panel(
            "Evaluation time",
            "s",
            _quantiles("sark_policy_evaluation_duration_seconds_bucket"),
            "Promised: 2 ms for the half, 5 ms for 95 %, 10 ms for 99 %.",
            0.01,
        ),
        Panel(
            "Hit rate",
            "percentunit",
            ((f"{_HITS} / ({_HITS} + {_MISSES})", "{{cache_name}}"),),
        ),
        Panel(
            "Entries in memory",
            "short",
            (("sum by (cache_name) (sark_cache_entries{@})", "{{cache_name}}"),),
            "Of all.",
        ),
        Panel(
            "Redis",
            "percentunit",
            (
                ("avg(sark_redis_up{@})", "asked"),
                ("avg(sark_cache_channel_trusted{@})", "invalidations heard for sure"),
            ),
            "The share of pods for which it is so.",
        ),
        Panel(
            "Times that Redis was of no use",
            "ops",
            (("sum by (reason) (rate(sark_redis_errors_total)) > 0", "{{reason}}"),),
        ),
        Panel(
            "Invalidations",
            "ops",
            (
                ("sum(rate(sark_publisher_invalidations_total))", "by the publisher"),
                ("sum by (event) (rate(sark_cache_channel_events_total))", "sidecars: {{event}}"),
            ),
            "The publisher makes them of changed rows; each sidecar hears all.",
        ),
        Panel(
            "Revisions",
            "short",
            (("count by (name, revision) (sark_bundle_info{@})", "{{name}} {{revision}}"),),
            "How many pods answer by which.",
        ),
        Panel(
            "Activations of bundles",
            "short",
            (
                ("sum by (name) (increase(sark_bundle_activations_total{@}))", "{{name}}"),
                ("sum by (name) (sark_bundle_failing{@})", "failing: {{name}}"),
            ),
        ),
        Panel(
            "Time of an activation",
            "s",
            ((f"{_ACTIVATING}_sum{{@}}[5m])) / {_ACTIVATING}_count{{@}}[5m]))", "mean"),),
            "From reading a bundle to its first answer, within the last five minutes.",
        ),
    ),
    "Audit trail": (
        Panel(
            "Age of the oldest event on its way",
            "s",
            (("max(sark_audit_lag_seconds{@})", "lag"),),
            "Promised: below a minute.",
            60,
        ),
        Panel(
            "Spools",
            "bytes",
            (("max(sark_audit_spool_bytes{@})", "largest"), ("sum(sark_audit_spool_bytes{@})", "all")),
        ),
        Panel(
            "Events",
            "ops",
            (
                ("sum(rate(sark_audit_shipped_total))", "shipped"),
                ("sum(rate(sark_audit_dropped_total))", "dropped"),
                (
                    "sum by (result) (rate(sark_audit_writer_events_total))",
                    "writer: {{result}}",
                ),
            ),
            colors=(("dropped", "red"), ("writer: rejected", "red")),
        ),
        Panel(
            "Load of the writers",
            "percentunit",
            (("sark_audit_writer_load{@}", "{{pod}}"),),
            "The share of the time in which they commit. Scale above 70 %.",
            0.7,
        ),
        Panel(
            "Waiting in the writers",
            "short",
            (("sum(sark_audit_writer_pending_events{@})", "events"),),
        ),
        Panel("Streams", "short", (("sum(sark_audit_writer_streams{@})", "streams"),)),
    ),
    "Database, traces and processes": (
        Panel(
            "Queries",
            "s",
            ((_SLOW_QUERIES, "p99 {{operation}} {{table}}"),),
        ),
        Panel(
            "Connections",
            "short",
            (("sum(sark_db_pool_size{@})", "open"), ("sum(sark_db_pool_overflow{@})", "above the pool's size")),
        ),
        Panel(
            "Spans",
            "ops",
            (
                ("sum(rate(sark_trace_spans_exported_total))", "exported"),
                ("sum(rate(sark_trace_spans_dropped_total))", "dropped"),
            ),
            "Of decisions, where tracing is on. Dropped: the queue was full, or the collector took none.",
            colors=(("dropped", "red"),),
        ),
        Panel("Memory", "bytes", (("process_resident_memory_bytes{@}", "{{pod}}"),)),
        Panel("Processor", "percentunit", (("rate(process_cpu_seconds_total)", "{{pod}}"),), "Of one core."),
        Panel("Open files", "short", (("process_open_fds{@}", "{{pod}}"),)),
    ),
}


def dashboard() -> dict[str, Any]:
    """In Grafana's own form (schema version 39)."""
    return {
        "uid": "sark-pdp",
        "title": "SARK PDP",
        "tags": ["sark-pdp", "authorization"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    chosen = {"type": "query", "datasource": _SOURCE, "refresh": 2, "includeAll": True, "allValue": ".*", "multi": True}
    everything = {"text": "All", "value": "$__all"}
    pods = 'label_values(process_cpu_seconds_total{namespace=~"$namespace"}, pod)'
    return [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {}},
        {
            **chosen,
            "name": "namespace",
            "label": "Namespace",
            "current": everything,
            "query": "label_values(sark_decisions_total, namespace)",
        },
        {**chosen, "name": "pod", "label": "Pod", "current": everything, "query": pods},
    ]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        top += 1
        for begin in range(0, len(row), _COLUMNS):
            line = row[begin : begin + _COLUMNS]
            width = _WIDTH // len(line)
            for index, panel in enumerate(line):
                place = {"x": index * width, "y": top, "w": width, "h": _HEIGHT}
                panels.append({"id": len(panels) + 1, "gridPos": place, **_drawn(panel)})
            top += _HEIGHT
    return panels


def _drawn(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": _field(panel), "overrides": [_colored(*each) for each in panel.colors]},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": _expanded(expression),
                "legendFormat": legend,
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _field(panel: Panel) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8}}
    if panel.promised is not None:
        steps = [{"color": "transparent", "value": None}, {"color": "red", "value": panel.promised}]
        field["thresholds"] = {"mode": "absolute", "steps": steps}
        field["custom"]["thresholdsStyle"] = {"mode": "dashed"}
    return field


def _colored(legend: str, color: str) -> dict[str, Any]:
    fixed = {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}
    return {"matcher": {"id": "byName", "options": legend}, "properties": [fixed]}


def _expanded(expression: str) -> str:
    selected = re.sub(r"(rate|increase)\((\w+)\)", r"\1(\2{@})", expression)
    ranged = re.sub(r"(rate|increase)\((\w+\{[^}]*\})\)", r"\1(\2[$__rate_interval])", selected)
    return ranged.replace("@", _POD)


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=2)
    print()
