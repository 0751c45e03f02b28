"""Answers that are given again without asking, for as long as the decision point allows. Off unless it is asked for.

What is reused escapes invalidation and audit: nobody hears that it was given again.
"""

import threading
import time
from collections import OrderedDict
from copy import deepcopy

from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.client.answers import Answer
from sark_pdp.client.messages import Check
from sark_pdp.model import Outcome, Seconds

_LONG = 16 * 1024
"""Bytes of a question; the answer to a longer one is not kept."""


class _Kept(Struct, frozen=True):
    answer: Answer
    expires: float
    """On `time.monotonic()`."""


class Reuse:
    """At most `capacity` answers; the one that was used least recently goes first. Thread-safe: `_lock` guards `_kept`.

    The key is the whole question as it is sent: document, policy and request id. One that sets `max_age` is always
    asked, since what is kept here says nothing of how old it was when it came.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def get(self, check: Check) -> Answer | None:
        """A copy of its own, `reused`, with the rest of its lifetime."""
        if not self._capacity or check.question.max_age is not None:
            return None
        with self._lock:
            kept = self._kept.get(check.message)
            if kept is None:
                return None
            left = kept.expires - time.monotonic()
            if left <= 0:
                del self._kept[check.message]
                return None
            self._kept.move_to_end(check.message)
        return _copy(kept.answer, reused=True, cache_ttl=Seconds(left))

    def put(self, check: Check, answer: Answer, asked: float) -> None:
        """Keeps a decision; `asked`, on `time.monotonic()`, is when the question set out: its lifetime began later."""
        lifetime = answer.cache_ttl
        if not self._capacity or check.question.max_age is not None or len(check.message) > _LONG or lifetime <= 0:
            return
        if answer.error is not None or answer.outcome is Outcome.ERROR:
            return
        kept = _Kept(_copy(answer), asked + lifetime)
        with self._lock:
            self._kept[check.message] = kept
            self._kept.move_to_end(check.message)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)


def _copy(answer: Answer, **changes: object) -> Answer:
    """With dicts of its own: a caller may change those it got."""
    return replace(
        answer, result=deepcopy(answer.result), filtered_parameters=deepcopy(answer.filtered_parameters), **changes
    )
