"""Every case of `tests/cases`, decided alike by engine, cache, each transport that can carry it, and OPA itself."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
import yaml
from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.addresses import TcpAddress
from sark_pdp.audit.event import Payloads, event_of
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.decision.service import DecisionService
from sark_pdp.engine.bundle import read_bundle
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedPolicies, Policies
from sark_pdp.interfaces import Decider
from sark_pdp.model import AuditRecord, Json, Outcome, Seconds, Tier
from sark_pdp.observability.metrics import Metrics
from sark_pdp.observability.requests import HttpMetrics
from sark_pdp.projection import Projection
from sark_pdp.settings import default_bundle
from sark_pdp.transport import ext_authz, native
from sark_pdp.transport.carrier import Limits
from sark_pdp.transport.documents import Documents
from sark_pdp.transport.ext_authz.bodies import Bodies
from sark_pdp.transport.ext_authz.document import InputReader
from sark_pdp.transport.grpc_server import GrpcServer
from sark_pdp.transport.http.application import application, label
from sark_pdp.transport.http.asking import Asking
from sark_pdp.transport.http.endpoints import endpoints
from sark_pdp.transport.http.gate import Gate
from sark_pdp.transport.http.listener import Listener
from sark_pdp.transport.questions import Questions
from tests.fix_audit import MemorySink
from tests.fix_engine import MEBI, StillClock, a_question, a_runtime, prepared
from tests.fix_http import EVALUATE, HttpClient

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "tests" / "cases").glob("*.yaml"))
Case: TypeAlias = dict[str, Any]
CASES: dict[str, Case] = {
    f"{file.stem}: {case['name']}": case for file in FILES for case in yaml.safe_load(file.read_text())["cases"]
}
EVERY = pytest.mark.parametrize("name", CASES)
TUESDAY_NOON = "2026-03-03T12:00:00Z"
"""Where a case says nothing of the time."""
TTL = Seconds(10.0)
MAX_DEPTH = 30

AUTHORIZATION = frozenset(field.name for field in wire.Authorization.DESCRIPTOR.fields)
ENVOY = {name: case for name, case in CASES.items() if "attributes" in case["input"]}
TYPED = {
    name: case
    for name, case in CASES.items()
    if case["input"].keys() <= AUTHORIZATION
    and all(type(part) is (str if field == "action" else dict) for field, part in case["input"].items())
}
"""Those whose documents `Authorization` can say."""


def now_ns(case: Case) -> int:
    # YAML may have read it as a time already.
    stated = case.get("now", TUESDAY_NOON)
    time = stated if isinstance(stated, datetime) else datetime.fromisoformat(stated)
    return round(time.timestamp() * 1000) * 1_000_000


@pytest.fixture(scope="module")
def clock() -> StillClock:
    return StillClock(0)


@pytest.fixture(scope="module")
def policies(compiled_folder: Path, clock: StillClock) -> Iterator[Policies]:
    """The bundle that the repository carries."""
    with a_runtime(compiled_folder, Seconds(30.0), 64 * MEBI, clock) as runtime:
        made = Policies(runtime)
        made.activate(prepared(default_bundle()))
        yield made


@pytest.fixture
def active(policies: Policies) -> LoadedPolicies:
    return policies.active()


def evaluator() -> Evaluator:
    return Evaluator(lambda *_: None)


# What a case wants ---------------------------------------------------------------------------------------------------


def require(case: Case, outcome: Outcome, reason: str, result: Json) -> None:
    """The decision, and what the entrypoint returned, are what the case wants."""
    want = case["want"]
    assert (outcome.name.lower(), outcome is Outcome.ALLOW, reason) == (want["outcome"], want["allow"], want["reason"])
    for field in ("cache_ttl", "remove_parameters", "redact_parameters", "http_status", "headers", "json_rpc_error"):
        if field in want:
            assert result[field] == want[field]
    if "body" in want:
        assert json.loads(result["body"]) == want["body"]


def require_json_rpc(want: Mapping[str, Any], body: Any, told: Mapping[str, Any]) -> None:
    """The body is the error of the case, under the id of the call, and says which decision it was."""
    ids = {"decision_id": told["decision_id"], "policy_revision": told["policy_revision"]}
    error = {**want["json_rpc_error"], "data": {"reason": want["reason"], **ids}}
    assert body == {"jsonrpc": "2.0", "id": want["answered"]["id"], "error": error}


def require_audited(case: Case, record: AuditRecord, decision_id: str) -> None:
    """The event that the record becomes."""
    event = event_of(Payloads("test/1").payload(record, 1))
    want = case["want"]
    assert (event.id, event.policy_id, event.decision) == (decision_id, case["entrypoint"], want["outcome"])
    assert event.details["reason"] == want["reason"]
    assert {field: getattr(event, field) for field in case.get("audit", {})} == case.get("audit", {})


# OPA -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opa_results(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Json]:
    """What OPA returns for each case, given the whole input; one run for each file."""
    folder = tmp_path_factory.mktemp("oracle")
    results: dict[str, Json] = {}
    for file in FILES:
        cases = {name: case for name, case in CASES.items() if name.startswith(f"{file.stem}: ")}
        entrypoints = sorted({case["entrypoint"] for case in cases.values()})
        parts = [
            f"[[name, x] | some name, case in input; case.entrypoint == {json.dumps(entrypoint)}; "
            f"x := data.{entrypoint.replace('/', '.')} with input as case.input with time.now_ns as case.now]"
            for entrypoint in entrypoints
        ]
        (folder / "oracle.rego").write_text(f"package oracle\n\nresults := [{', '.join(parts)}]\n")
        asked = {name: {**case, "now": now_ns(case)} for name, case in cases.items()}
        (folder / "input.json").write_text(json.dumps(asked))
        options: list[str | Path] = ["--format=json", f"--bundle={ROOT / 'policies'}", "--data=oracle.rego"]
        run = subprocess.run(
            [opa, "eval", *options, "--input=input.json", "data.oracle.results"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        for part in json.loads(run.stdout)["result"][0]["expressions"][0]["value"]:
            results.update(dict(part))
    return results


def comparable(result: Json) -> Json:
    """With the body decoded: the order of its keys means nothing."""
    return {**result, "body": json.loads(result["body"])} if "body" in result else result


@EVERY
def test_opa_and_the_engine_return_the_same(
    name: str, opa_results: Mapping[str, Json], active: LoadedPolicies, clock: StillClock
) -> None:
    """OPA is given the whole input, the engine what the entrypoint reads of it."""
    case = CASES[name]
    clock.time_ns = now_ns(case)
    decision = evaluator().decide(a_question(active.entrypoint(case["entrypoint"]), case["input"]))
    assert comparable(decision.verdict.result) == comparable(opa_results[name])
    require(case, decision.verdict.outcome, decision.verdict.reason, decision.verdict.result)


# The cache -----------------------------------------------------------------------------------------------------------


@EVERY
def test_a_cached_answer_is_the_evaluated_one(name: str, active: LoadedPolicies, clock: StillClock) -> None:
    case = CASES[name]
    clock.time_ns = now_ns(case)
    decider = CachedDecider(evaluator(), MemoryStore(10), TTL)
    request = a_question(active.entrypoint(case["entrypoint"]), case["input"])
    first, second = decider.decide(request), decider.decide(request)
    require(case, first.verdict.outcome, first.verdict.reason, first.verdict.result)
    assert second.verdict == first.verdict
    assert second.projected == first.projected
    assert first.id != second.id
    # No entrypoint of these is deterministic, so only what states its lifetime is kept.
    cacheable = bool(first.verdict.cache_ttl)
    assert (first.tier, second.tier) == (Tier.EVALUATED, Tier.L1 if cacheable else Tier.EVALUATED)
    assert (second.reusable > 0) is cacheable


# The transports ------------------------------------------------------------------------------------------------------


class Served:
    """The services on real servers, without a cache: the time of the cases is not that of the cache."""

    def __init__(self, policies: Policies) -> None:
        self.audit = MemorySink()
        metrics = Metrics()
        answers = ext_authz.Answers()
        bare = evaluator()

        def service(decider: Decider) -> DecisionService:
            return DecisionService(policies, decider, self.audit, metrics.decision)

        envoy = service(ext_authz.ReviewedDecider(bare, answers))
        plain = service(bare)
        questions = Questions(Documents(MEBI, MAX_DEPTH, 1000), "sark/mcp/decision")
        methods = {
            **native.methods(plain, questions, 100),
            ext_authz.CHECK: ext_authz.ExtAuthz(
                envoy, answers, "envoy/authz/allow", max_input_bytes=MEBI, max_depth=MAX_DEPTH, max_values=1000
            ),
        }
        limits = Limits(100, 16 * MEBI, 4 * MEBI)
        self._server = GrpcServer(methods, limits, metrics)
        address = self._server.listen(TcpAddress("127.0.0.1", 0), "listen.grpc")
        self._server.start()
        self._channel = grpc.insecure_channel(str(address))
        api = endpoints(Asking(plain, questions, 100, 1000), None, None, "1")
        counted = HttpMetrics([label(each.path) for each in api])
        self._gate = Gate(limits, metrics.shed.inc)
        self._listener = Listener(application(api, questions, self._gate, counted), None)
        self.http = self._listener.listen(TcpAddress("127.0.0.1", 0), "listen.http", 0o600, None)
        self._listener.start()

    def check(self, request: wire.CheckRequest) -> wire.CheckResponse:
        call: Any = self._channel.unary_unary(f"/{native.SERVICE}/Check")
        return wire.CheckResponse.FromString(call(request.SerializeToString(), timeout=30))

    def envoy(self, request: CheckRequest) -> CheckResponse:
        call: Any = self._channel.unary_unary(ext_authz.CHECK)
        return CheckResponse.FromString(call(request.SerializeToString(), timeout=30))

    def post(self, path: str, document: Any) -> Any:
        with HttpClient(str(self.http)) as client:
            answer = client.post(path, document)
        assert answer.status == 200, answer.body
        return answer.json

    def close(self) -> None:
        self._listener.stop(Seconds(1.0))
        self._gate.close()
        self._channel.close()
        self._server.stop(Seconds(1.0))


@pytest.fixture(scope="module")
def served(policies: Policies) -> Iterator[Served]:
    made = Served(policies)
    yield made
    made.close()


def as_json(document: Any) -> wire.CheckRequest:
    return wire.CheckRequest(input_json=json.dumps(document).encode())


def as_struct(document: Any) -> wire.CheckRequest:
    request = wire.CheckRequest()
    json_format.ParseDict(document, request.input)
    return request


def as_authorization(document: Any) -> wire.CheckRequest:
    request = wire.CheckRequest(authorization=wire.Authorization(action=document.get("action", "")))
    for field, part in document.items():
        if field != "action":
            getattr(request.authorization, field).CopyFrom(json_format.ParseDict(part, Struct()))
    return request


FORMS = [
    *[pytest.param(name, as_json, id=f"{name}-input_json") for name in CASES],
    *[pytest.param(name, as_struct, id=f"{name}-input") for name in CASES],
    *[pytest.param(name, as_authorization, id=f"{name}-authorization") for name in TYPED],
]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_native_caller_is_told_the_decision(name: str, form: Any, served: Served, clock: StillClock) -> None:
    case = CASES[name]
    clock.time_ns = now_ns(case)
    request = form(case["input"])
    request.policy, request.request_id = case["entrypoint"], "a request"
    answer = served.check(request)
    require(case, Outcome(answer.outcome), answer.reason, json.loads(answer.result_json))
    assert (answer.allow, answer.tier) == (case["want"]["allow"], wire.TIER_EVALUATED)
    assert answer.policy_revision == read_bundle(default_bundle()).revision
    require_audited(case, served.audit.records.pop(), answer.decision_id)
    assert served.audit.records == []


FLAT = {name: case for name, case in CASES.items() if "input" not in case["input"]}
"""Those whose documents may stand beside `policy`."""
ASKED_OVER_HTTP = [
    *[pytest.param(name, False, id=f"{name}-input") for name in CASES],
    *[pytest.param(name, True, id=f"{name}-flat") for name in FLAT],
]


@pytest.mark.parametrize(("name", "flat"), ASKED_OVER_HTTP)
def test_a_caller_over_http_is_told_the_decision(name: str, flat: bool, served: Served, clock: StillClock) -> None:
    case = CASES[name]
    clock.time_ns = now_ns(case)
    document = case["input"] if flat else {"input": case["input"]}
    answer = served.post(EVALUATE, {**document, "policy": case["entrypoint"], "request_id": "a request"})
    require(case, Outcome[answer["outcome"].upper()], answer["reason"], answer["result"])
    assert (answer["allow"], answer["tier"]) == (case["want"]["allow"], "evaluated")
    assert answer["policy_revision"] == read_bundle(default_bundle()).revision
    require_audited(case, served.audit.records.pop(), answer["decision_id"])
    assert served.audit.records == []


@EVERY
def test_a_client_of_opas_data_api_is_given_the_result(name: str, served: Served, clock: StillClock) -> None:
    case = CASES[name]
    clock.time_ns = now_ns(case)
    answer = served.post(f"/v1/data/{case['entrypoint']}", {"input": case["input"]})
    record = served.audit.records.pop()
    outcome = Outcome[case["want"]["outcome"].upper()]
    assert "warning" not in answer, answer
    assert ("result" in answer) is (outcome is not Outcome.UNDEFINED)
    if "result" in answer:
        require(case, outcome, case["want"]["reason"], answer["result"])
    require_audited(case, record, answer["decision_id"])


def said(value: Any) -> Any:
    """Without empty objects, which protobuf does not tell from absent ones."""
    if type(value) is not dict:
        return value
    return {name: said(below) for name, below in value.items() if below != {}}


@pytest.mark.parametrize("name", ENVOY)
def test_envoy_is_told_the_decision(name: str, served: Served, clock: StillClock) -> None:
    case = CASES[name]
    clock.time_ns = now_ns(case)
    attributes = json_format.ParseDict(case["input"]["attributes"], AttributeContext())
    read = (
        InputReader(Projection([()]), Bodies(MAX_DEPTH - 1, 1000), MAX_DEPTH, recorded=True).read(attributes).document
    )
    assert said({field: read[field] for field in case["input"]}) == said(case["input"])
    answer = served.envoy(CheckRequest(attributes=attributes))
    want = case["want"]
    allowed = answer.WhichOneof("http_response") == "ok_response"
    assert (allowed, answer.status.code == 0) == (want["allow"], want["allow"])
    if not allowed:
        denied = answer.denied_response
        headers = {option.header.key: option.header.value for option in denied.headers}
        assert {**headers, **want.get("headers", {})} == headers
        wanted = want.get("answered", want)
        assert denied.status.code == wanted.get("http_status", 403)
        assert "body" not in want or json.loads(denied.body) == want["body"]
        if "answered" in want:
            require_json_rpc(want, json.loads(denied.body), answer.dynamic_metadata)
    require_audited(case, served.audit.records.pop(), answer.dynamic_metadata["decision_id"])
    assert served.audit.records == []


def test_each_form_and_transport_carries_some_case() -> None:
    assert min(len(CASES), len(TYPED), len(ENVOY)) > 10
