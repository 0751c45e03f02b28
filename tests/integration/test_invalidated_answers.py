"""Invalidations as callers see them: who is answered anew, and who is still answered from L1."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from sark_pdp.cache import subjects
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.interfaces import Answered, Generations
from sark_pdp.model import Decision, Entrypoint, Outcome, Request, Seconds, Tier, Verdict
from tests.fix_audit import FakeEntrypoint, new_id
from tests.fix_engine import a_question as a_request
from tests.fix_engine import each
from tests.fix_generations import DECISION, LISTING, Process, StartProcess, a_question, eventually
from tests.fix_redis import RedisProcess, StartRedis
from tests.fix_shared import StartSharing

OF_ADA = a_question("ada")
USERS = [str(number) for number in range(50)]


class World:
    """What policies are asked about: the decider below the caches says what is true now, or what it saw at first."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.looked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def decide(self, request: Request) -> Decision:
        projected = request.projected or {}
        allowed = projected["user"]["id"] not in self.revoked
        self.looked.set()
        assert self.go_on.wait(30)
        outcome = Outcome.ALLOW if allowed else Outcome.DENY
        return Decision(new_id(), Verdict(outcome, "as it is", cache_ttl=Seconds(600)), Tier.EVALUATED, projected)

    def decide_nowait(self, request: Request) -> Decision | None:
        return self.decide(request)

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        return each(self.decide, requests)


class Cached:
    """One process: an L1 before the world."""

    def __init__(self, world: World, generations: Generations) -> None:
        self.generations = generations
        self._decider = CachedDecider(world, MemoryStore(1000), Seconds(600.0), generations)

    def ask(self, user: str, entrypoint: Entrypoint = DECISION) -> tuple[bool, Tier]:
        """Whether the user may, and who said so."""
        document = {"user": {"id": user}, "tool": {"id": "t", "name": "query"}, "server": {"id": "s1"}}
        decision = self._decider.decide(a_request(entrypoint, document))
        return decision.verdict.outcome is Outcome.ALLOW, decision.tier

    def at_once(self, user: str) -> bool:
        """Whether it is a hit in L1 that waits for nothing."""
        document = {"user": {"id": user}, "tool": {"id": "t", "name": "query"}, "server": {"id": "s1"}}
        decision = self._decider.decide_nowait(a_request(DECISION, document))
        return decision is not None and decision.tier is Tier.L1


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.go_on.set()


@pytest.fixture
def pair(world: World, start_process: StartProcess, redis_server: RedisProcess) -> tuple[Cached, Cached]:
    """Two processes that have heard of everything."""
    processes: list[Process] = [start_process(redis_server.url) for _ in range(2)]
    for process in processes:
        process.wait_linked()
        process.wait_trusted(a_question())
    one, other = (Cached(world, process.generations) for process in processes)
    return one, other


def test_who_was_revoked_is_answered_anew_everywhere_and_nobody_else(world: World, pair: tuple[Cached, Cached]) -> None:
    for cached in pair:
        for user in USERS:
            assert cached.ask(user) == (True, Tier.EVALUATED)
        for user in USERS:
            assert cached.ask(user) == (True, Tier.L1)
    world.revoked.add("7")
    # Nobody was told: that is what a cache is.
    assert [cached.ask("7") for cached in pair] == [(True, Tier.L1)] * 2
    assert pair[0].generations.invalidate([subjects.user("7")])
    assert pair[0].ask("7") == (False, Tier.EVALUATED)
    eventually(lambda: pair[1].ask("7")[0] is False, "the other process was not told")
    for cached in pair:
        for user in USERS:
            assert cached.ask(user) == (user != "7", Tier.L1)


def test_an_unaffected_answer_is_still_a_hit_that_waits_for_nothing(pair: tuple[Cached, Cached]) -> None:
    one, other = pair
    one.ask("ada")
    one.ask("bob")
    eventually(lambda: one.ask("bob")[1] is Tier.L1 and one.at_once("bob"), "nothing is trusted")
    other.generations.invalidate([subjects.user("ada")])
    eventually(lambda: not one.at_once("ada"), "it was not heard")
    assert one.ask("bob")[1] is Tier.L1
    eventually(lambda: one.at_once("bob"), "it has to wait")


def test_a_change_of_data_touches_only_the_entrypoints_that_read_it(pair: tuple[Cached, Cached]) -> None:
    one, _ = pair
    readers: list[FakeEntrypoint] = [DECISION, LISTING]
    for root, reached in ((("roles", "dev"), [DECISION]), (("catalog", "levels"), [LISTING]), (("catalog",), readers)):
        for entrypoint in readers:
            one.ask("ada", entrypoint)
            assert one.ask("ada", entrypoint)[1] is Tier.L1
        one.generations.invalidate(subjects.of_data_root(root))
        for entrypoint in readers:
            assert (one.ask("ada", entrypoint)[1] is Tier.EVALUATED) is (entrypoint in reached), root


@pytest.mark.parametrize("invalidates", [0, 1], ids=["itself", "the other one"])
def test_an_evaluation_that_began_before_an_invalidation_is_for_who_asked_before_it(
    world: World, pair: tuple[Cached, Cached], invalidates: int
) -> None:
    """It looked at what was true then. Whoever asks after gets another one, while it runs and when it is done."""
    one = pair[0]
    world.looked.clear()
    world.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(one.ask, "ada")
        assert world.looked.wait(30)
        world.revoked.add("ada")
        pair[invalidates].generations.invalidate([subjects.user("ada")])
        if invalidates:
            eventually(lambda: one.generations.known_of([subjects.user("ada")]) is None, "it was not heard")
        world.go_on.set()
        assert before.result()[0] is True
    assert one.ask("ada") == (False, Tier.EVALUATED)
    assert one.ask("ada") == (False, Tier.L1)


def test_what_is_put_back_by_hand_lives_no_longer_than_it_was_signed_for_nor_past_a_restart(
    start_process: StartProcess, start_sharing: StartSharing, start_redis: StartRedis
) -> None:
    """A former answer with its former generation: whoever can write to Redis can replay, but neither make nor renew."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    process, sharing = start_process(server.url), start_sharing(url=server.url, l2=300.0)
    process.wait_linked()
    process.wait_trusted(OF_ADA)

    def ask() -> Decision:
        # Nothing is known but what Redis tells.
        decider = CachedDecider(sharing.policy, MemoryStore(10), Seconds(10), process.generations, sharing.shared)
        return decider.decide(Request(*OF_ADA[:2], "request-1"))

    allowed = ask()
    eventually(lambda: server.ask("KEYS", "*decision*"), "nothing was written")
    before = {name: server.ask("GET", name) for name in server.ask("KEYS", "*")}
    process.generations.invalidate([subjects.user("ada")])
    sharing.policy.result = {"allow": False}
    assert ask().verdict.outcome is Outcome.DENY

    def put_back() -> None:
        for name, value in before.items():
            server.ask("SET", name, value)
        process.generations.heard([subjects.user("ada")])

    put_back()
    replayed = ask()
    assert (replayed.tier, replayed.verdict) == (Tier.L2, allowed.verdict)
    ages = [ask().age for _ in range(2)]
    assert replayed.age < ages[0] < ages[1]
    former = process.link.run_id
    server.restart()
    eventually(lambda: {process.link.run_id, sharing.link.run_id}.isdisjoint({None, former}), "Redis did not come back")
    put_back()
    assert ask().verdict.outcome is Outcome.DENY
