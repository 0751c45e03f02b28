"""Generations: what is in every key, and replaced where what the key is about was invalidated.

`KeyParts` finds what the subjects of a question come to and remembers it, because each hit pays for it.
`LocalGenerations` are those of one process alone.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from secrets import token_bytes
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from sark_pdp.cache.subjects import ALL, Subject, of_entrypoint, of_ids
from sark_pdp.model import Document, Entrypoint

if TYPE_CHECKING:
    from sark_pdp.projection import Projection

GENERATION_BYTES: Final = 16
CAPACITY: Final = 4096
"""Subjects, and questions, that are remembered. One takes about 300 bytes."""

_Part: TypeAlias = tuple[bytes, float]
"""One generation, or several joined, and until when it is good, on `time.monotonic()`."""

GenerationOf: TypeAlias = Callable[[Subject], _Part | None]
"""The generation of a subject; None where it is not known."""


def new_generation() -> bytes:
    """One that never was."""
    return token_bytes(GENERATION_BYTES)


class _Plan:
    """What every answer of one entrypoint counts."""

    __slots__ = ("part", "projection", "subjects")

    def __init__(self, projection: "Projection", subjects: tuple[Subject, ...]) -> None:
        self.projection = projection
        self.subjects = subjects
        self.part: _Part | None = None


class KeyParts:
    """Remembers what questions come to, as long as no generation is replaced: its owner takes a renewed one then.

    A thread that still holds the former one adds what it found to what nobody looks at any more. Any thread adds; each
    step is one call of C code.
    """

    __slots__ = ("_generation_of", "_plans", "known")

    def __init__(self, generation_of: GenerationOf) -> None:
        self._generation_of = generation_of
        self._plans: dict[str, _Plan] = {}
        self.known: dict[bytes, _Part] = {}
        """By the key of a question; for each hit pays for this look-up."""

    def renewed(self) -> "KeyParts":
        """One that remembers the entrypoints alone."""
        made = KeyParts(self._generation_of)
        made._plans = {name: _Plan(plan.projection, plan.subjects) for name, plan in [*self._plans.items()]}
        return made

    def found(self, entrypoint: Entrypoint, projected: Document, key: bytes, now: float) -> bytes | None:
        """16 bytes for all subjects of the question; None where the generation of one is not known, or not any more."""
        plan = self._planned(entrypoint)
        fixed = plan.part
        if fixed is None or fixed[1] <= now:
            fixed = plan.part = self._part(plan.subjects, now)
            if fixed is None:
                return None
        part = self._part(of_ids(projected), now, fixed)
        if part is None:
            return None
        if len(self.known) >= CAPACITY:
            self.known.clear()
        self.known[key] = part
        return part[0]

    def of(self, entrypoint: Entrypoint, projected: Document, generations: Mapping[str, bytes]) -> bytes:
        """The same, of generations that hold all `subjects`; nothing is remembered."""
        fixed = joined(generations[subject] for subject in self._planned(entrypoint).subjects)
        return joined((fixed, *(generations[subject] for subject in of_ids(projected))))

    def fixed(self) -> set[Subject]:
        """What any answer of the entrypoints that are remembered counts."""
        return {subject for plan in [*self._plans.values()] for subject in plan.subjects}

    def subjects(self, entrypoint: Entrypoint, projected: Document) -> tuple[Subject, ...]:
        """All that an answer to this question counts."""
        return (*self._planned(entrypoint).subjects, *of_ids(projected))

    def _planned(self, entrypoint: Entrypoint) -> _Plan:
        plans, projection = self._plans, entrypoint.projection
        plan = plans.get(entrypoint.name)
        # Another revision has another projection, and may read other data.
        if plan is None or plan.projection is not projection:
            if len(plans) >= CAPACITY:
                plans.clear()
            plan = plans[entrypoint.name] = _Plan(projection, of_entrypoint(entrypoint))
        return plan

    def _part(self, subjects: Iterable[Subject], now: float, first: "_Part | None" = None) -> "_Part | None":
        parts = [] if first is None else [first]
        for subject in subjects:
            known = self._generation_of(subject)
            if known is None or known[1] <= now:
                return None
            parts.append(known)
        return joined(part for part, _ in parts), min(until for _, until in parts)


def joined(generations: Iterable[bytes]) -> bytes:
    """16 bytes that change with each of these."""
    return blake2b(b"".join(generations), digest_size=GENERATION_BYTES).digest()


class LocalGenerations:
    """The generations of one process. Nobody else hears of what is invalidated.

    `_lock` guards the changes of `_replaced`, `_others` and, after each change of these, `_parts`.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._replaced: dict[str, bytes] = {}
        self._others = new_generation()
        self._parts = KeyParts(self._generation_of)

    def known(self, entrypoint: Entrypoint, projected: Document, key: bytes) -> bytes:
        """What goes into the key."""
        parts = self._parts
        part = parts.known.get(key)
        return cast("bytes", parts.found(entrypoint, projected, key, 0.0)) if part is None else part[0]

    def read_many(self, questions: Sequence[tuple[Entrypoint, Document, bytes]]) -> list[bytes]:
        """The same for several; at once."""
        return [self.known(*question) for question in questions]

    def known_of(self, subjects: Sequence[str]) -> list[bytes]:
        """The generation of each."""
        return [self._replaced.get(subject, self._others) for subject in subjects]

    of = known_of

    def invalidate(self, subjects: Sequence[str]) -> bool:
        """Gives each a new generation. False: nobody else hears of it."""
        with self._lock:
            # A generation that was replaced must never be forgotten: what was decided before would be believed again.
            if ALL in subjects or len(self._replaced) + len(subjects) > self._capacity:
                self._others = new_generation()
                self._replaced = {}
            else:
                self._replaced.update((subject, new_generation()) for subject in subjects)
            self._parts = self._parts.renewed()
        return False

    def _generation_of(self, subject: Subject) -> tuple[bytes, float]:
        return self._replaced.get(subject, self._others), float("inf")
