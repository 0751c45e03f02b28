"""Keeps what was made of verdicts that are answered again and again."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from sark_pdp.model import Outcome, PolicyRevision, Verdict

_MOST: Final = 1024
_LONG: Final = 1024
"""Bytes of a result; what is made of a longer one is not kept, which bounds the whole to a few MiB."""

_ERROR: Final = Outcome.ERROR

T = TypeVar("T")


class Remembered(Generic[T]):
    """Calls `make` once for a verdict and a revision, as long as there is room. Thread-safe.

    Verdicts are told apart by identity: L1 gives out the same object, and so does the evaluator for the same result,
    while to compare their contents would cost as much as to look into them. `_known` is written by any thread, with one
    statement each time; it holds the verdict itself, so that no other can get its identity.
    """

    def __init__(self, make: Callable[[Verdict, PolicyRevision], T]) -> None:
        self._make = make
        self._known: dict[int, tuple[Verdict, PolicyRevision, T]] = {}

    def get(self, verdict: Verdict, revision: PolicyRevision) -> T:
        """What `make` returns for these."""
        known = self._known.get(id(verdict))
        if known is not None and known[0] is verdict and known[1] == revision:
            return known[2]
        made = self._make(verdict, revision)
        # An error is a verdict of its own each time: kept, it would only take the place of others.
        if verdict.outcome is not _ERROR and len(verdict.result_json) + len(verdict.reason) <= _LONG:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[id(verdict)] = (verdict, revision, made)
        return made
