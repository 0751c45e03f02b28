"""Redis killed, frozen and restarted under load: no call fails, every decision is right, and Redis is used again."""

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from sark_pdp._proto.decision_pb2 import CheckRequest, CheckResponse, Tier
from tests.fix_native import Channel, asking, assert_quiet, metric, wait_until
from tests.fix_redis import RedisProcess, StartRedis
from tests.fix_serve import Serve, Sidecar

CALLERS = 3
ANSWERS = 100
"""That come while Redis is in trouble."""

# What is asked, and whether it is allowed.
QUESTIONS: list[tuple[CheckRequest, bool]] = [
    (
        asking(
            action="tool:invoke",
            user={"id": f"user-{number}", "roles": [role]},
            tool={"name": "search", "sensitivity_level": level},
        ),
        allowed,
    )
    for number in range(20)
    for role, level, allowed in [
        ("developer", "medium", True),
        ("developer", "low", True),
        ("viewer", "low", True),
        ("viewer", "medium", False),
        ("nobody", "low", False),
    ]
]


class Load:
    """Calls without an end. What comes back is added up under `_lock`; what should not be is kept."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._tiers: Counter[int] = Counter()
        self.wrong: list[CheckResponse | Exception] = []

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """With callers of its own threads; all have ended afterwards."""
        threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def answers(self, tier: int | None = None) -> int:
        """So far; from one tier alone where it is given."""
        with self._lock:
            return self._tiers.total() if tier is None else self._tiers[tier]

    def wait_for(self, more: int, tier: int | None = None) -> None:
        """Until so many more answers have come."""
        wanted = self.answers(tier) + more
        wait_until(lambda: self.wrong or self.answers(tier) >= wanted)
        assert self.wrong == []

    def _ask(self, at: int) -> None:
        # Callers begin apart, so that they do not all ask the same at a time.
        questions = cycle(QUESTIONS[at::CALLERS] + QUESTIONS[:at])
        with Channel(self._address) as channel:
            for question, allowed in questions:
                if self._stop.is_set():
                    return
                try:
                    answer = channel.check(question)
                except Exception as error:  # noqa: BLE001  # a call that fails in whatever way
                    self.wrong.append(error)
                    return
                with self._lock:
                    self._tiers[answer.tier] += 1
                if answer.allow is not allowed:
                    self.wrong.append(answer)
                    return


@pytest.fixture
def redis(start_redis: StartRedis) -> RedisProcess:
    return start_redis()


@pytest.fixture
def shared(serve: Serve, redis: RedisProcess, tmp_path: Path) -> Sidecar:
    """One that asks Redis about every call, for L1 is off."""
    keys = tmp_path / "mac-keys"
    keys.write_text(f"{secrets.token_hex(32)}\n")
    keys.chmod(0o600)
    settings = {"cache.l1.size": 0, "cache.l2.url": redis.url, "cache.l2.mac_key_file": str(keys)}
    served = serve(settings)
    served.wait_ready()
    return served


def test_no_call_fails_whatever_happens_to_redis(shared: Sidecar, redis: RedisProcess) -> None:
    troubles: list[tuple[Callable[[], None], Callable[[], object]]] = [
        (redis.kill, redis.start),
        (redis.freeze, redis.thaw),
        (redis.restart, lambda: None),
    ]
    with Load(shared.grpc).running() as load:
        load.wait_for(10, Tier.TIER_L2)
        for begin, end in troubles:
            begin()
            load.wait_for(ANSWERS)
            end()
            load.wait_for(ANSWERS, Tier.TIER_L2)
        assert load.answers(Tier.TIER_EVALUATED) > 0
    assert load.wrong == []
    assert metric(shared, "sark_redis_errors_total") > 0
    assert metric(shared, "sark_decisions_total", outcome="error") == 0
    assert_quiet(shared.log)
