"""What was found for a request, kept whole: who asks the same of the same again is answered for a sixth of the work.

A policy reads a few fields of each section. What of the rows it reads is taken out once for each policy; of the
document only the projection is made then, and the completed document never.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from msgspec import Struct

from sark_pdp.attributes.columns import SERVERS, TOOLS, USERS
from sark_pdp.attributes.completion import Rows
from sark_pdp.attributes.entries import Entry
from sark_pdp.attributes.names import Names
from sark_pdp.interfaces import Generations
from sark_pdp.model import Document, Seconds
from sark_pdp.projection import Projection

CAPACITY: Final = 2048
"""Combinations of user, tool and server. One takes about 2 KiB with what a policy reads of it."""

_Part: TypeAlias = tuple[str, frozenset[str], Document]
"""A section, the fields of it that the registry speaks for, and what a policy reads of its row."""


class Found(Struct, frozen=True, gc=False):
    """The rows of one request."""

    rows: Rows
    as_of: float
    """On `time.monotonic()`: when the reading of the oldest one began."""
    stale: bool
    """One of them is past its lifetime."""


class Combination:
    """What was found in memory for some names. `_parts` is added to by any thread, in single steps of C code."""

    __slots__ = ("_expires", "_generations", "_parts", "_subjects", "found", "number")

    def __init__(self, found: Found, entries: Iterable[Entry]) -> None:
        self.found = found
        every = tuple(entries)
        self.number = len(every)
        pairs = dict(pair for entry in every for pair in zip(entry.subjects, entry.generations, strict=True))
        self._subjects = tuple(pairs)
        self._generations = [*pairs.values()]
        self._expires = min(entry.expires for entry in every)
        self._parts: dict[Projection, tuple[_Part, ...]] = {}

    def counts(self, generations: Generations, now: float, max_age: Seconds | None) -> bool:
        """Whether it is still as good as its rows are."""
        return (
            now < self._expires
            and (max_age is None or now - self.found.as_of <= max_age)
            and generations.known_of(self._subjects) == self._generations
        )

    def projected(self, projection: Projection, document: Document) -> Document:
        """`projection.project(completed(document, rows, trust_caller=False))`; not for one that reads the whole."""
        parts = self._parts.get(projection)
        if parts is None:
            parts = self._parts[projection] = tuple(_parts(projection, self.found.rows))
        made = projection.project(document)
        for section, owned, part in parts:
            said = made.get(section)
            if type(said) is dict and not said.keys() <= owned:
                made[section] = {**{name: value for name, value in said.items() if name not in owned}, **part}
            elif part:
                made[section] = part
            elif said is not None:
                del made[section]
        return made


def _parts(projection: Projection, rows: Rows) -> Iterable[_Part]:
    for view, row in ((USERS, rows.user), (TOOLS, rows.tool), (SERVERS, rows.server)):
        if row is not None:
            yield view.section, view.owned, projection.project({view.section: row}).get(view.section, {})


class Remembered:
    """The combinations of one process. `_held` is changed by any thread, in single steps; it is emptied when full."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._held: dict[Names, Combination] = {}

    def get(self, names: Names, now: float, max_age: Seconds | None) -> Combination | None:
        """What was found for these names, where it still counts."""
        try:
            held = self._held.get(names)
        except TypeError:
            # A name that is a list or an object is none.
            return None
        return held if held is not None and held.counts(self._generations, now, max_age) else None

    def put(self, names: Names, found: Found, entries: Iterable[Entry]) -> None:
        """Keeps what was found, but not what is stale."""
        # Where the registry knows no server of the tool, what is left of that section depends on the document.
        if found.stale or found.rows.server == {}:
            return
        try:
            if len(self._held) >= CAPACITY:
                self._held.clear()
            self._held[names] = Combination(found, entries)
        except TypeError:
            # As above.
            return
