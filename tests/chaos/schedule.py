"""Which faults come when: drawn from a seed, so that a run can be repeated. No I/O."""

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import count
from random import Random
from typing import Final

from msgspec import Struct

PAIR: Final = 2
"""Sidecars, writers, and the connections of each."""


class Kind(Enum):
    """What a fault is; its value is what the timeline says, `#` being the number of what it hits."""

    WRITER_KILLED = "writer # is killed"
    WRITER_STOPPED = "writer # is told to stop"
    DATABASE_RESTARTED = "the database is restarted"
    DATABASE_CRASHED = "the database is stopped as if it crashed"
    DATABASE_FROZEN = "the database stands still"
    UPLINK_CUT = "nobody reaches writer #"
    UPLINK_SLOWED = "the way to writer # is slow"
    UPLINK_STALLED = "the way to writer # passes nothing on"
    ACKS_LOST = "acknowledgements are lost, then connections are reset"
    LINK_CUT = "writer # does not reach the database"
    LINK_SLOWED = "the way from writer # to the database is slow"
    LINK_STALLED = "the way from writer # to the database passes nothing on"
    COMMITS_LOST = "the database's answers are lost, then connections are reset"
    SIDECAR_KILLED = "sidecar # is killed"
    SIDECAR_STOPPED = "sidecar # is told to stop"
    DISK_FILLED = "no writer is reached, and the disk of sidecar # is full"
    KILLED_WHEN_FULL = "no writer is reached, the disk of sidecar # is full, and it is killed"


LOCAL: Final = (Kind.SIDECAR_KILLED, Kind.SIDECAR_STOPPED, Kind.DISK_FILLED, Kind.KILLED_WHEN_FULL)
"""Those that hit a sidecar or its disk; the others leave it all that it needs to answer."""
NEEDS_DISK: Final = (Kind.DISK_FILLED, Kind.KILLED_WHEN_FULL)
CENTRAL: Final = tuple(kind for kind in Kind if kind not in LOCAL)


class Fault(Struct, frozen=True):
    """One fault."""

    kind: Kind
    number: int
    """Of what it hits, where there is a pair."""
    start: float
    """Seconds after the phase began."""
    seconds: float
    """For how long, at least: some have to have had an effect before they end."""

    def __str__(self) -> str:
        return self.kind.value.replace("#", str(self.number))

    @property
    def hits(self) -> frozenset[str]:
        """What no other fault may hit at the same time."""
        kind, number = self.kind, self.number
        if kind in NEEDS_DISK:
            return frozenset({f"sidecar {number}", *_both("uplink")})
        if kind is Kind.ACKS_LOST:
            return _both("uplink")
        if kind is Kind.COMMITS_LOST:
            return _both("link")
        name = kind.name.partition("_")[0].lower()
        return frozenset({name if name == "database" else f"{name} {number}"})


class Pace(Struct, frozen=True):
    """How quickly one thing follows on another. Times in seconds."""

    calm: float
    """Between two phases with faults."""
    shortest: float
    """As the next: of a fault."""
    longest: float
    most: int
    """Faults of the writers and the database in one phase."""
    local_every: int
    """One phase of so many has a fault of a sidecar too."""


UNHURRIED: Final = Pace(calm=4.0, shortest=1.0, longest=5.0, most=3, local_every=3)
HURRIED: Final = Pace(calm=0.5, shortest=0.3, longest=1.5, most=4, local_every=2)
"""As much as possible in half a minute."""


def phases(seed: int, pace: Pace, *, disk: bool = True) -> Iterator[tuple[Fault, ...]]:
    """The faults of each phase, without end; all kinds come before one comes again.

    `disk` is whether a disk can be filled here.
    """
    random = Random(seed)
    central = _Deck(CENTRAL, random)
    local = _Deck([kind for kind in LOCAL if disk or kind not in NEEDS_DISK], random)
    for number in count(1):
        chosen: list[Fault] = []
        if number % pace.local_every == 0:
            local.deal(1, chosen, pace)
        central.deal(random.randint(1, pace.most), chosen, pace)
        yield tuple(sorted(chosen, key=lambda fault: fault.start))


class _Deck:
    """Kinds in random order, each as often as the others."""

    def __init__(self, kinds: Sequence[Kind], random: Random) -> None:
        self._kinds = kinds
        self._random = random
        self._left: deque[Kind] = deque()

    def deal(self, number: int, chosen: list[Fault], pace: Pace) -> None:
        """Adds so many faults, or fewer where those that follow would hit what is hit already."""
        put_back = []
        for _ in range(number):
            if not self._left:
                self._left.extend(self._random.sample(self._kinds, len(self._kinds)))
            fault = self._fault(self._left.popleft(), pace)
            if any(fault.hits & other.hits for other in chosen):
                put_back.append(fault.kind)
            else:
                chosen.append(fault)
        self._left.extendleft(reversed(put_back))

    def _fault(self, kind: Kind, pace: Pace) -> Fault:
        random = self._random
        number = random.randrange(PAIR)
        return Fault(kind, number, random.uniform(0.0, pace.shortest), random.uniform(pace.shortest, pace.longest))


def _both(name: str) -> frozenset[str]:
    return frozenset(f"{name} {number}" for number in range(PAIR))
