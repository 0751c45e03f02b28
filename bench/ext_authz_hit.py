"""What one call of ext_authz takes that L1 answers, from bytes to bytes: this tree beside another, in turns.

    git worktree add /tmp/before COMMIT
    python -m bench.ext_authz_hit --against /tmp/before

One process, no carrier and no audit trail: `answer_nowait` of both trees' `transport/ext_authz`, above the same
service, cache and policy, which reads a header, the method and the path. Of many short turns the fastest counts, as all
else that a machine does only adds to it.
"""

import argparse
import importlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf import json_format

from bench.figures import table
from bench.machine import describe, take_load_core
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.decision.service import DecisionService
from sark_pdp.model import Decision, DecisionId, Outcome, PolicyRevision, Request, Seconds, Tier, Verdict
from sark_pdp.projection import Path as JsonPath
from sark_pdp.projection import Projection
from sark_pdp.transport import ext_authz
from sark_pdp.transport.handler import Metadata

_ENTRYPOINT: Final = "envoy/authz/allow"
_READS: Final[tuple[JsonPath, ...]] = (
    ("attributes", "request", "http", "headers", "x-user"),
    ("attributes", "request", "http", "method"),
    ("parsed_path",),
)
_PACKAGE: Final = "sark_pdp.transport.ext_authz"
_TURN: Final = 100
"""Calls."""


class _Policy:
    """Has one answer, which is never sought but once."""

    name = _ENTRYPOINT
    revision = PolicyRevision("r1")
    fingerprint = bytes(32)
    deterministic = True
    reads_data: tuple[JsonPath, ...] = ()
    projection = Projection(_READS)

    def active(self) -> Any:
        return self

    def entrypoint(self, name: str) -> Any:
        return self

    def decide(self, request: Request) -> Decision:
        verdict = Verdict(Outcome.ALLOW, "allowed by the policy", result=True, result_json=b"true")
        return Decision(DecisionId("01890a5d-ac96-774b-bcce-b302099a8057"), verdict, Tier.EVALUATED, {})

    def decide_nowait(self, request: Request) -> Decision | None:
        return self.decide(request)

    def decide_many(self, requests: Any) -> list[Any]:
        return [self.decide(request) for request in requests]


class _NoAudit:
    keeps = required = False

    def accepts(self) -> bool:
        return True

    def put_nowait(self, record: object) -> bool:
        return True


def question() -> bytes:
    """As Envoy asks for a GET."""
    http = {
        "id": "13519049518330544501",
        "method": "GET",
        "headers": {
            ":authority": "shop:8080",
            ":path": "/api/items?lang=en",
            ":method": "GET",
            "x-user": "alice",
            "user-agent": "curl/8",
            "accept": "*/*",
            "x-request-id": "4a9f0d2e-3f4c-4d5b-8f5e-0a8d6a9d7c11",
            "x-forwarded-proto": "http",
        },
        "path": "/api/items?lang=en",
        "host": "shop:8080",
        "scheme": "http",
        "protocol": "HTTP/1.1",
    }
    peers = {
        name: {"address": {"socketAddress": {"address": "10.1.2.3", "portValue": 43210}}}
        for name in ("source", "destination")
    }
    attributes = {**peers, "request": {"time": "2026-03-04T05:06:07.5Z", "http": http}, "metadataContext": {}}
    encoded: bytes = json_format.ParseDict({"attributes": attributes}, CheckRequest()).SerializeToString()
    return encoded


def package_of(tree: Path) -> ModuleType:
    """The `ext_authz` of another tree, under another name, above the modules of this one."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    (folder / "before_ext_authz").mkdir()
    for file in (tree / _PACKAGE.replace(".", "/")).glob("*.py"):
        text = file.read_text().replace(_PACKAGE, "before_ext_authz")
        (folder / "before_ext_authz" / file.name).write_text(
            text.replace("from sark_pdp.transport import ext_authz", "import before_ext_authz as ext_authz")
        )
    sys.path.insert(0, str(folder))
    return importlib.import_module("before_ext_authz")


def asking(package: Any) -> Callable[[], object]:
    """One call that L1 answers."""
    policy: Any = _Policy()
    answers = package.Answers()
    cached = CachedDecider(policy, MemoryStore(1000), Seconds(3600.0))
    audit: Any = _NoAudit()
    service = DecisionService(policy, package.ReviewedDecider(cached, answers), audit, lambda *_: None)
    method = package.ExtAuthz(service, answers, _ENTRYPOINT, max_input_bytes=2**20, max_depth=30, max_values=20_000)
    metadata, message = Metadata(), question()
    reply = method.answer(metadata, message)
    if not CheckResponse.FromString(reply.message).HasField("ok_response"):
        raise SystemExit("the call was not allowed")
    return lambda: method.answer_nowait(metadata, message)


def took(call: Callable[[], object]) -> float:
    """Microseconds of one call, in one turn."""
    began = time.perf_counter()
    for _ in itertools.repeat(None, _TURN):
        call()
    return (time.perf_counter() - began) / _TURN * 1e6


def main() -> None:
    """Prints the fastest turn of each, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="a tree of another commit")
    parser.add_argument("--turns", type=int, default=10_000)
    arguments = parser.parse_args()
    take_load_core()
    calls = {"before": asking(package_of(arguments.against)), "now": asking(ext_authz)}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(arguments.turns):
        for name, call in calls.items():
            best[name] = min(best[name], took(call))
    print(describe())
    print(table(["tree", "µs for a hit"], [[name, f"{took_us:.2f}"] for name, took_us in best.items()]))
    print(f"ratio: {best['now'] / best['before']:.3f}")


if __name__ == "__main__":
    main()
