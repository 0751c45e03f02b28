"""What operators look at: alerts that fire, and a dashboard that the real Prometheus answers every expression of."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sark_pdp.client import Client
from sark_pdp.observability.exposition import CODE_NAMES
from tests.fix_bundles import until
from tests.fix_injector import StartInjector
from tests.fix_otlp import Collector
from tests.fix_prometheus import Prometheus
from tests.fix_publisher import PublisherProcess
from tests.fix_redis import RedisProcess
from tests.fix_serve import Serve, free_port
from tests.fix_tools import ROOT
from tests.fix_writer_process import StartWriter

CHARTS = ROOT / "charts"
DASHBOARD = CHARTS / "sark-pdp" / "dashboards" / "sark-pdp.json"
RULES = CHARTS / "sark-pdp" / "rules" / "sark-pdp.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"
NAME = re.compile(r"\b(?:sark|grpc_server|process)_[a-z0-9_]+")
VARIABLES = {"$namespace": ".*", "$pod": ".*", "$__rate_interval": "1m"}


def expressions() -> list[str]:
    """Those of the dashboard, with its variables as when nothing is chosen."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    for name, value in VARIABLES.items():
        found = [each.replace(name, value) for each in found]
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_the_dashboard_is_what_its_code_makes() -> None:
    """`python charts/dashboard.py > charts/sark-pdp/dashboards/sark-pdp.json` writes it anew."""
    made = subprocess.run([sys.executable, CHARTS / "dashboard.py"], capture_output=True, text=True, check=True).stdout
    assert made == DASHBOARD.read_text()


def test_each_alert_fires_for_what_it_is_for_and_is_silent_else(promtool: Path) -> None:
    """And none is forgotten."""
    cases = ROOT / "tests" / "charts" / "rules_test.yaml"
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(cases)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    tried = {
        (case["alertname"], bool(case.get("exp_alerts")))
        for test in yaml.safe_load(cases.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert tried == {(rule["alert"], fires) for rule in rules() if "alert" in rule for fires in (True, False)}


def test_the_runbook_of_each_alert_is_there() -> None:
    """A heading of docs/operations.md."""
    text = OPERATIONS.read_text()
    headings = {
        re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line[:3] == "## "
    }
    for rule in rules():
        if "alert" in rule:
            file, _, heading = rule["annotations"]["runbook"].partition("#")
            assert (file, heading in headings) == ("docs/operations.md", True), (rule["alert"], headings)


@pytest.fixture
def scraped(
    serve: Serve,
    start_writer: StartWriter,
    start_injector: StartInjector,
    sark_pdp: Path,
    store: str,
    small_registry: str,
    redis_server: RedisProcess,
    redis_prefix: str,
    collector: Collector,
    prometheus: Path,
    tmp_path: Path,
) -> Iterator[Prometheus]:
    """A sidecar with all that it can be connected to, each central process, and who scrapes them."""
    (tmp_path / "mac").write_text("0" * 64)
    shared = {
        "attributes.postgres_dsn": small_registry,
        "cache.l2.url": redis_server.url,
        "cache.l2.prefix": redis_prefix,
    }
    writer = start_writer(store)
    injector = start_injector()
    publisher = PublisherProcess(sark_pdp, tmp_path, shared)
    sidecar = serve(
        {
            **shared,
            "cache.l2.mac_key_file": str(tmp_path / "mac"),
            "cache.l2.timeout": "1s",
            "attributes.timeout": "20s",
            "audit.writer": [writer.address],
            "listen.http": f"127.0.0.1:{free_port()}",
            "tracing.otlp_endpoint": collector.url,
        }
    )
    sidecar.wait_ready()
    with Client(sidecar.grpc, timeout=60) as client:
        for user in ("bob", "nobody", "bob"):
            client.check(user={"id": user}, action="tool:list")
    until(lambda: publisher.get("/readyz")[0] == 200)
    server = Prometheus(
        prometheus,
        tmp_path,
        {
            "sidecar": sidecar.metrics,
            "writer": writer.metrics,
            "publisher": publisher.address,
            "injector": str(injector.settings["listen.metrics"]),
        },
    )
    try:
        yield server
    finally:
        server.stop()
        publisher.process.kill()
        publisher.process.wait()


def test_prometheus_knows_what_dashboard_and_alerts_ask_for(scraped: Prometheus) -> None:
    """Each expression is one, and each metric in it is exported by a running process."""
    scraped.wait_scraped(4)
    asked = [*expressions(), *(rule["expr"] for rule in rules()), *selectors()]
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    exported = exported_names(scraped)
    for expression in asked:
        scraped.query(expression)
        missing = {name for name in NAME.findall(expression) if name not in exported}
        assert not missing, expression
        assert set(re.findall(r"\bsark:[a-z0-9_:]+", expression)) <= recorded
        for label, value in values_named(expression):
            known = CODE_NAMES if label == "grpc_code" else scraped.get(f"label/{label}/values")
            assert value in known, expression
    assert not {name for name in NAME.findall(OPERATIONS.read_text()) if name not in exported}
    assert float(scraped.query("sum(sark_decisions_total)")[0]["value"][1]) == 3
    scraped.wait_for("sum(sark_trace_spans_exported_total) == 3")
    assert not scraped.query("up == 0")


def selectors() -> list[str]:
    """Those that docs/operations.md names with labels."""
    return re.findall(r"`((?:sark|grpc_server)_[a-z_]+{[^`]*=[^`]*})`", OPERATIONS.read_text())


def values_named(expression: str) -> list[tuple[str, str]]:
    """Labels and what they are compared with, but for what is chosen in the dashboard, and what is not wanted."""
    found = re.findall(r'([a-z_]+)=~?"([^"]*)"', expression)
    return [(label, value) for label, values in found for value in values.split("|") if value != ".*"]


def exported_names(server: Prometheus) -> set[str]:
    """Of all series that the targets may have: those of a histogram or counter that has none yet, too."""
    metadata = server.get("targets/metadata")
    names = {each["metric"] for each in metadata} | set(server.get("label/__name__/values"))
    suffixes = ("_total", "_bucket", "_count", "_sum", "_info")
    return names | {name + suffix for name in names for suffix in suffixes}
