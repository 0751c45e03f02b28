"""Generations that all processes share, in Redis: one key for each subject, made by whoever needs it first.

What was read is held for a while and used without asking, as long as the channel (`channel.py`) proves that no
invalidation can have been missed: that is the trust. Without it every question reads. Where Redis is away, questions
get generations of this process alone, new ones each time, so that nothing decided before is believed.

Every generation is mixed with the run id of the server that it was read from: after a restart or a failover, when
invalidations may have been lost, nothing that was kept before is found again.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic, sleep
from typing import Any, Final, Protocol

from sark_pdp.cache.generation_commands import Command, Commands, mixed
from sark_pdp.cache.generations import CAPACITY, KeyParts, LocalGenerations, new_generation
from sark_pdp.cache.subjects import ALL
from sark_pdp.model import Document, Entrypoint, Seconds

_PAUSES: Final = (0.005, 0.02, 0.05, 0.1, 0.2)
"""Seconds before each further attempt to tell Redis of an invalidation."""
_NEVER: Final = float("-inf")


class Link(Protocol):
    """What is needed of `RedisLink`."""

    @property
    def run_id(self) -> bytes | None:
        """Of the server that is asked now; None while there is none."""

    def execute(self, commands: Sequence[Command]) -> list[Any] | None:
        """The replies, in one round trip of bounded time; None where Redis is not to be had."""


class _Read:
    """Generations that were asked for and are not here yet. What is heard meanwhile is newer than they may be."""

    __slots__ = ("epoch", "heard")

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch
        """None where nothing was trusted as it began: it cannot begin a time of trust."""
        self.heard: set[str] = set()


class RedisGenerations:
    """See the module. Thread-safe.

    `_lock` guards the changes of all that changes: `_held`, what was read, with the end of its time; `_existing`,
    subjects that Redis had a generation of; `_reads`, those on their way; `_owed`, invalidations that Redis has not
    heard of yet; `_away`; `_run_id`; `_trusted_until`, and `_epoch`, another one each time that trust was lost.
    """

    def __init__(self, link: Link, prefix: str, ttl: Seconds, capacity: int = CAPACITY) -> None:
        """`ttl`: how long one that was read is used before it is read again."""
        self.commands = Commands(prefix)
        self._link, self._ttl, self._capacity = link, ttl, capacity
        self._lock = threading.Lock()
        self._held: dict[str, tuple[bytes, float]] = {}
        self._parts = KeyParts(self._held.get)
        self._existing: set[str] = set()
        self._reads: set[_Read] = set()
        self._owed: dict[str, object] = {}
        self._away: LocalGenerations | None = None
        self._epoch = 0
        self._trusted_until = _NEVER
        self._run_id: bytes | None = None

    @property
    def trusted(self) -> bool:
        """Whether it is proved that invalidations are heard."""
        return monotonic() < self._trusted_until

    def known(self, entrypoint: Entrypoint, projected: Document, key: bytes) -> bytes | None:
        """What goes into the key, where that is known and trusted."""
        now = monotonic()
        if now >= self._trusted_until:
            away = self._away
            # A Redis that is there may tell of what these cannot hear of.
            return None if away is None or self._link.run_id is not None else away.known(entrypoint, projected, key)
        parts = self._parts
        part = parts.known.get(key)
        return part[0] if part is not None and part[1] > now else parts.found(entrypoint, projected, key, now)

    def known_of(self, subjects: Sequence[str]) -> list[bytes] | None:
        """The generation of each, where all are known and trusted."""
        now = monotonic()
        if now >= self._trusted_until:
            away = self._away
            return None if away is None or self._link.run_id is not None else away.known_of(subjects)
        held = [self._held.get(subject) for subject in subjects]
        found = [part[0] for part in held if part is not None and part[1] > now]
        return found if len(found) == len(held) else None

    def read_many(self, questions: Sequence[tuple[Entrypoint, Document, bytes]]) -> list[bytes]:
        """What goes into the keys; reads what is not known in one round trip."""
        known = [self.known(*question) for question in questions]
        unknown = [question for question, part in zip(questions, known, strict=True) if part is None]
        if unknown:
            parts = self._parts
            read = self._read({each: None for question in unknown for each in parts.subjects(*question[:2])})
            if read is None:
                away = self._gone()
                found = iter([away.known(*question) for question in unknown])
            else:
                found = iter([parts.of(entrypoint, projected, read) for entrypoint, projected, _ in unknown])
            known = [next(found) if part is None else part for part in known]
        return [part for part in known if part is not None]

    def of(self, subjects: Sequence[str]) -> list[bytes]:
        """The generation of each; reads those that are not known in one round trip."""
        read = self._read(dict.fromkeys(subjects))
        return self._gone().of(subjects) if read is None else [read[subject] for subject in subjects]

    def invalidate(self, subjects: Sequence[str]) -> bool:
        """Gives each a new generation. Where Redis cannot be told now, it is told before anything is read from it.

        May wait for half a second, and `cache.l2.timeout` a few times.
        """
        owed = {subject: object() for subject in subjects}
        with self._lock:
            # Before Redis is asked: it may do as it is told and not live to say so.
            self._owe(owed)
        shared = self._link.execute(self.commands.tell(owed)) is not None
        self.heard(subjects)
        for pause in () if shared else _PAUSES:
            # A request would not wait for a Redis that is slow for a moment; whoever invalidates does.
            sleep(pause)
            shared = self._link.execute(self.commands.tell(owed)) is not None
            if shared:
                break
        with self._lock:
            if shared:
                self._paid(owed)
            self._forget(subjects)
        return shared

    def deliver(self) -> None:
        """Tells Redis what it has not heard of yet. Called now and then, for nobody may ask."""
        owed = dict(self._owed)
        if owed and self._link.execute(self.commands.tell(owed)) is not None:
            with self._lock:
                self._paid(owed)
                self._forget(owed)

    def refresh(self) -> None:
        """Reads again what every answer needs before its time is over, so that no request has to wait for it."""
        if self.trusted:
            self._read(dict.fromkeys(self._parts.fixed()), self._ttl / 2)

    def heard(self, subjects: Iterable[str]) -> None:
        """Someone invalidated these. They are read again when needed, so the order of messages decides nothing."""
        with self._lock:
            self._forget(subjects)

    def trust(self, until: float) -> None:
        """All that was published is heard: what is held counts until this point of `time.monotonic()`."""
        with self._lock:
            if monotonic() >= self._trusted_until:
                self._start_over()
            self._away = None
            self._trusted_until = max(self._trusted_until, until)

    def distrust(self) -> None:
        """Something may have been missed: everything is read again."""
        with self._lock:
            self._start_over()

    def served_by(self, run_id: bytes | None) -> None:
        """Told of each change of the server, or that there is none: what another one told counts no more."""
        with self._lock:
            if run_id is not None and run_id != self._run_id:
                self._run_id = run_id
                self._existing.clear()
                self._start_over()

    def _read(self, subjects: Mapping[str, None], left: float = 0.0) -> dict[str, bytes] | None:
        """The generation of each; None where Redis is not to be had. What is good for `left` seconds is not asked."""
        began = monotonic()
        with self._lock:
            trusted = began < self._trusted_until
            held = self._good(subjects, began + left) if trusted else {}
            missing = [subject for subject in subjects if subject not in held]
            if not missing:
                return held
            owed = dict(self._owed)
            made = [subject for subject in missing if subject not in self._existing]
            reading = _Read(self._epoch if trusted else None)
            self._reads.add(reading)
        run_id = self._link.run_id
        telling = self.commands.tell(owed) if owed else []
        replies = self._link.execute([*telling, *self.commands.make(made), self.commands.read(missing)])
        with self._lock:
            self._reads.remove(reading)
            if replies is None or run_id is None or run_id != self._link.run_id:
                return None
            # What stands between here and Redis may answer with anything.
            if type(replies[-1]) is not list or len(replies[-1]) != len(missing):
                return None
            self._away = None
            if owed:
                self._paid(owed)
                self._forget(owed)
            return held | self._taken(reading, dict(zip(missing, replies[-1], strict=True)), run_id, began)

    def _good(self, subjects: Iterable[str], now: float) -> dict[str, bytes]:
        held = ((subject, self._held.get(subject)) for subject in subjects)
        return {subject: part[0] for subject, part in held if part is not None and part[1] > now}

    def _taken(self, reading: _Read, replies: dict[str, bytes | None], run_id: bytes, began: float) -> dict[str, bytes]:
        """What the replies say, held where nothing newer can have been heard of."""
        taken: dict[str, bytes] = {}
        replaced = False
        for subject, stored in replies.items():
            if type(stored) is not bytes:
                # It was evicted, or is none. The next one who needs it makes another; this one is for one question.
                self._existing.discard(subject)
                taken[subject] = new_generation()
                continue
            taken[subject] = generation = mixed(stored, run_id)
            if len(self._existing) >= self._capacity:
                self._existing.clear()
            self._existing.add(subject)
            if reading.epoch == self._epoch and subject not in reading.heard:
                former = self._held.pop(subject, None)
                replaced |= former is not None and former[0] != generation
                self._hold(subject, generation, began + self._ttl)
        if replaced:
            self._parts = self._parts.renewed()
        return taken

    def _hold(self, subject: str, generation: bytes, until: float) -> None:
        if len(self._held) >= self._capacity:
            del self._held[next(iter(self._held))]
        self._held[subject] = generation, until

    def _owe(self, owed: Mapping[str, object]) -> None:
        self._owed |= owed
        if len(self._owed) > self._capacity:
            self._owed = {ALL: object()}

    def _paid(self, owed: Mapping[str, object]) -> None:
        """Redis knows of these; of what was invalidated once more meanwhile it may not."""
        for subject, invalidation in owed.items():
            if self._owed.get(subject) is invalidation:
                del self._owed[subject]

    def _forget(self, subjects: Iterable[str]) -> None:
        subjects = tuple(subjects)
        for reading in self._reads:
            reading.heard.update(subjects)
        for subject in subjects:
            self._held.pop(subject, None)
        self._parts = self._parts.renewed()
        if self._away is not None:
            self._away.invalidate(subjects)

    def _start_over(self) -> None:
        self._epoch += 1
        self._trusted_until = _NEVER
        self._held.clear()
        self._parts = self._parts.renewed()

    def _gone(self) -> LocalGenerations:
        if self._link.run_id is not None:
            # For this once. The next read may succeed, and nothing is to outlive what it would have told.
            return LocalGenerations(self._capacity)
        with self._lock:
            if self._away is None:
                self._away = LocalGenerations(self._capacity)
            return self._away
