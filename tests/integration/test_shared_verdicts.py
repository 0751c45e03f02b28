"""Verdicts that sidecars share through Redis: what is kept, for whom, for how long, and at what cost."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.cache import choice, tiers
from sark_pdp.cache.l2 import Kept
from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import DeadlineExceededError
from sark_pdp.model import Deadline, Decision, Outcome, Request, Seconds, Tier
from sark_pdp.projection import Projection
from tests.fix_audit import FakeEntrypoint
from tests.fix_engine import a_question
from tests.fix_redis import RedisProcess, RedisProxy, StartRedis
from tests.fix_shared import PATIENT, Sharing, StartSharing, until

PURE = FakeEntrypoint(Projection([("user",)]))
CLOCKED = FakeEntrypoint(Projection([("user",)]), deterministic=False)


def question(user: Any = "alice", entrypoint: FakeEntrypoint = PURE, **fields: Any) -> Request:
    return a_question(entrypoint, {"user": user}, **fields)


def kept(sharing: Sharing, server: RedisProcess, prefix: str, number: int) -> None:
    """Waits until so many values are in Redis."""
    until(lambda: len(sharing.stored(server, prefix)) == number)


def test_what_one_sidecar_decided_the_others_know(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    one, other = start_sharing(), start_sharing()
    first = one.cached.decide(question())
    assert first.tier is Tier.EVALUATED
    kept(one, redis_server, redis_prefix, 1)
    # It may not wait, so it does not ask Redis, nor evaluate what Redis may know.
    assert other.cached.decide_nowait(question()) is None
    second = other.cached.decide(question())
    assert (second.tier, second.verdict, second.projected) == (Tier.L2, first.verdict, first.projected)
    assert second.id != first.id
    assert 0 < second.reusable <= 10
    third = other.cached.decide_nowait(question())
    assert third is not None
    assert (third.tier, third.verdict) == (Tier.L1, first.verdict)
    assert other.policy.asked == []
    now = other.shared.statistics()
    assert (now.name, now.hits, now.misses) == ("l2", 1, 0)


RESULTS: list[Any] = [
    True,
    False,
    {"allow": False, "reason": "no"},
    {"allow": True, "more": [1, 1.0, None, "é\x00"], "remove_parameters": ["a.b"]},
    {"allow": True, "filtered_parameters": {"a": {"b": 1}}},
    {"allow": True, "cache_ttl": 30},
    None,
]


@pytest.mark.parametrize("result", RESULTS)
def test_a_verdict_comes_back_whole(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str, result: Any
) -> None:
    one, other = start_sharing(), start_sharing()
    one.policy.result = result
    first = one.cached.decide(question())
    kept(one, redis_server, redis_prefix, 1)
    second = other.cached.decide(question())
    assert (second.tier, second.verdict) == (Tier.L2, first.verdict)


# What the policy says of the lifetime, whether its entrypoint is deterministic, and the seconds that it may be shared.
LIFETIMES: list[tuple[Any, bool, float]] = [
    ({"allow": True}, True, 60),
    ({"allow": True}, False, 0),
    ({"allow": False, "cache_ttl": 20}, True, 20),
    ({"allow": True, "cache_ttl": 20}, False, 20),
    ({"allow": True, "cache_ttl": 600}, True, 60),
    ({"allow": True, "cache_ttl": 0}, True, 0),
    ({"allow": "odd"}, True, 0),
]


@pytest.mark.parametrize(("result", "deterministic", "seconds"), LIFETIMES)
def test_what_is_shared_lives_as_long_as_policy_and_settings_both_allow(
    start_sharing: StartSharing,
    redis_server: RedisProcess,
    redis_prefix: str,
    result: Any,
    deterministic: bool,
    seconds: float,
) -> None:
    one = start_sharing()
    one.policy.result = result
    one.cached.decide(question(entrypoint=PURE if deterministic else CLOCKED))
    # What comes after it was kept later.
    one.policy.result = {"allow": True}
    one.cached.decide(question("last"))
    kept(one, redis_server, redis_prefix, 2 if seconds else 1)
    left = sorted(redis_server.ask("PTTL", name) / 1000 for name in one.stored(redis_server, redis_prefix))
    if seconds and seconds < 60:
        # Chance only shortens it, by a tenth at most.
        assert seconds * 0.9 - 30 < left[0] <= seconds


def test_what_is_never_kept_is_never_asked_for(start_sharing: StartSharing) -> None:
    """Until the policy gives a verdict a lifetime: else a clock in it would cost a round trip each time."""
    one = start_sharing()
    for number in range(3):
        decision = one.cached.decide_nowait(question(number, CLOCKED))
        assert decision is not None
        one.cached.decide(question(number, CLOCKED))
    assert one.counted.sent == []
    one.policy.result = {"allow": True, "cache_ttl": 5}
    assert one.cached.decide_nowait(question("first", CLOCKED)) is not None
    assert one.cached.decide_nowait(question("second", CLOCKED)) is None
    one.cached.decide(question("second", CLOCKED))
    assert [command[0] for command in one.counted.sent[0]] == ["MGET"]


def test_a_batch_tells_as_well_that_verdicts_have_a_lifetime(start_sharing: StartSharing) -> None:
    one = start_sharing()
    one.policy.result = {"allow": True, "cache_ttl": 5}
    one.cached.decide_many([question("first", CLOCKED)])
    one.counted.sent.clear()
    one.cached.decide_many([question("second", CLOCKED)])
    assert ["MGET"] in [[command[0] for command in sent] for sent in one.counted.sent]


def test_errors_are_never_shared(start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str) -> None:
    one = start_sharing()
    one.fail()
    answers = one.cached.decide_many([question("a"), question("b")])
    assert [type(each).__name__ for each in answers] == ["EvaluationError"] * 2
    one.policy.error = None
    one.cached.decide(question("last"))
    kept(one, redis_server, redis_prefix, 1)


def test_what_was_decided_on_stale_attributes_is_not_kept(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    one = start_sharing()
    decision = one.cached.decide(question("stale", stale=True, as_of=time.monotonic() - 100))
    assert (decision.tier, decision.reusable) == (Tier.EVALUATED, 0.0)
    assert len(one.l1) == 0
    one.cached.decide(question("last"))
    kept(one, redis_server, redis_prefix, 1)


def test_promotion_renews_nothing(start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str) -> None:
    """What comes from L2 lives on in L1 until its own end, and no longer."""
    one, other = start_sharing(), start_sharing()
    one.policy.result = {"allow": True, "cache_ttl": 2}
    one.cached.decide(question())
    kept(one, redis_server, redis_prefix, 1)
    promoted = other.cached.decide(question())
    assert promoted.tier is Tier.L2
    assert 0 < promoted.reusable <= 2
    ends = time.monotonic() + promoted.reusable
    (entry,) = other.l1._entries.values()
    assert entry.expires <= ends + 0.01
    until(lambda: other.cached.decide(question()).tier is Tier.EVALUATED)
    assert time.monotonic() >= ends - 0.01


def test_the_age_that_a_caller_accepts_counts_in_every_tier(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    now = time.monotonic()
    remembered(start_sharing(), now - 5000, now + 5000)
    for max_age, tier in ((8000.0, Tier.L2), (None, Tier.L2), (0.0, Tier.EVALUATED), (4000.0, Tier.EVALUATED)):
        asking = start_sharing(l2=20_000.0)
        kept(asking, redis_server, redis_prefix, 1)
        decision = asking.cached.decide(question(max_age=max_age))
        assert decision.tier is tier
        if tier is Tier.L2:
            assert decision.age >= 5000
            (answered,) = start_sharing(l2=20_000.0).cached.decide_many([question(max_age=max_age)])
            assert isinstance(answered, Decision)
            assert answered.tier is Tier.L2
        else:
            assert len(asking.policy.asked) == 1
            # It wrote what it decided anew over what was there.
            redis_server.ask("DEL", *asking.stored(redis_server, redis_prefix))
            remembered(asking, now - 5000, now + 5000)


def remembered(sharing: Sharing, as_of: float, expires: float, user: str = "alice") -> None:
    """Puts a verdict into Redis as if it had been decided at another time."""
    ((key, _),), _ = sharing.cached._keyed([question(user)])
    verdict = verdict_of(b'{"allow":true,"reason":"because"}')
    sharing.shared.put_later([Kept(key, verdict, as_of, expires)], sharing.shared.run_id)


def test_a_batch_reads_with_one_round_trip_and_writes_with_one(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    one, other = start_sharing(), start_sharing()
    users = [f"user-{number}" for number in range(50)]
    one.cached.decide_many([question(user) for user in users[:20]])
    kept(one, redis_server, redis_prefix, 20)
    assert [[command[0] for command in sent] for sent in one.counted.sent] == [["MGET"], ["SET"] * 20]
    other.cached.decide(question("user-3"))
    other.counted.sent.clear()
    # Some are asked twice, some are in L1, in L2, or in neither.
    asked = [question(user) for user in [*users, *users[10:30]]]
    answers = other.cached.decide_many(asked)
    tiers = [each.tier for each in answers if isinstance(each, Decision)]
    assert tiers[:4] == [Tier.L2, Tier.L2, Tier.L2, Tier.L1]
    assert tiers[20:50] == [Tier.EVALUATED] * 30
    assert tiers[50:] == [Tier.L1] * 20
    assert [each.projected["user"] for each in answers if isinstance(each, Decision)] == [
        each.document["user"] for each in asked
    ]
    kept(other, redis_server, redis_prefix, 50)
    assert [[command[0] for command in sent] for sent in other.counted.sent] == [["MGET"], ["SET"] * 30]
    assert len(other.counted.sent[0][0]) == 1 + 49
    assert len(other.policy.asked) == 30


def test_without_redis_everything_is_evaluated(start_sharing: StartSharing, start_redis: StartRedis) -> None:
    server = start_redis()
    one = start_sharing(url=server.url)
    server.kill()
    until(lambda: not one.link.up)
    assert one.cached.decide(question()).tier is Tier.EVALUATED
    # Nothing could be asked, so nothing has to wait.
    at_once = one.cached.decide_nowait(question("bob"))
    assert at_once is not None
    assert at_once.tier is Tier.EVALUATED
    assert [type(each) for each in one.cached.decide_many([question(str(number)) for number in range(3)])] == [
        Decision
    ] * 3


def test_after_a_restart_nothing_of_before_is_believed(start_sharing: StartSharing, start_redis: StartRedis) -> None:
    """Not even from a server that remembers: invalidations may have been lost with its last moments."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    one, other = start_sharing(url=server.url), start_sharing(url=server.url)
    one.cached.decide(question())
    until(lambda: server.ask("DBSIZE") == 1)
    before = one.link.run_id
    server.restart()
    assert server.ask("DBSIZE") == 1
    until(lambda: other.link.run_id not in (None, before))
    assert other.cached.decide(question()).tier is Tier.EVALUATED


def test_what_was_decided_before_a_failover_is_not_kept_after_it(
    start_sharing: StartSharing, start_redis: StartRedis
) -> None:
    one, other = start_redis(), start_redis()
    proxy = RedisProxy(one.socket)
    try:
        sharing = start_sharing(url=proxy.url)
        before = sharing.shared.run_id
        proxy.lead_to(other.socket)
        proxy.cut()
        until(lambda: sharing.link.run_id not in (None, before))
        sharing.shared.put_later([], before)
        late = sharing.cached._evaluate(b"k" * 48, question(projected={"user": "alice"}), before)
        assert late.tier is Tier.EVALUATED
        sharing.cached.decide(question("last"))
        until(lambda: other.ask("DBSIZE") == 1)
    finally:
        proxy.close()


def test_who_waited_for_redis_too_long_is_not_evaluated(start_sharing: StartSharing) -> None:
    one = start_sharing()
    late = question(deadline=Deadline(time.monotonic() - 1))
    with pytest.raises(DeadlineExceededError):
        one.cached._sought(b"k" * 48, late, one.shared.run_id)
    assert one.policy.asked == []


def test_the_deadline_of_one_caller_is_nobody_elses(
    start_sharing: StartSharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first who asks runs out of time while Redis is asked; who waits with it has more, and is answered."""
    one = start_sharing()
    asked, let_go = threading.Event(), threading.Event()

    def slowly(_entrypoint: str, _key: bytes, _waited: float) -> None:
        asked.set()
        assert let_go.wait(30)

    monkeypatch.setattr(one.shared, "get", slowly)
    deadline = Deadline(time.monotonic() + 0.5)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.cached.decide, question(deadline=deadline))
        assert asked.wait(30)
        second = pool.submit(one.cached.decide, question())
        until(lambda: time.monotonic() > deadline)
        let_go.set()
        assert isinstance(first.exception(), DeadlineExceededError)
        assert second.result().tier is Tier.EVALUATED


class Slow:
    """Generations that had to be read, which took this many seconds as the cache sees it."""

    def __init__(self, clock: "Clock", took: float) -> None:
        self._clock, self._took = clock, took

    def known(self, *_question: Any) -> None:
        """Never."""

    def read_many(self, questions: Sequence[Any]) -> list[bytes]:
        """After a while."""
        self._clock.passed += self._took
        return [bytes(16)] * len(questions)


class Clock:
    """`time.monotonic()` with what tests add to it."""

    passed = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed


@pytest.mark.parametrize(("share", "asks"), [(0.1, True), (0.6, False), (1.5, False)])
def test_generations_and_verdicts_share_the_time_that_a_request_waits_for_redis(
    start_sharing: StartSharing, monkeypatch: pytest.MonkeyPatch, share: float, asks: bool
) -> None:
    """What has used half of it up reading the one is decided without the other."""
    one = start_sharing()
    clock = Clock()
    monkeypatch.setattr(tiers, "time", clock)
    waited: list[float] = []
    taken = one.link._taken

    def take(deadline: float) -> Any:
        waited.append(deadline - time.monotonic())
        return taken(deadline)

    monkeypatch.setattr(one.link, "_taken", take)
    monkeypatch.setattr(one.cached, "_generations", Slow(clock, PATIENT * share))
    assert one.cached.decide(question()).tier is Tier.EVALUATED
    (answered,) = one.cached.decide_many([question("bob")])
    assert isinstance(answered, Decision)
    # The writer has all the time that there is.
    assert len([each for each in waited if each <= PATIENT * (1 - share)]) == (2 if asks else 0)
    assert one.link.up
    assert not any(one.link.errors.values())


def test_without_l1_nothing_is_reusable_and_l2_is_asked_each_time(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    one = start_sharing(l1=0.0)
    one.cached.decide(question())
    kept(one, redis_server, redis_prefix, 1)
    for _ in range(3):
        decision = one.cached.decide(question())
        assert (decision.tier, decision.reusable) == (Tier.L2, 0.0)


def test_other_keys_are_another_trust_domain(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str, tmp_path: Path
) -> None:
    stranger_keys = tmp_path / "stranger.keys"
    stranger_keys.write_text("another key, quite long\n")
    one, stranger = start_sharing(), start_sharing(key_file=stranger_keys)
    one.cached.decide(question())
    kept(one, redis_server, redis_prefix, 1)
    assert stranger.cached.decide(question()).tier is Tier.EVALUATED
    assert stranger.signed.oddities["wrong_mac"] == 1


def test_keys_rotate_without_a_pause(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str, tmp_path: Path
) -> None:
    """First the new key is known everywhere, then it signs, then the old one goes."""
    old, new = "the old key, long enough", "the new key, long enough"
    files = [tmp_path / "one.keys", tmp_path / "other.keys"]
    for file in files:
        file.write_text(old)
    one, other = (start_sharing(key_file=file, l1=0.0) for file in files)
    for texts in ((old, f"{old}\n{new}"), (f"{new}\n{old}", f"{old}\n{new}\n"), (new, f"{new}\n{old}"), (new, new)):
        for sharing, file, text in zip((one, other), files, texts, strict=True):
            file.write_text(text)
            sharing.signed._keyring.refresh()
        redis_server.ask("DEL", *(one.stored(redis_server, redis_prefix) or [b"none"]))
        one.cached.decide(question())
        kept(one, redis_server, redis_prefix, 1)
        assert other.cached.decide(question()).tier is Tier.L2
    files[0].write_text("short")
    one.signed._keyring.refresh()
    assert one.cached.decide(question()).tier is Tier.L2


def test_auto_asks_nobody_where_that_takes_longer(start_sharing: StartSharing, monkeypatch: pytest.MonkeyPatch) -> None:
    one = start_sharing(mode="auto")
    # No time passes, so nothing is measured again; what was measured stays far apart.
    monkeypatch.setattr(choice, "time", Still())
    for cost, other in ((10.0, 1e-9), (1e-9, 10.0)):
        one.choice._measured.clear()
        one.choice.asked(PURE.name, cost)
        one.choice.missed(PURE.name, other)
        one.counted.sent.clear()
        asks = other > cost
        for number in range(3):
            request = question(f"{asks}-{number}")
            assert (one.cached.decide_nowait(request) is None) is asks
            one.cached.decide(request)
            one.cached.decide_many([question(f"{asks}-{number}-again")])
        reads = [sent for sent in one.counted.sent if sent[0][0] == "MGET"]
        assert len(reads) == (6 if asks else 0)


class Still:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return 1000.0


def test_a_result_of_this_size_is_not_shared(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    one = start_sharing()
    one.policy.result = {"allow": True, "more": "x" * 100_000}
    assert one.cached.decide(question()).verdict.outcome is Outcome.ALLOW
    assert one.signed.oddities["too_large"] == 1
    one.policy.result = {"allow": True}
    one.cached.decide(question("last"))
    kept(one, redis_server, redis_prefix, 1)


def test_a_stranger_to_the_settings_cannot_prolong_a_life(
    start_sharing: StartSharing, redis_server: RedisProcess, redis_prefix: str
) -> None:
    """A sidecar with a longer TTL signs for longer; who reads it holds it to its own."""
    one, other = start_sharing(), start_sharing(l2=60.0)
    now = time.monotonic()
    remembered(one, now - 61, now + 3600)
    remembered(one, now, now + 3600, "bob")
    kept(one, redis_server, redis_prefix, 2)
    assert other.cached.decide(question()).tier is Tier.EVALUATED
    assert other.cached.decide(question("bob", max_age=Seconds(60.0))).tier is Tier.L2
