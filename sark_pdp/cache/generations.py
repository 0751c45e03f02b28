"""Generations: what is in every key, and replaced where what the key is about was invalidated.

`KeyParts` finds what the subjects of a question come to and remembers it, because each hit pays for it.
`LocalGenerations` are those of one process alone.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from secrets import token_bytes
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from sark_pdp.cache.subjects import ALL, Ids, Subject, ids_in, of_entrypoint, of_ids
from sark_pdp.model import Document, Entrypoint

if TYPE_CHECKING:
    from sark_pdp.projection import Projection

GENERATION_BYTES: Final = 16
CAPACITY: Final = 4096
"""Subjects, and combinations of them, that are remembered. One takes about 300 bytes."""

_Part: TypeAlias = tuple[bytes, float]
"""One generation, or several joined, and until when it is good, on `time.monotonic()`."""

GenerationOf: TypeAlias = Callable[[Subject], _Part | None]
"""The generation of a subject; None where it is not known."""


def new_generation() -> bytes:
    """One that never was."""
    return token_bytes(GENERATION_BYTES)


class _Plan:
    """What is known of one entrypoint. `parts` is added to by any thread: each step is one call of C code."""

    __slots__ = ("fixed", "ids", "parts", "projection")

    def __init__(self, projection: "Projection", fixed: tuple[Subject, ...], ids: Callable[[Document], Ids]) -> None:
        self.projection = projection
        self.fixed = fixed
        self.ids = ids
        self.parts: dict[Ids | None, _Part] = {}
        """By the ids in the question; that of `fixed` alone under None."""


class KeyParts:
    """Remembers what questions come to, as long as no generation is replaced: its owner takes a renewed one then.

    A thread that still holds the former one adds what it found to what nobody looks at any more.
    """

    __slots__ = ("_generation_of", "_plans")

    def __init__(self, generation_of: GenerationOf) -> None:
        self._generation_of = generation_of
        self._plans: dict[str, _Plan] = {}

    def renewed(self) -> "KeyParts":
        """One that remembers the entrypoints alone."""
        made = KeyParts(self._generation_of)
        made._plans = {name: _Plan(plan.projection, plan.fixed, plan.ids) for name, plan in [*self._plans.items()]}
        return made

    def of(self, entrypoint: Entrypoint, projected: Document, now: float) -> bytes | None:
        """16 bytes for all subjects of the question; None where the generation of one is not known, or not any more."""
        plan = self._plans.get(entrypoint.name)
        if plan is None or plan.projection is not entrypoint.projection:
            plan = self._planned(entrypoint)
        ids = plan.ids(projected)
        try:
            part = plan.parts.get(ids)
        except TypeError:
            # An id that is a list or an object is none.
            part = None
        if part is not None and part[1] > now:
            return part[0]
        return self._found(plan, ids, now)

    def subjects(self, entrypoint: Entrypoint, projected: Document) -> tuple[Subject, ...]:
        """All that an answer to this question counts."""
        plan = self._planned(entrypoint)
        return (*plan.fixed, *of_ids(plan.ids(projected)))

    def _planned(self, entrypoint: Entrypoint) -> _Plan:
        plans, projection = self._plans, entrypoint.projection
        plan = plans.get(entrypoint.name)
        if plan is None or plan.projection is not projection:
            if len(plans) >= CAPACITY:
                plans.clear()
            plan = plans[entrypoint.name] = _Plan(projection, of_entrypoint(entrypoint), ids_in(projection))
        return plan

    def _found(self, plan: _Plan, ids: Ids, now: float) -> bytes | None:
        fixed = plan.parts.get(None)
        if fixed is None or fixed[1] <= now:
            fixed = self._part(plan.fixed, now)
            if fixed is None:
                return None
            plan.parts[None] = fixed
        part = self._part(of_ids(ids), now, fixed)
        if part is None:
            return None
        # 1, 1.0 and True are the same key of a dict, but not the same user.
        if all(each is None or type(each) is str for each in ids):
            if len(plan.parts) >= CAPACITY:
                plan.parts.clear()
            plan.parts[ids] = part
        return part[0]

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

    def known(self, entrypoint: Entrypoint, projected: Document) -> bytes:
        """What goes into the key."""
        return cast("bytes", self._parts.of(entrypoint, projected, 0.0))

    def read_many(self, questions: Sequence[tuple[Entrypoint, Document]]) -> list[bytes]:
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
