"""Two sidecars, one Redis: what one decides the other knows; what operators see of it; and what stops the start."""

import json
from pathlib import Path

from click.testing import CliRunner

from sark_pdp import cli
from sark_pdp._proto.decision_pb2 import CheckResponse, Tier
from tests.fix_native import Channel, asking, assert_quiet, metric, wait_until, wire_policy
from tests.fix_redis import RedisProcess, StartRedis
from tests.fix_serve import Serve, Sidecar


def settings_of(server: RedisProcess, key_file: Path, wire_bundle: Path, shared_state: str) -> dict[str, object]:
    return {
        **wire_policy(wire_bundle),
        "state_dir": shared_state,
        "cache.l2.url": server.url,
        # As long as it takes on a busy machine.
        "cache.l2.timeout": "1s",
        "cache.l2.mac_key_file": str(key_file),
    }


def wait_shared(served: Sidecar) -> None:
    """Until Redis is there, and invalidations are heard."""
    served.wait_ready()
    wait_until(lambda: metric(served, "sark_redis_up") == 1 and not problems(served))


def shown(served: Sidecar) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(cli.main, ["status", "--json", f"--set=listen.admin={served.admin}"])
    return result.exit_code, json.loads(result.stdout)


def problems(served: Sidecar) -> object:
    return shown(served)[1]["problems"]


def check(served: Sidecar, case: str, number: int) -> CheckResponse:
    with Channel(served.grpc) as channel:
        return channel.check(asking(case=case, number=number))


def test_what_one_sidecar_decided_the_other_knows_and_operators_see_it(
    serve: Serve, start_redis: StartRedis, mac_key_file: Path, wire_bundle: Path, shared_state: str
) -> None:
    server = start_redis()
    settings = settings_of(server, mac_key_file, wire_bundle, shared_state)
    one, other = (serve({**settings, "audit.spool_dir": f"{mac_key_file.parent}/{name}"}) for name in ("one", "other"))
    wait_shared(one)
    wait_shared(other)
    first = check(one, "allow", 1)
    assert (first.allow, first.tier) == (True, Tier.TIER_EVALUATED)
    wait_until(lambda: server.ask("EXISTS", *(server.ask("KEYS", "sark:decision:*") or ["none"])) == 1)
    second = check(other, "allow", 1)
    assert (second.allow, second.tier, second.reason, second.result_json) == (
        True,
        Tier.TIER_L2,
        first.reason,
        first.result_json,
    )
    assert check(other, "allow", 1).tier == Tier.TIER_L1
    assert metric(other, "sark_cache_hits_total", cache_name="l2") == 1
    assert metric(other, "sark_decisions_total", outcome="allow", tier="l2") == 1
    code, status = shown(other)
    assert code == 0
    caches = {str(cache["name"]): cache for cache in status["caches"]}  # type: ignore[attr-defined]
    assert list(caches) == ["l1", "l2"]
    assert int(caches["l2"]["hits"]) == 1
    assert "wire/decide: Redis is asked; a round trip takes" in caches["l2"]["notes"][0]
    wait_until(lambda: metric(one, "sark_cache_channel_trusted") == 1)
    # A sidecar hears of what another one is told to invalidate.
    invalidated = CliRunner().invoke(
        cli.main, ["cache", "invalidate", "--user=nobody", "--json", f"--set=listen.admin={other.admin}"]
    )
    assert json.loads(invalidated.stdout) == {"shared": True}
    wait_until(lambda: metric(one, "sark_cache_channel_events_total", event="heard") >= 1)
    server.kill()
    wait_until(lambda: problems(one))
    assert check(one, "allow", 2).allow
    assert metric(one, "sark_redis_up") == 0
    assert metric(one, "sark_redis_errors_total", reason="connection") >= 1
    server.start()
    wait_until(lambda: not problems(one))
    # It says once that Redis was away; that is no error of its own.
    assert_quiet("\n".join(line for line in one.log.splitlines() if "Redis is not to be had" not in line))


def test_a_key_that_cannot_be_used_stops_the_start(
    serve: Serve, redis_server: RedisProcess, tmp_path: Path, wire_bundle: Path, shared_state: str
) -> None:
    keys = tmp_path / "mac.keys"
    keys.write_text("short\n")
    served = serve(settings_of(redis_server, keys, wire_bundle, shared_state))
    assert served.wait_exit() == 2
    assert f"cache.l2.mac_key_file: {keys} holds a key of less than 16 bytes" in served.log
