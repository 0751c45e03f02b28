"""What is simulated: callers, a policy, the ways to make a key, and how each of them answered."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from bench.cache_tiers import Pods
from bench.cache_world import BEGINS, Asked, Workload, World
from sark_pdp.engine.policies import LoadedEntrypoint
from sark_pdp.engine.result import verdict_of
from sark_pdp.model import Outcome, Tier, Verdict
from sark_pdp.projection import Projection

WARM_UP: Final = 60.0
"""Seconds whose answers are not counted, the longest lifetime of an entry; a third of the time where that is less."""
STEP: Final = 10.0
"""Seconds of one point of the plot."""
ROUND_TRIP: Final = 100e-6
"""Seconds of one to Redis, as `auto` finds them in a cluster."""
SEED: Final = 1

SHIPPED: Final = "sark/mcp/decision"
ROLES: Final = "bench/roles/decision"

ALWAYS: Final = "what the policy reads, always"
AUTO: Final = "what the policy reads, auto"
WHOLE: Final = "the whole input"
NAMES: Final = "policy:{user}:{tool}:{action}"


class Scenario(Struct, frozen=True):
    """Callers, pods and a policy."""

    title: str
    entrypoint: str
    pods: int
    workload: Workload
    promised: float = 0.0
    """The least hit rate over both tiers with ALWAYS. Where nothing is, the other ways are not simulated."""


_MOSTLY_LOW: Final = (0.90, 0.08, 0.018, 0.002)
_MIXED: Final = (0.80, 0.15, 0.045, 0.005)

SCENARIOS: Final = (
    Scenario("50 users, 50 tools, the shipped policy", SHIPPED, 1, Workload(50, 50, _MOSTLY_LOW, 2000), promised=0.97),
    Scenario("the same with fewer tools of low sensitivity", SHIPPED, 1, Workload(50, 50, _MIXED, 2000)),
    Scenario("and as four pods of 2,000 req/s each", SHIPPED, 4, Workload(50, 50, _MIXED, 8000)),
    Scenario("500 users, 300 tools, roles and sensitivity", ROLES, 4, Workload(500, 300, _MIXED, 2000), promised=0.98),
)


class Tally(Struct):
    """How one way of caching answered; after the warm-up, but for wrong answers, which all count."""

    l1: int = 0
    l2: int = 0
    evaluated: int = 0
    wrong_allows: int = 0
    """Allowed what the policy denies."""
    wrong_denials: int = 0
    levels: dict[str, list[int]] = {}
    """Hits and answers by the sensitivity of the tool."""
    steps: list[list[int]] = []
    """Hits and answers of each 10 seconds, the warm-up included."""

    @property
    def answers(self) -> int:
        """That are counted."""
        return self.l1 + self.l2 + self.evaluated

    @property
    def hits(self) -> float:
        """The share that no evaluation was needed for."""
        return (self.l1 + self.l2) / self.answers

    def add(self, asked: Asked, verdict: Verdict, tier: Tier, right: Verdict, *, counted: bool) -> None:
        """Takes note of one answer; `counted` where it comes after the warm-up."""
        if verdict.outcome is not right.outcome:
            if verdict.outcome is Outcome.ALLOW:
                self.wrong_allows += 1
            else:
                self.wrong_denials += 1
        hit = tier is not Tier.EVALUATED
        step = int(asked.at / STEP)
        if step >= len(self.steps):
            self.steps.append([0, 0])
        self.steps[step][0] += hit
        self.steps[step][1] += 1
        if not counted:
            return
        level = self.levels.setdefault(asked.level, [0, 0])
        level[0] += hit
        level[1] += 1
        match tier:
            case Tier.L1:
                self.l1 += 1
            case Tier.L2:
                self.l2 += 1
            case _:
                self.evaluated += 1


class Clock:
    """Still: the simulated minutes are far from an end of the working hours."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return BEGINS * 1_000_000_000


class Truth:
    """What the policy says of whole documents; remembers it by the facts that the documents show."""

    def __init__(self, entrypoint: LoadedEntrypoint) -> None:
        self._evaluate = entrypoint.evaluate
        self._encode = msgspec.json.Encoder().encode
        self._known: dict[tuple[int, ...], Verdict] = {}

    def of(self, asked: Asked) -> Verdict:
        """The right answer."""
        known = self._known.get(asked.facts)
        if known is None:
            known = self._known[asked.facts] = verdict_of(self._evaluate(self._encode(asked.document)))
        return known


def simulate(scenario: Scenario, entrypoint: LoadedEntrypoint, requests: int) -> Mapping[str, Tally]:
    """Asks each way of caching the same; by its name."""
    truth = Truth(entrypoint)
    reads = entrypoint.projection
    ways = {ALWAYS: (reads, True)}
    if scenario.promised:
        ways |= {
            AUTO: (reads, False),
            WHOLE: (Projection([()]), True),
            NAMES: (Projection([("user", "id"), ("tool", "name"), ("action",)]), True),
        }
    pods = {
        name: Pods(scenario.pods, projection, shared=shared, evaluate=truth.of)
        for name, (projection, shared) in ways.items()
    }
    tallies = {name: Tally() for name in ways}
    warm_up = min(WARM_UP, requests / scenario.workload.rate / 3)
    for number, asked in enumerate(World(scenario.workload, SEED).requests(requests)):
        right = truth.of(asked)
        for name, each in pods.items():
            verdict, tier = each.decide(number % scenario.pods, asked)
            tallies[name].add(asked, verdict, tier, right, counted=asked.at >= warm_up)
    return tallies
