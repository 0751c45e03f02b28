"""The decider that completes documents, so that the cache and the policies below it see what the registry says."""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from uuid_utils import uuid7

from sark_pdp.attributes.completion import completed
from sark_pdp.attributes.names import Named, Names, names_of
from sark_pdp.attributes.remembered import Combination, Found
from sark_pdp.attributes.resolution import Refusal, Resolved, Resolver
from sark_pdp.errors import AttributesError, DeadlineExceededError
from sark_pdp.interfaces import Answered, Decider
from sark_pdp.model import Deadline, Decision, DecisionId, Outcome, Request, Seconds, Tier, Verdict

_DENY: Final = Outcome.DENY
_EVALUATED: Final = Tier.EVALUATED
_STALE: Final = Tier.STALE
_TOO_OLD: Final = (
    "the registry cannot be reached, and the policy wants this answer to be younger than what is known of it"
)


class AttributedDecider:
    """A decorator. A document that names no user, tool or server passes as it is. Thread-safe."""

    def __init__(self, decider: Decider, resolver: Resolver, *, trust_caller: bool) -> None:
        self._next = decider
        self._resolver = resolver
        self._trust_caller = trust_caller

    def decide(self, request: Request) -> Decision:
        """May wait for the registry. Raises AttributesError where it cannot be had what the registry says."""
        names = names_of(request.document)
        if names is None:
            return self._next.decide(request)
        resolved = self._resolve([names], request.deadline, request.max_age)[0]
        if isinstance(resolved, Exception):
            raise resolved
        if isinstance(resolved, Refusal):
            return _refused(request, resolved)
        return _marked(self._next.decide(self._completed(request, resolved)), resolved)

    def decide_nowait(self, request: Request) -> Decision | None:
        """The same answer where memory has all that it takes, else None."""
        names = names_of(request.document)
        if names is None:
            return self._next.decide_nowait(request)
        if type(names) is str:
            return _refused(request, names)
        found = self._resolver.known(names, request.max_age)  # type: ignore[arg-type]  # it is no str
        if found is None:
            return None
        if type(found) is str:
            return _refused(request, found)
        if type(found) is Combination:
            if not (self._trust_caller or request.entrypoint.projection.whole):
                return self._next.decide_nowait(_shortened(request, found))
            found = found.found
        decision = self._next.decide_nowait(self._completed(request, found))  # type: ignore[arg-type]
        return None if decision is None else _marked(decision, found)  # type: ignore[arg-type]

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        """What they need of the registry is read with one query for each of its tables."""
        answers: dict[int, Answered] = {}
        asked: dict[int, Request] = {}
        found: dict[int, Found] = {}
        for index, resolved in self._resolve_many(requests).items():
            if isinstance(resolved, Found):
                found[index] = resolved
                asked[index] = self._completed(requests[index], resolved)
            elif isinstance(resolved, Exception):
                answers[index] = resolved
            elif resolved is None:
                asked[index] = requests[index]
            else:
                answers[index] = _refused(requests[index], resolved)
        for index, answered in zip(asked, self._next.decide_many(list(asked.values())), strict=True):
            answers[index] = answered
            if index in found and isinstance(answered, Decision):
                try:
                    answers[index] = _marked(answered, found[index])
                except AttributesError as error:
                    answers[index] = error
        return [answers[index] for index in range(len(requests))]

    def _resolve_many(self, requests: Sequence[Request]) -> dict[int, Resolved | DeadlineExceededError | None]:
        """By index, in order; None for what passes as it is."""
        together: dict[tuple[Deadline, Seconds | None], dict[int, Named]] = defaultdict(dict)
        for index, request in enumerate(requests):
            together[request.deadline, request.max_age][index] = names_of(request.document)
        resolved: dict[int, Resolved | DeadlineExceededError | None] = {}
        for (deadline, max_age), named in together.items():
            known = [each for each in named.values() if each is not None]
            try:
                found = iter(self._resolve(known, deadline, max_age))
            except DeadlineExceededError as error:
                resolved.update((index, None if each is None else error) for index, each in named.items())
            else:
                resolved.update((index, None if each is None else next(found)) for index, each in named.items())
        return dict(sorted(resolved.items()))

    def _resolve(self, asked: Sequence[Named], deadline: Deadline, max_age: Seconds | None) -> list[Resolved]:
        found = iter(self._resolver.read([each for each in asked if isinstance(each, Names)], deadline, max_age))
        return [each if isinstance(each, str) else next(found) for each in asked]

    def _completed(self, request: Request, found: Found) -> Request:
        # A quarter of the time of `replace`.
        return Request(
            request.entrypoint,
            completed(request.document, found.rows, trust_caller=self._trust_caller),
            request.request_id,
            request.deadline,
            request.max_age,
            request.origin,
            None,
            request.size,
            found.as_of,
            found.stale,
            request.trace,
        )


def _shortened(request: Request, found: Combination) -> Request:
    """Nobody below looks at the document of a request that has its projection."""
    return Request(
        request.entrypoint,
        request.document,
        request.request_id,
        request.deadline,
        request.max_age,
        request.origin,
        found.projected(request.entrypoint.projection, request.document),
        request.size,
        found.found.as_of,
        trace=request.trace,
    )


def _marked(decision: Decision, found: Found) -> Decision:
    """The decision as one on attributes of this age. Raises AttributesError where they are older than it may be."""
    if not found.stale:
        return decision
    age = max(decision.age, Seconds(time.monotonic() - found.as_of))
    verdict = decision.verdict
    if verdict.cache_ttl is not None and age > verdict.cache_ttl:
        raise AttributesError(_TOO_OLD)
    return Decision(decision.id, verdict, _STALE, decision.projected, age)


def _refused(request: Request, reason: Refusal) -> Decision:
    projected = request.projected
    if projected is None:
        projected = request.entrypoint.projection.project(request.document)
    return Decision(DecisionId(str(uuid7())), Verdict(_DENY, reason), _EVALUATED, projected)
