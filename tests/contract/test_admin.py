"""`sark.pdp.v1.Administration` on its own listener."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sark_pdp._proto.admin_pb2 import GetStatusResponse, InvalidateRequest, InvalidateResponse
from sark_pdp._proto.decision_pb2 import TIER_EVALUATED, TIER_L1, CheckRequest
from sark_pdp.engine.bundle import read_bundle
from tests.fix_native import STATUS, Channel, asking, event, events, failure, wait_until
from tests.fix_serve import Sidecar

pytestmark = pytest.mark.carried


INVALIDATE = "/sark.pdp.v1.Administration/Invalidate"


@pytest.fixture(scope="module")
def admin(wired: Sidecar) -> Iterator[Channel]:
    with Channel(wired.admin) as opened:
        yield opened


def test_the_status_names_the_bundle_and_no_problem(wired: Sidecar, admin: Channel) -> None:
    status = admin.status()
    assert (status.serving, list(status.problems)) == (True, [])
    configured = wired.settings["policy.bundles"]
    assert isinstance(configured, list)
    (bundle,) = status.bundles
    digest = read_bundle(Path(configured[0]["path"])).digest
    assert (bundle.name, bundle.revision, bundle.digest, bundle.error) == ("wire", "wire-1", digest, "")


def test_the_status_counts_what_the_cache_and_the_trail_hold(wired: Sidecar, admin: Channel) -> None:
    before = admin.status()
    with Channel(wired.grpc) as channel:
        answers = [channel.check(asking("allow", salt="counted")) for _ in range(3)]
    for answer in answers:
        event(wired.spool_dir, answer.decision_id)
    # What can be read in the spool already is counted a moment later.
    after = wait_until(lambda: committed(admin.status(), before.audit.sequence + 3))
    (l1_before,), (l1,) = before.caches, after.caches
    assert (l1.name, l1.capacity) == ("l1", 1000)
    assert (l1.entries - l1_before.entries, l1.misses - l1_before.misses, l1.hits - l1_before.hits) == (1, 1, 2)
    assert after.audit.source == event(wired.spool_dir, answers[0].decision_id).source
    assert after.audit.dropped == 0
    assert after.audit.spool_bytes > 0


def committed(status: GetStatusResponse, sequence: int) -> GetStatusResponse | None:
    """The status where the trail has come so far, and nothing is left to commit."""
    audit = status.audit
    return status if audit.sequence >= sequence and not audit.queued else None


def test_a_malformed_request_is_an_invalid_argument(admin: Channel) -> None:
    assert failure(lambda: admin.call(STATUS, b"\xff")).code == "INVALID_ARGUMENT"


def test_reflection_tells_of_administration_alone(admin: Channel) -> None:
    services = set(ProtoReflectionDescriptorDatabase(admin.channel).get_services())
    assert services == {"sark.pdp.v1.Administration", "grpc.reflection.v1alpha.ServerReflection"}


def invalidating(admin: Channel, **fields: Any) -> bool:
    answer = InvalidateResponse.FromString(admin.call(INVALIDATE, InvalidateRequest(**fields)))
    return answer.shared


@pytest.mark.parametrize(
    ("invalidated", "reached"),
    [
        ({"user_id": "ada"}, True),
        ({"policy": "wire/listed"}, True),
        ({"all": True}, True),
        ({"user_id": "bob"}, False),
        ({"server_id": "s1"}, False),
        ({"server_id": "s1", "tool_name": "query"}, False),
        ({"tool_id": "t1"}, False),
        ({"policy": "wire/decide"}, False),
        ({"data_root": "catalog/tools"}, False),
    ],
)
def test_an_invalidation_has_what_it_is_about_decided_anew(
    wired: Sidecar, admin: Channel, invalidated: dict[str, Any], reached: bool
) -> None:
    """The policy reads the ids of the user and of owners, but not those of server and tool, and no data."""
    document = {"user": {"id": "ada"}, "server": {"id": "s1"}, "tool": {"id": "t1", "name": "query"}}
    asked = CheckRequest(policy="wire/listed", input_json=json.dumps(document).encode())
    with Channel(wired.grpc) as channel:
        channel.check(asked)
        assert channel.check(asked).tier == TIER_L1
        # Without Redis nobody else hears of it.
        assert invalidating(admin, **invalidated) is False
        assert (channel.check(asked).tier == TIER_EVALUATED) is reached


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "subject: "),
        ({"tool_name": "query"}, "subject: "),
        ({"user_id": ""}, "user_id: "),
        ({"policy": ""}, "policy: "),
        ({"all": False}, "all: "),
        ({"tool_id": "t1", "tool_name": "query"}, "tool_name: "),
        ({"user_id": "ada", "tool_name": "query"}, "tool_name: "),
    ],
)
def test_an_invalidation_of_nothing_is_an_invalid_argument(
    admin: Channel, fields: dict[str, Any], problem: str
) -> None:
    failed = failure(lambda: invalidating(admin, **fields))
    assert (failed.code, failed.details.startswith(problem)) == ("INVALID_ARGUMENT", True)


def test_an_invalidation_is_in_the_audit_trail(wired: Sidecar, admin: Channel) -> None:
    name = f"user {wired.process.pid}"
    invalidating(admin, user_id=name)

    def recorded() -> Any:
        found = [each for each in events(wired.spool_dir) if each.event_type == "cache_invalidated"]
        return [each for each in found if each.details.get("user_id") == name]

    assert [each.details["shared"] for each in wait_until(recorded)] == [False]
