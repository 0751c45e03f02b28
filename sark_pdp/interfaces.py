"""What one layer asks of the next. Each protocol has one contract suite that all its implementations pass."""

from typing import Protocol

from sark_pdp.model import AuditRecord, Decision, Entrypoint, Request


class Decider(Protocol):
    """Answers a request; the layers between transport and engine are decorators on it."""

    def decide(self, request: Request) -> Decision:
        """May wait: for a cache, a database, a slow policy. Raises EvaluationError or a RequestError."""

    def decide_nowait(self, request: Request) -> Decision | None:
        """The same answer where it can be given at once, else None."""


class PolicySource(Protocol):
    """Holds the active policy revision."""

    def entrypoint(self, name: str) -> Entrypoint:
        """Raises NotReadyError before the first activation, UnknownEntrypointError for a name that is not loaded."""


class AuditSink(Protocol):
    """Takes what is to be recorded, and never makes an answer wait."""

    def put_nowait(self, record: AuditRecord) -> bool:
        """False where the record had to be dropped; it is counted then."""

    def accepts(self) -> bool:
        """False where no decision may be answered because it could not be recorded (`audit.on_full: deny`)."""


class Clock(Protocol):
    """The time that policies see."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
