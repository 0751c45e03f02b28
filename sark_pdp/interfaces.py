"""What one layer asks of the next. Each protocol has one contract suite that all its implementations pass."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from sark_pdp.model import AuditRecord, Deadline, Decision, Document, Entrypoint, Request, Verdict

Answered: TypeAlias = Decision | Exception
"""What one request of several came to: its decision, or what `decide` would have raised for it."""


class Decider(Protocol):
    """Answers a request; the layers between transport and engine are decorators on it."""

    def decide(self, request: Request) -> Decision:
        """May wait: for a cache, a database, a slow policy. Raises EvaluationError or a RequestError."""

    def decide_nowait(self, request: Request) -> Decision | None:
        """The same answer where it can be given at once, else None."""

    def decide_many(self, requests: Sequence[Request]) -> Sequence[Answered]:
        """One answer for each, in order; may wait. What one of them fails with is its own answer.

        What they need from caches and databases is read together. A deadline is looked at before each evaluation.
        """


class PolicySet(Protocol):
    """The entrypoints of one activation; what it returns never changes, so a batch is answered by one revision."""

    def entrypoint(self, name: str) -> Entrypoint:
        """Raises UnknownEntrypointError for a name that is not loaded."""


class PolicySource(Protocol):
    """Holds the active policies."""

    def active(self) -> PolicySet:
        """Raises NotReadyError before the first activation."""

    def entrypoint(self, name: str) -> Entrypoint:
        """`active().entrypoint(name)`."""


class CacheEntry(Struct, frozen=True):
    """A verdict with its lifetime; both points are on `time.monotonic()`."""

    verdict: Verdict
    as_of: float
    """When its evaluation began."""
    expires: float


class StoreStatistics(Struct, frozen=True):
    """How a decision store is filled, and how it did since the start."""

    name: str
    entries: int
    capacity: int
    """Zero where what it holds is elsewhere, and `entries` is not known."""
    hits: int
    misses: int
    notes: tuple[str, ...] = ()
    """What is worth knowing of it: sentences without their full stops."""


class DecisionStore(Protocol):
    """Keeps verdicts under keys; may forget any of them at any time. Thread-safe."""

    def get(self, key: bytes) -> CacheEntry | None:
        """What was put under this key, expired or not; the caller looks at its lifetime."""

    def put(self, key: bytes, entry: CacheEntry) -> None:
        """Replaces what was there."""

    @property
    def capacity(self) -> int:
        """Entries that it holds at most."""

    def __len__(self) -> int:
        """Entries that it holds now, expired ones included."""


class Generations(Protocol):
    """What is in a key so that invalidating a subject leaves its keys behind; see `cache/subjects.py`. Thread-safe.

    A generation is 16 bytes of chance. A new one is all that an invalidation is: nothing is looked for or deleted.
    A question is an entrypoint, its projected input, and `key_of` both. What is found is remembered under that key, so
    that a hit pays for one look-up; key and generation together are what the answer is kept under.
    """

    def known(self, entrypoint: Entrypoint, projected: Document, key: bytes) -> bytes | None:
        """16 bytes to append to the key; None where a generation has to be read first. Waits for nothing."""

    def read_many(self, questions: Sequence[tuple[Entrypoint, Document, bytes]]) -> list[bytes]:
        """The same for several, in order. May wait, at most `cache.l2.timeout` in all; never raises."""

    def known_of(self, subjects: Sequence[str]) -> list[bytes] | None:
        """The generation of each; None where one has to be read first. Waits for nothing."""

    def of(self, subjects: Sequence[str]) -> list[bytes]:
        """The same. May wait, at most `cache.l2.timeout` in all; never raises."""

    def invalidate(self, subjects: Sequence[str]) -> bool:
        """Gives each a new generation, from now on in this process. True where every process hears of it."""


RowKey: TypeAlias = tuple[str, ...]
"""One row of the registry: a kind of name, and the name. `attributes/names.py` has the kinds."""


class AttributeSource(Protocol):
    """Reads the registry of users, servers and tools."""

    def read(self, keys: Collection[RowKey], deadline: Deadline) -> Mapping[RowKey, Sequence[Document]]:
        """The rows of each key; it may be absent where there is none. The columns of attributes/columns.py, no nulls.

        One query per table. May wait, but not beyond `deadline`, and not for a registry that is known to be away.
        Raises AttributesError, or DeadlineExceededError where it was the deadline.
        """

    @property
    def away(self) -> bool:
        """Whether the registry is known not to answer."""


class AuditSink(Protocol):
    """Takes what is to be recorded, and never makes an answer wait."""

    @property
    def required(self) -> bool:
        """Whether an answer whose record was dropped must not be given (`audit.on_full: deny`)."""

    @property
    def keeps(self) -> bool:
        """False where nothing is kept: what only a record would tell need not be found out."""

    def put_nowait(self, record: AuditRecord) -> bool:
        """False where the record had to be dropped; it is counted then."""

    def accepts(self) -> bool:
        """False where records are required and there is no room for one at this moment."""


class Clock(Protocol):
    """The time that policies see."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
