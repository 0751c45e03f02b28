"""The chart as helm renders it: well-formed, documented, and what docs/injector.md and the settings say."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sark_pdp.injector.template import SECRET_DIR
from sark_pdp.postgres.connections import parse_dsn
from sark_pdp.quantities import parse_cpu, parse_memory
from sark_pdp.settings import load_as, variables_of
from sark_pdp.settings.audit_writer import WriterSettings
from sark_pdp.settings.injector import InjectorSettings
from sark_pdp.settings.publisher import PublisherSettings
from tests.fix_chart import CHART, KUBE_VERSION, VALUES, find, helm, pod_templates, render, settings_of

ROOT = CHART.parents[1]


def names(file: Path) -> str:
    return file.stem


@pytest.mark.parametrize("values", VALUES, ids=names)
def test_helm_finds_nothing_to_complain_of(values: Path) -> None:
    linted = helm("lint", "--strict", CHART, "--values", values)

    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "WARNING" not in linted.stdout


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["auditWriter.enabled=true"], "auditWriter.enabled needs database.dsn"),
        (["publisher.enabled=true"], "publisher.enabled needs registry.dsn and redis.url"),
        (["bundleServer.enabled=true"], "bundleServer.enabled needs bundleServer.volume"),
        (["migrations.registry.enabled=true"], "needs migrations.registry.dsn or registry.dsn"),
        (["auditWriter.enabled=true", "database.dsn=postgresql://w@db/a"], "auditWriter.tls needs sidecar.secret"),
        (["certificates.mode=existing"], "needs certificates.existing.injectorSecret"),
        (["auditWriter.clientCertificates=true", "auditWriter.tls=false"], "clientCertificates needs auditWriter.tls"),
        (["injector.replica=3"], "additional properties 'replica' not allowed"),
        (["database.dsn=postgresql://writer:secret@db/audit"], "does not match pattern"),
        (["redis.url=redis://:secret@redis"], "does not match pattern"),
        (["runAsUser=0"], "minimum: got 0, want 1"),
        ([f"fullnameOverride={'a' * 40}"], "does not match pattern"),
        (["sidecar.cpuRequest=0"], "exclusiveMinimum"),
        (["sidecar.cpuRequest=0m"], "'not' failed"),
        (["sidecar.cpuRequest=1e3"], "does not match pattern"),
        (["sidecar.cpuLimit=many"], "does not match pattern"),
        (["sidecar.memoryRequest=67108864"], "got number, want string"),
        (["sidecar.memoryLimit=64M"], "does not match pattern"),
        (["sidecar.spoolSize=256"], "got number, want string"),
        (["sidecar.spoolSize=512Ki"], "does not match pattern"),
        (["sidecar.secret=No_Name"], "does not match pattern"),
        (["injector.excludedNamespaces={No_Name}"], "does not match pattern"),
        (["certificates.selfSigned.days=20"], "minimum: got 20, want 21"),
        (
            ["auditWriter.clientCertificates=true"],
            "clientCertificates needs certificates.mode existing, or certManager",
        ),
        (["auditWriter.clientCertificates=true", "certificates.mode=certManager"], "of kind ClusterIssuer"),
        (
            [
                *("auditWriter.clientCertificates=true", "certificates.mode=certManager"),
                *("certificates.certManager.issuerRef.kind=Issuer", "certificates.certManager.issuerRef.name=own"),
            ],
            "of kind ClusterIssuer",
        ),
        (
            ["auditWriter.autoscaling.enabled=true", "auditWriter.autoscaling.minReplicas=11"],
            "minReplicas is above maxReplicas",
        ),
        (["database.dsn=postgresql://w@db/a?password=hunter2"], "name that in database.passwordSecret"),
        (["registry.dsn=postgresql://w@db/a?sslmode=require&password=x"], "name that in registry.passwordSecret"),
        (["migrations.audit.dsn=postgresql://w@db/a?sslpassword=x"], "name that in migrations.audit.passwordSecret"),
        (["migrations.registry.dsn=postgresql://db?password=x"], "name that in migrations.registry.passwordSecret"),
        (["redis.url=redis://redis?password=x"], "redis.url holds a secret"),
    ],
)
def test_what_could_not_work_is_refused_with_what_to_do(values: list[str], said: str) -> None:
    made = helm("template", "x", CHART, "--kube-version=1.34.2", *(f"--set={value}" for value in values))

    assert made.returncode != 0
    assert said in made.stderr


def test_an_older_cluster_is_refused() -> None:
    made = helm("template", "x", CHART, "--kube-version=1.27.0")

    assert "requires kubeVersion" in made.stderr


@pytest.mark.parametrize(
    ("version", "values", "said"),
    [
        ("1.28.15", [], "set sidecar.mode=container"),
        ("1.28.15-eks-1", [], "set sidecar.mode=container"),
        ("1.28.15", ["sidecar.mode=container"], ""),
        ("1.28.15", ["injector.enabled=false"], ""),
        ("1.29.0", [], ""),
        ("1.29.0-eks-1", [], ""),
    ],
)
def test_native_sidecars_need_a_cluster_that_knows_them(version: str, values: list[str], said: str) -> None:
    made = helm("template", "x", CHART, f"--kube-version={version}", *(f"--set={value}" for value in values))

    assert (made.returncode == 0) == (not said), made.stderr
    assert said in made.stderr


@pytest.mark.parametrize("release", ["123", "1st", "a.b"])
def test_a_release_whose_name_no_service_can_have_is_told_what_to_set(release: str) -> None:
    made = helm("template", release, CHART, f"--kube-version={KUBE_VERSION}")

    assert made.returncode != 0
    assert "set fullnameOverride" in made.stderr


@pytest.mark.parametrize(
    ("set_as", "told"),
    [
        ("sidecar.cpuRequest=1", {"cpu_request": "1"}),
        ("sidecar.cpuRequest=1.5", {"cpu_request": "1.5"}),
        ("sidecar.cpuRequest=250m", {"cpu_request": "250m"}),
        ("sidecar.cpuLimit=2", {"cpu_limit": "2"}),
        ("sidecar.cpuLimit=2500m", {"cpu_limit": "2500m"}),
        ("sidecar.memoryLimit=1Gi", {"memory_limit": "1Gi"}),
        ("sidecar.spoolSize=1Gi", {"spool_size": "1Gi"}),
    ],
)
@pytest.mark.parametrize("flag", ["--set", "--set-json"])
def test_amounts_are_texts_that_the_injector_reads(flag: str, set_as: str, told: dict[str, str]) -> None:
    """However helm took them: `--set` makes a whole number of `1`, a file and `--set-json` make a fraction of it."""
    key, _, value = set_as.partition("=")
    given = f"{key}={value}" if flag == "--set" or value.replace(".", "").isdigit() else f'{key}="{value}"'
    sidecar = settings_of(render(f"{flag}={given}"), "injector")["sidecar"]

    assert {name: sidecar[name] for name in told} == told
    parse = parse_cpu if "cpu" in key else parse_memory
    assert all(parse(each) > 0 for each in told.values())


@pytest.mark.parametrize(
    ("values", "reached"),
    [
        ({}, {"audit-writer": {5432}, "publisher": {5432, 6379}, "migrations-hook": {5432}}),
        ({"database.dsn": "postgresql://w@db:5433/a"}, {"audit-writer": {5432, 5433}, "migrations-hook": {5432, 5433}}),
        ({"database.dsn": "postgresql://w@one:6001\\,two:6002/a"}, {"audit-writer": {5432, 6001, 6002}}),
        ({"database.dsn": "postgresql://w@[fd00::1]:6001/a"}, {"audit-writer": {5432, 6001}}),
        ({"database.dsn": "postgresql://w@[fd00::1]/a"}, {"audit-writer": {5432}}),
        ({"database.dsn": "postgresql://w@/a?host=db&port=6001"}, {"audit-writer": {5432, 6001}}),
        ({"database.dsn": "postgresql://w@db/a?options=x:7"}, {"audit-writer": {5432}}),
        ({"auditWriter.settings.database.query_dsn": "host=db port=6001"}, {"audit-writer": {5432, 6001}}),
        ({"registry.dsn": "postgresql://db:6001"}, {"publisher": {5432, 6001, 6379}, "migrations-hook": {5432, 6001}}),
        ({"redis.url": "rediss://redis:6380/0"}, {"publisher": {5432, 6379, 6380}}),
        ({"migrations.registry.dsn": "postgresql://db:6001/a"}, {"migrations-hook": {5432, 6001}}),
        ({"networkPolicy.databasePorts": "{6432}"}, {"audit-writer": {6432}, "publisher": {6432, 6379}}),
    ],
)
def test_stores_are_reached_at_the_ports_that_are_named(values: dict[str, str], reached: dict[str, set[int]]) -> None:
    given = {
        "auditWriter.enabled": "true",
        "auditWriter.tls": "false",
        "publisher.enabled": "true",
        "migrations.registry.enabled": "true",
        "database.dsn": "postgresql://w@db/audit",
        "registry.dsn": "postgresql://w@db/sark",
        "redis.url": "redis://redis",
    } | values
    objects = render(*(f"--set={key}={value}" for key, value in given.items()))

    for component, ports in reached.items():
        rules = find(objects, "NetworkPolicy", f"sark-pdp-{component}")["spec"]["egress"]
        assert {port["port"] for rule in rules for port in rule["ports"]} == {53, *ports}


@pytest.mark.parametrize(("value", "component"), [("writerFrom", "audit-writer"), ("bundlesFrom", "bundle-server")])
def test_others_than_injected_pods_are_admitted_where_they_are_named(value: str, component: str) -> None:
    auditors = {"namespaceSelector": {"matchLabels": {"team": "audit"}}}
    production = ("--values", CHART / "ci" / "production.yaml")
    given = f"--set-json=networkPolicy.{value}={json.dumps([auditors])}"
    ((injected,), both) = (
        find(objects, "NetworkPolicy", f"sark-pdp-{component}")["spec"]["ingress"][0]["from"]
        for objects in (render(*production), render(*production, given))
    )

    assert injected["podSelector"] == {"matchLabels": {"sark.io/injected": "true"}}
    assert both == [injected, auditors]


@pytest.mark.parametrize("values", VALUES, ids=names)
def test_what_a_hook_needs_is_there_before_it(values: Path) -> None:
    """Pods of hooks are under a policy that is a hook itself, and has run; others are under one of the release."""
    objects = render("--values", values)
    policies = [each for each in objects if each["kind"] == "NetworkPolicy" and each["spec"].get("egress")]
    if yaml.safe_load(values.read_text()).get("networkPolicy", {}).get("enabled") is False:
        assert policies == []
        return
    for job in (each for each in objects if each["kind"] == "Job"):
        labels = job["spec"]["template"]["metadata"]["labels"].items()
        (own,) = (each for each in policies if each["spec"]["podSelector"]["matchLabels"].items() <= labels)
        made, needed = (each["metadata"].get("annotations", {}) for each in (job, own))
        assert made.get("helm.sh/hook") == needed.get("helm.sh/hook")
        if made:
            assert int(needed["helm.sh/hook-weight"]) < int(made.get("helm.sh/hook-weight", 0))


def test_the_authority_of_a_database_is_where_libpq_looks_for_it() -> None:
    """In the pods of everybody who reaches it; connection strings ask that it be verified."""
    templates = pod_templates(render("--values", CHART / "ci" / "production.yaml"))
    for name, (volume, secret) in {
        "Deployment sark-pdp-audit-writer": ("database-ca", "audit-database"),
        "Deployment sark-pdp-publisher": ("registry-ca", "registry-database"),
        "Job sark-pdp-migrate-audit": ("database-ca", "audit-database"),
        "Job sark-pdp-migrate-registry": ("database-ca", "registry-database"),
    }.items():
        spec = templates[name]["spec"]
        (container,) = spec["containers"]
        mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        (source,) = (each["secret"] for each in spec["volumes"] if each["name"] == volume)
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert source == {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
        assert variables["PGSSLROOTCERT"] == f"{mounted[volume]}/ca.crt"
    assert all(
        "sslmode=verify-full" in dsn
        for dsn in re.findall(r"postgresql://\S+", (CHART / "ci" / "production.yaml").read_text())
    )


def test_sidecars_find_the_authority_of_the_registry_in_their_secret() -> None:
    told = settings_of(render("--values", CHART / "ci" / "production.yaml"), "injector", "sidecar.yaml")

    root = parse_dsn(told["attributes"]["postgres_dsn"])["sslrootcert"]
    assert Path(root).parent == Path(SECRET_DIR)


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]

    assert _paths(schema, schema) == _paths_of(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_every_value_is_documented_and_the_readme_has_them() -> None:
    generator = _generator()
    source = (CHART / "values.yaml").read_text()
    readme = (CHART / "README.md").read_text()

    assert [value.path for value in generator.values(source) if not value.text] == []
    assert generator.with_table(readme, source) == readme, "run: python charts/values_table.py"


def test_the_webhook_is_that_of_the_documentation() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "injector.md").read_text(), re.MULTILINE | re.DOTALL)
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    (documented,) = (each for each in documents if each.get("kind") == "MutatingWebhookConfiguration")
    (role,) = (each for each in documents if each.get("kind") == "ClusterRole")
    objects = render()

    assert find(objects, "MutatingWebhookConfiguration", "sark-pdp-injector")["webhooks"] == documented["webhooks"]
    assert find(objects, "ClusterRole", "sark-pdp-injector")["rules"] == role["rules"]


@pytest.mark.parametrize("values", VALUES, ids=names)
def test_the_settings_are_ones_that_the_processes_know(values: Path) -> None:
    """Each file that the chart makes is read by the program that gets it; that the files in it exist is not asked."""
    objects = render("--values", values)
    deployed = {each["metadata"]["name"] for each in objects if each["kind"] == "Deployment"}
    for component, known in {
        "injector": InjectorSettings,
        "audit-writer": WriterSettings,
        "publisher": PublisherSettings,
    }.items():
        if f"sark-pdp-{component}" in deployed:
            file = Path(f"{component}.yaml")
            _read(objects, component, file, known)
    assert "sark-pdp-injector" in deployed


def test_sidecars_ship_to_the_writer_and_share_redis() -> None:
    production = render("--values", CHART / "ci" / "production.yaml")
    told = settings_of(production, "injector", "sidecar.yaml")

    assert told["audit"] == {
        "writer": ["sark-pdp-audit-writer.sark-pdp.svc:9010"],
        "tls": {
            "ca_file": "/etc/sark-pdp/secret/ca.crt",
            "cert_file": "/etc/sark-pdp/secret/tls.crt",
            "key_file": "/etc/sark-pdp/secret/tls.key",
        },
    }
    assert told["cache"]["l2"] == {
        "url": "rediss://redis.example:6379/0",
        "prefix": "sark",
        "mac_key_file": "/etc/sark-pdp/secret/mac.keys",
        "password_file": "/etc/sark-pdp/secret/redis-password",
        "ca_file": "/etc/sark-pdp/secret/redis-ca.crt",
    }
    assert settings_of(production, "injector")["sidecar"]["secret"] == "sark-pdp-sidecar"


def test_given_settings_count_before_those_of_the_chart() -> None:
    objects = render("--set=injector.settings.shutdown.grace=3s", "--set=sidecar.settings.log.level=debug")

    assert settings_of(objects, "injector")["shutdown"] == {"grace": "3s"}
    assert settings_of(objects, "injector", "sidecar.yaml") == {"log": {"level": "debug"}}


@pytest.mark.parametrize("values", VALUES, ids=names)
def test_no_secret_is_in_what_is_rendered(values: Path) -> None:
    """Secrets of the chart are empty; passwords are referred to."""
    objects = render("--values", values)

    assert [each for each in objects if each["kind"] == "Secret" and ("data" in each or "stringData" in each)] == []
    for template in pod_templates(objects).values():
        for container in template["spec"]["containers"]:
            secrets = [each for each in container.get("env", ()) if "PASSWORD" in each["name"]]
            assert all("secretKeyRef" in each["valueFrom"] for each in secrets)


def test_whoever_has_a_metrics_port_is_scraped_and_probed() -> None:
    objects = render("--values", CHART / "ci" / "production.yaml")
    monitor = find(objects, "ServiceMonitor", "sark-pdp")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    for component in ("injector", "audit-writer", "publisher"):
        service = find(objects, "Service", f"sark-pdp-{component}")
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert "metrics" in {port["name"] for port in service["spec"]["ports"]}
        (container,) = find(objects, "Deployment", f"sark-pdp-{component}")["spec"]["template"]["spec"]["containers"]
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_rules_and_dashboard_are_those_of_the_files() -> None:
    objects = render("--values", CHART / "ci" / "production.yaml")
    rule = find(objects, "PrometheusRule", "sark-pdp")
    dashboard = find(objects, "ConfigMap", "sark-pdp-dashboard")

    assert rule["spec"] == yaml.safe_load((CHART / "rules" / "sark-pdp.yaml").read_text())
    assert rule["spec"]["groups"]
    assert dashboard["data"]["sark-pdp.json"] == (CHART / "dashboards" / "sark-pdp.json").read_text()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("values", VALUES, ids=names)
def test_nobody_is_reached_or_reaches_out_unless_a_policy_names_it(values: Path) -> None:
    """Every pod of the chart is under the policy that denies all, and under one of its own."""
    objects = render("--values", values)
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    if yaml.safe_load(values.read_text()).get("networkPolicy", {}).get("enabled") is False:
        assert policies == []
        return
    (denied,) = (spec["podSelector"]["matchLabels"] for spec in policies if not {"ingress", "egress"} & spec.keys())
    assert all(spec["policyTypes"] == ["Ingress", "Egress"] for spec in policies)
    for template in pod_templates(objects).values():
        labels = template["metadata"]["labels"].items()
        assert denied.items() <= labels
        own = [spec for spec in policies if spec["podSelector"]["matchLabels"].items() <= labels]
        assert len(own) == 2
    for spec in policies:
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert rule["ports"]


def test_the_writer_scales_by_load_processor_and_memory() -> None:
    scaler = find(
        render("--values", CHART / "ci" / "production.yaml"), "HorizontalPodAutoscaler", "sark-pdp-audit-writer"
    )["spec"]

    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert _targets(scaler) == {"cpu": 70, "memory": 80, "sark_audit_writer_load": "700m"}
    deployment = find(render("--values", CHART / "ci" / "production.yaml"), "Deployment", "sark-pdp-audit-writer")
    assert "replicas" not in deployment["spec"]


def test_the_gateway_scales_as_it_was_asked_to() -> None:
    documents = list(yaml.safe_load_all((CHART / "examples" / "gateway.yaml").read_text()))
    scaler = find(documents, "HorizontalPodAutoscaler", "gateway")["spec"]

    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 50)
    assert _targets(scaler) == {"cpu": 70, "memory": 80, "sark_decisions_per_second": "1000"}
    up, down = scaler["behavior"]["scaleUp"], scaler["behavior"]["scaleDown"]
    assert up == {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
    assert down["stabilizationWindowSeconds"] == 300
    assert down["policies"] == [{"type": "Percent", "value": 50, "periodSeconds": 60}]


def test_what_autoscalers_ask_for_is_what_the_adapter_offers() -> None:
    rules = yaml.safe_load((CHART / "examples" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    offered = {rule["name"]["as"] for rule in rules}
    gateway = find(
        list(yaml.safe_load_all((CHART / "examples" / "gateway.yaml").read_text())),
        "HorizontalPodAutoscaler",
        "gateway",
    )
    writer = find(
        render("--values", CHART / "ci" / "production.yaml"), "HorizontalPodAutoscaler", "sark-pdp-audit-writer"
    )

    asked = {name for scaler in (gateway, writer) for name in _targets(scaler["spec"]) if name.startswith("sark_")}
    assert asked == offered


def test_the_trial_brings_its_stores_and_names_them_everywhere() -> None:
    objects = render("--values", CHART / "ci" / "trial.yaml")

    assert settings_of(objects, "audit-writer")["database"]["dsn"] == "postgresql://sark@sark-pdp-timescaledb:5432/sark"
    assert settings_of(objects, "publisher")["cache"]["l2"]["url"] == "redis://sark-pdp-redis.sark-pdp.svc:6379/0"
    jobs = [each for each in objects if each["kind"] == "Job" and "migrate" in each["metadata"]["name"]]
    assert len(jobs) == 2
    assert all("helm.sh/hook" not in each["metadata"].get("annotations", {}) for each in jobs)


def _read(objects: list[dict[str, Any]], component: str, file: Path, known: type[Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / file
        made.write_text(yaml.safe_dump(settings_of(objects, component)))
        # Raises for a key that is unknown and for a value that cannot be.
        load_as(known, lambda _settings, _origins: None, made, ())
        if component == "injector":
            made.write_text(yaml.safe_dump(settings_of(objects, component, "sidecar.yaml")))
            assert "log.level" in variables_of(made)


def _targets(scaler: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in scaler["metrics"]:
        if metric["type"] == "Resource":
            found[metric["resource"]["name"]] = metric["resource"]["target"]["averageUtilization"]
        else:
            found[metric["pods"]["metric"]["name"]] = metric["pods"]["target"]["averageValue"]
    return found


def _generator() -> Any:
    found = importlib.util.spec_from_file_location("values_table", CHART.parent / "values_table.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return found


def _closed(schema: dict[str, Any]) -> bool:
    """Whether its keys are values of the chart, and not what somebody gives."""
    return schema.get("additionalProperties") is False and "requests" not in schema["properties"]


def _paths(schema: dict[str, Any], whole: dict[str, Any], above: str = "") -> set[str]:
    found: set[str] = set()
    for key, each in schema["properties"].items():
        below = _resolved(each, whole)
        # A reference to the cert-manager's issuer is given as a whole.
        closed = _closed(below) and key != "issuerRef"
        found |= _paths(below, whole, f"{above}{key}.") if closed else {f"{above}{key}"}
    return found


def _paths_of(values: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    known = _paths(schema, schema)
    found: set[str] = set()

    def walk(value: Any, path: str) -> None:
        if path in known or not isinstance(value, dict):
            found.add(path)
            return
        for key, each in value.items():
            walk(each, f"{path}.{key}" if path else key)

    walk(values, "")
    return found
