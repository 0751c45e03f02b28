"""The key straight from Envoy's message is the one from the whole document, and so the answer is the same."""

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sark_pdp.cache.key import key_of
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedPolicies, Policies
from sark_pdp.engine.preparation import combine
from sark_pdp.model import Entrypoint, Request, Seconds, Tier
from sark_pdp.projection import Path
from sark_pdp.transport.ext_authz import Answers, ExtAuthz
from sark_pdp.transport.handler import Metadata
from tests.fix_engine import MEBI, Compile, a_bundle, a_question, a_runtime
from tests.fix_ext_authz import ALLOW, Decisions, message
from tests.unit.test_ext_authz_attributes import ATTRIBUTES

HTTP = ("attributes", "request", "http")
READ: dict[str, Path] = {
    "method": (*HTTP, "method"),
    "user": (*HTTP, "headers", "x-user"),
    "size": (*HTTP, "size"),
    "raw": (*HTTP, "rawBody"),
    "map": (*HTTP, "headerMap"),
    "time": ("attributes", "request", "time", "nanos"),
    "source": ("attributes", "source"),
    "port": ("attributes", "destination", "address", "socketAddress", "portValue"),
    "extension": ("attributes", "contextExtensions", "x.y"),
    "metadata": ("attributes", "metadataContext"),
    "sni": ("attributes", "tlsSession", "sni"),
    "path": ("parsed_path",),
    "query": ("parsed_query", "b"),
    "body": ("parsed_body", "a"),
    "truncated": ("truncated_body",),
    "principal": ("source_principal",),
    "version": ("version", "ext_authz"),
}
"""What the policy tells of its input, each where it is defined."""

POLICY = "package t\n\nanswer := {name: value | some [name, value] in seen}\n" + "".join(
    f'\nseen contains ["{name}", input{"".join(f"[{chr(34)}{step}{chr(34)}]" for step in path)}]\n'
    for name, path in READ.items()
)


@pytest.fixture(scope="module")
def loaded(compile_rego: Compile, compiled_folder: FilePath) -> Iterator[dict[str, LoadedPolicies]]:
    """The policy keyed by what it reads, and by everything."""
    wasm = compile_rego(POLICY, ["t/answer"])
    with a_runtime(compiled_folder, Seconds(30.0), 64 * MEBI) as runtime:
        made = {}
        every: dict[str, list[Path]] = {"read": list(READ.values()), "everything": [()]}
        for name, reads in every.items():
            policies = Policies(runtime)
            policies.activate(combine({"only": a_bundle(wasm, {"t/answer": (reads, [])})}))
            made[name] = policies.active()
        yield made


class Asking(Decisions):
    """Keeps the requests that a real entrypoint is asked."""

    def __init__(self, entrypoint: Entrypoint) -> None:
        super().__init__(ALLOW)
        self._entrypoint = entrypoint

    def entrypoint(self, name: str) -> Entrypoint:
        """As `PolicySource`."""
        return self._entrypoint


def asked(entrypoint: Entrypoint, attributes: dict[str, Any]) -> Request:
    decisions = Asking(entrypoint)
    method = ExtAuthz(decisions, Answers(), "t/answer", max_input_bytes=2**20, max_depth=30, max_values=1000)
    method.answer(Metadata(), message(attributes))
    return decisions.requests[-1]


@given(attributes=ATTRIBUTES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same_key_and_answer(attributes: dict[str, Any], loaded: dict[str, LoadedPolicies]) -> None:
    """What is not converted is nothing that the policy could have seen."""
    entrypoint, everything = loaded["read"].entrypoint("t/answer"), loaded["everything"].entrypoint("t/answer")
    part, whole = asked(entrypoint, attributes), asked(everything, attributes)

    straight = part.projected
    if straight is None:
        straight = entrypoint.projection.project(part.document)
    through_json = entrypoint.projection.project(whole.document)
    assert key_of(entrypoint.fingerprint, straight) == key_of(entrypoint.fingerprint, through_json)

    evaluator = Evaluator(lambda *_: None)
    answers = [evaluator.decide(request).verdict.result for request in (part, whole)]
    assert answers[0] == answers[1]
    assert answers[0]["version"] == "v3"

    cached = CachedDecider(evaluator, MemoryStore(10), Seconds(10.0))
    assert cached.decide(part).tier is Tier.EVALUATED
    known = cached.decide(a_question(entrypoint, whole.document))
    assert (known.tier, known.verdict.result) == (Tier.L1, answers[0])
