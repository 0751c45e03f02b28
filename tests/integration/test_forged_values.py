"""What somebody else put into Redis is never believed: here, an answer under the key of another question."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from sark_pdp._proto.decision_pb2 import CheckResponse, Tier
from tests.fix_native import Channel, asking, metric, wait_until
from tests.fix_redis import RedisProcess, StartRedis
from tests.fix_serve import Serve, Sidecar

# What is asked of the default bundle, and whether it is allowed.
QUESTIONS = [
    (asking(action="tool:invoke", user={"id": user, "roles": [role]}, tool={"name": "search", **level}), allowed)
    for user, role in [("alice", "developer"), ("bob", "viewer")]
    for level, allowed in [
        ({"sensitivity_level": "low"}, True),
        ({"sensitivity_level": "medium"}, role == "developer"),
    ]
]


@pytest.fixture
def redis(start_redis: StartRedis) -> RedisProcess:
    return start_redis()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "mac-keys"
    file.write_text(f"{secrets.token_hex(32)}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def shared(serve: Serve, redis: RedisProcess, keys: Path) -> Sidecar:
    """One that asks Redis about every call, for L1 is off."""
    served = serve({"cache.l1.size": 0, "cache.l2.url": redis.url, "cache.l2.mac_key_file": str(keys)})
    served.wait_ready()
    return served


@pytest.fixture
def channel(shared: Sidecar) -> Iterator[Channel]:
    with Channel(shared.grpc) as opened:
        yield opened


def values(redis: RedisProcess) -> dict[bytes, bytes]:
    """Everything that is kept but generations, by its key."""
    return {key: redis.ask("GET", key) for key in redis.ask("KEYS", "*") if b":generation:" not in key}


def answers(channel: Channel) -> list[CheckResponse]:
    """To each question; all right."""
    given = [channel.check(question) for question, _ in QUESTIONS]
    assert [answer.allow for answer in given] == [allowed for _, allowed in QUESTIONS]
    return given


def kept(channel: Channel, redis: RedisProcess) -> dict[bytes, bytes]:
    """All answers, as soon as they all come from Redis."""
    wait_until(lambda: {answer.tier for answer in answers(channel)} == {Tier.TIER_L2})
    stored = values(redis)
    assert len(stored) == len(QUESTIONS)
    return stored


def put(redis: RedisProcess, forged: dict[bytes, bytes]) -> None:
    for key, value in forged.items():
        assert redis.ask("SET", key, value, "KEEPTTL")


def test_an_answer_under_the_key_of_another_question(shared: Sidecar, channel: Channel, redis: RedisProcess) -> None:
    stored = kept(channel, redis)
    for shift in range(1, len(stored)):
        moved = [*stored.values()][shift:] + [*stored.values()][:shift]
        put(redis, dict(zip(stored, moved, strict=True)))
        rejected = metric(shared, "sark_cache_l2_refused_values_total")
        given = answers(channel)
        assert {answer.tier for answer in given} <= {Tier.TIER_EVALUATED, Tier.TIER_L2}
        assert metric(shared, "sark_cache_l2_refused_values_total") > rejected
