"""A sidecar that asks a real registry: who may do what goes by the rows, not by what the caller says of himself."""

from typing import Any

import psycopg
import pytest

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.attributes.registry.schema import plan
from sark_pdp.cache.generations import LocalGenerations
from sark_pdp.errors import SettingsError
from sark_pdp.model import Seconds
from sark_pdp.postgres.migrations import migrate
from sark_pdp.registry import Registry
from sark_pdp.settings import AttributeSettings
from tests.fix_attributes import fill
from tests.fix_native import Channel, asking, event, metric, wait_until
from tests.fix_postgres import StartPostgres
from tests.fix_serve import Serve, Sidecar

ALLOW, DENY, ERROR = wire.OUTCOME_ALLOW, wire.OUTCOME_DENY, wire.OUTCOME_ERROR
STALE = wire.TIER_STALE

ROWS: dict[str, list[dict[str, Any]]] = {
    "users": [
        {"id": "dev", "email": "dev@x", "role": "developer", "roles": ["developer"]},
        {"id": "gone", "email": "gone@x", "role": "admin", "active": False},
    ],
    "servers": [{"id": "s1", "name": "files", "environment": "development", "status": "active"}],
    "tools": [
        {"id": "t1", "server_id": "s1", "name": "read", "sensitivity_level": "low"},
        {"id": "t2", "server_id": "s1", "name": "wipe", "sensitivity_level": "critical"},
    ],
}


def invoking(user: Any, tool: Any, **more: Any) -> wire.CheckRequest:
    asked: wire.CheckRequest = asking(action="tool:invoke", user=user, tool=tool, **more)
    return asked


@pytest.fixture
def served(serve: Serve, registry: str) -> Sidecar:
    fill(registry, **ROWS)
    started = serve({"attributes.postgres_dsn": registry, "attributes.timeout": "20s"})
    started.wait_ready()
    return started


def test_what_a_caller_says_of_himself_changes_nothing(served: Sidecar) -> None:
    a_batch_asks_each_table_once(served)
    forged = {"id": "dev", "role": "admin", "roles": ["admin"], "permissions": ["tool:invoke:*"], "mfa_verified": True}
    with Channel(served.grpc) as channel:
        low = channel.check(invoking({"id": "dev"}, {"id": "t1"}))
        assert (low.outcome, low.reason) == (ALLOW, "a role grants tools of low sensitivity in development")
        critical = channel.check(invoking(forged, {"id": "t2", "sensitivity_level": "low", "owner": "dev"}))
        assert critical.outcome == DENY
        gateway = channel.check(
            asking(action="tool:invoke", user=forged, tool_name="wipe", server_name="files", parameters={})
        )
        assert gateway.outcome == DENY
        for user, reason in (("nobody", "the user is not in the registry"), ("gone", "the user is not active")):
            refused = channel.check(invoking({"id": user, "roles": ["admin"]}, {"id": "t1"}))
            assert (refused.outcome, refused.allow, refused.reason) == (DENY, False, reason)
            told = event(served.spool_dir, refused.decision_id)
            assert (told.user_id, told.decision, told.details["reason"]) == (user, "deny", reason)


def a_batch_asks_each_table_once(served: Sidecar) -> None:
    tables = ("users", "tools", "servers")

    def queries() -> list[float]:
        return [metric(served, "sark_db_query_duration_seconds_count", operation="select", table=it) for it in tables]

    filtering = wire.FilterRequest(resource_field="tool")
    filtering.template.input_json = b'{"action": "tool:list", "user": {"id": "dev"}}'
    for number in range(20):
        filtering.resources.add().update({"id": f"t{number}"})
    with Channel(served.grpc) as channel:
        before = queries()
        results = channel.batch(*(invoking({"id": "dev"}, {"id": f"t{number}"}) for number in range(20)))
        assert [after - then for after, then in zip(queries(), before, strict=True)] == [1, 1, 1]
        assert [index for index, result in enumerate(results) if result.response.allow] == [1]
        assert results[3].response.reason == "the tool is not in the registry"
        assert 1 in channel.filter(filtering).allowed
        assert metric(served, "sark_cache_hits_total", cache_name="attributes_l1") > 0
        assert metric(served, "sark_db_pool_size") == 2
        assert metric(served, "sark_db_pool_overflow") == 0


def test_an_outage_is_bridged_said_and_ended(serve: Serve, start_postgres: StartPostgres) -> None:
    server = start_postgres()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for _ in migrate(connection, plan(connection, "public", triggers=False).migrations):
            pass
    fill(server.dsn(), **ROWS)
    served = serve(
        {
            "attributes.postgres_dsn": server.dsn(),
            "attributes.l1.ttl": "1s",
            "attributes.ttl": "1s",
            "cache.l1.ttl": "0",
        }
    )
    served.wait_ready()
    with Channel(served.grpc) as channel, Channel(served.admin) as admin:
        question = invoking({"id": "dev"}, {"id": "t1"})
        assert wait_until(lambda: channel.check(question).outcome == ALLOW)
        server.stop()
        wait_until(lambda: any("PostgreSQL" in problem for problem in admin.status().problems))
        stale = wait_until(lambda: _stale(channel, question))
        assert (stale.outcome, stale.cache_ttl.ToMicroseconds()) == (ALLOW, 0)
        told = event(served.spool_dir, stale.decision_id)
        assert told.details["tier"] == "stale"
        assert told.details["age_seconds"] >= 1
        unknown = channel.check(invoking({"id": "new"}, {"id": "t1"}))
        assert (unknown.outcome, unknown.reason) == (ERROR, "the registry cannot be reached")
        server.start()
        wait_until(lambda: not admin.status().problems)
        wait_until(lambda: channel.check(question).tier != STALE)
        assert channel.check(invoking({"id": "new"}, {"id": "t1"})).reason == "the user is not in the registry"


def _stale(channel: Channel, question: wire.CheckRequest) -> wire.CheckResponse | None:
    answer = channel.check(question)
    return answer if answer.tier == STALE else None


def test_a_registry_that_never_was_there_does_not_keep_it_from_serving(serve: Serve) -> None:
    served = serve({"attributes.postgres_dsn": "host=/nowhere dbname=none", "attributes.timeout": "200ms"})
    served.wait_ready()
    with Channel(served.grpc) as channel, Channel(served.admin) as admin:
        answer = channel.check(invoking({"id": "dev", "roles": ["admin"]}, {"id": "t1"}))
        assert (answer.outcome, answer.allow) == (ERROR, False)
        assert answer.reason == "the registry cannot be reached"
        assert channel.check(asking(action="agent:query")).outcome == DENY
        wait_until(lambda: any("PostgreSQL" in problem for problem in admin.status().problems))


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("postgresql://eve:secret@db/registry", "attributes.postgres_password_file"),
        ("postgresql://eve:secret@[", "cannot be read"),
    ],
)
def test_a_connection_string_that_cannot_be_used_is_refused_without_repeating_it(dsn: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"^attributes.postgres_dsn: .*{why}") as refused:
        Registry(AttributeSettings(), dsn, LocalGenerations(), None, Seconds(1.0))
    assert "secret" not in str(refused.value)
