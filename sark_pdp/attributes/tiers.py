"""Where rows of the registry are looked for: in memory, in a store that processes share, in the registry itself."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from sark_pdp.attributes.entries import (
    Entry,
    EntryStore,
    Shared,
    SharedStore,
    Told,
    from_payload,
    to_payload,
    told_of,
)
from sark_pdp.attributes.names import NAMED_SERVER, TOOL_OF
from sark_pdp.errors import AttributesError
from sark_pdp.interfaces import AttributeSource, Generations, RowKey, StoreStatistics
from sark_pdp.model import Deadline, Seconds
from sark_pdp.observability.instruments import Counter

NEGATIVE_TTL: Final = Seconds(2.0)
"""How long it is believed that there is no such row: somebody may be waiting for one that was just added."""

_VERSION: Final = b"1"
_NOT_GUARDED: Final = frozenset({TOOL_OF, NAMED_SERVER})
"""Kinds of keys that do not tell the id of their row: no generation can be read before it. Only that there is no such
row is kept of them."""

SubjectsOf: TypeAlias = Callable[[RowKey], tuple[str, ...]]
"""What an entry under this key counts on."""

Looked: TypeAlias = Entry | AttributesError
"""What came of looking for a row."""

_encode = msgspec.msgpack.Encoder().encode


class Lifetimes(Struct, frozen=True):
    """How long rows are believed, from the beginning of their reading."""

    memory: Seconds
    """In memory, before the next tier is asked."""
    shared: Seconds
    """In all."""
    stale: Seconds
    """While the registry is away."""


class AttributeTiers:
    """Looks rows up. What is past its lifetime counts only while the registry is away, and only so long.

    Thread-safe: its state is that of its parts, and counters.
    """

    def __init__(
        self,
        source: AttributeSource,
        memory: EntryStore,
        shared: SharedStore | None,
        generations: Generations,
        subjects_of: SubjectsOf,
        lifetimes: Lifetimes,
    ) -> None:
        self._source = source
        self._memory = memory
        self._shared = shared
        self.generations = generations
        self._subjects_of = subjects_of
        self._lifetimes = lifetimes
        self._hits, self._misses = Counter(), Counter()
        self._shared_hits, self._shared_misses = Counter(), Counter()

    def known(self, key: RowKey, now: float, max_age: Seconds | None) -> Entry | None:
        """The entry in memory, where it counts now; waits for nothing."""
        entry = self._memory.get(key)
        if entry is None or self.generations.known_of(entry.subjects) != entry.generations:
            return None
        if now < entry.expires and (max_age is None or now - entry.as_of <= max_age):
            self._hits.value += 1
            return entry
        if self._source.away and self._is_bearable(entry, now, max_age):
            self._hits.value += 1
            return entry
        return None

    def found_again(self, number: int) -> None:
        """Rows that somebody remembered, who asked `generations` himself."""
        self._hits.value += number

    def read(self, keys: Collection[RowKey], deadline: Deadline, max_age: Seconds | None) -> dict[RowKey, Looked]:
        """Each row, from the first tier that has it. May wait, not beyond `deadline`; raises DeadlineExceededError."""
        if not keys:
            return {}
        run_id = None if self._shared is None else self._shared.run_id
        now = time.monotonic()
        blanks = self._blanks(keys, now)
        waited = Seconds(time.monotonic() - now)
        found: dict[RowKey, Looked] = {}
        stale: dict[RowKey, Entry] = {}
        self._take(((key, self._memory.get(key)) for key in keys), blanks, now, max_age, found, stale)
        self._hits.value += len(found)
        self._misses.value += len(keys) - len(found)
        missing = [key for key in keys if key not in found]
        if missing and self._shared is not None and (max_age is None or max_age > 0):
            shared = self._read_shared(self._shared, {key: blanks[key] for key in missing}, waited)
            self._take(shared.items(), blanks, now, max_age, found, stale)
            for key in missing:
                if key in found:
                    self._memory.put(key, shared[key])
            missing = [key for key in missing if key not in found]
        if missing:
            found.update(self._read_source({key: blanks[key] for key in missing}, deadline, stale, run_id))
        return found

    def statistics(self) -> list[StoreStatistics]:
        """Now; what the shared store holds is not known."""
        memory = self._memory
        first = StoreStatistics("attributes_l1", len(memory), memory.capacity, self._hits.value, self._misses.value)
        if self._shared is None:
            return [first]
        return [first, StoreStatistics("attributes_l2", 0, 0, self._shared_hits.value, self._shared_misses.value)]

    def _blanks(self, keys: Iterable[RowKey], now: float) -> dict[RowKey, Entry]:
        """An entry for each that tells nothing yet; its generations are from before anything is read."""
        subjects = {key: self._subjects_of(key) for key in keys}
        generations = iter(self.generations.of([each for those in subjects.values() for each in those]))
        return {
            key: Entry(_NOTHING, now, now, those, [next(generations) for _ in those]) for key, those in subjects.items()
        }

    def _take(
        self,
        candidates: Iterable[tuple[RowKey, Entry | None]],
        blanks: Mapping[RowKey, Entry],
        now: float,
        max_age: Seconds | None,
        found: dict[RowKey, Looked],
        stale: dict[RowKey, Entry],
    ) -> None:
        for key, entry in candidates:
            if entry is None or entry.generations != blanks[key].generations:
                continue
            if now < entry.expires and (max_age is None or now - entry.as_of <= max_age):
                found[key] = entry
            elif self._is_bearable(entry, now, max_age) and (key not in stale or stale[key].as_of < entry.as_of):
                stale[key] = entry

    def _is_bearable(self, entry: Entry, now: float, max_age: Seconds | None) -> bool:
        age = now - entry.as_of
        return age <= self._lifetimes.stale and (max_age is None or age <= max_age)

    def _read_shared(self, store: SharedStore, blanks: Mapping[RowKey, Entry], waited: Seconds) -> dict[RowKey, Entry]:
        found = {}
        values = store.get_many([_shared_key(key, blank) for key, blank in blanks.items()], waited)
        wall, now = time.time(), time.monotonic()
        for (key, blank), value in zip(blanks.items(), values, strict=True):
            told = None if value is None else from_payload(value.payload)
            if value is None or told is None:
                self._shared_misses.value += 1
                continue
            as_of = now - max(wall - value.as_of, 0.0)
            expires = min(as_of + self._total(told), now + self._lifetimes.memory)
            (self._shared_hits if expires > now else self._shared_misses).inc()
            found[key] = Entry(told, as_of, expires, blank.subjects, blank.generations)
        return found

    def _read_source(
        self,
        blanks: Mapping[RowKey, Entry],
        deadline: Deadline,
        stale: Mapping[RowKey, Entry],
        run_id: bytes | None,
    ) -> dict[RowKey, Looked]:
        wall, now = time.time(), time.monotonic()
        try:
            rows = self._source.read(blanks, deadline)
        except AttributesError as error:
            away = self._source.away
            return {key: stale[key] if away and key in stale else error for key in blanks}
        found: dict[RowKey, Looked] = {}
        shared = []
        for key, blank in blanks.items():
            told = told_of(key, rows.get(key, ()))
            lifetime = min(self._lifetimes.memory, self._total(told))
            entry = found[key] = Entry(told, now, now + lifetime, blank.subjects, blank.generations)
            if key[0] in _NOT_GUARDED and told.fields is not None:
                continue
            self._memory.put(key, entry)
            bearable = max(self._total(told), self._lifetimes.stale)
            shared.append((_shared_key(key, blank), Shared(to_payload(told), wall, wall + bearable)))
        if self._shared is not None and shared:
            self._shared.put_later(shared, run_id)
        return found

    def _total(self, told: Told) -> float:
        return self._lifetimes.shared if told.fields is not None else min(NEGATIVE_TTL, self._lifetimes.shared)


_NOTHING: Final = Told(None)


def _shared_key(key: RowKey, blank: Entry) -> bytes:
    return sha256(_encode((_VERSION, key, blank.generations))).digest()
