"""What is taken out of an event before it is written anywhere: secrets, and what `audit.mask` names.

A path is a JSON pointer (RFC 6901) into the event, as OPA's decision log has it: `/input/parameters/query`, where `*`
is any one level and `**` any number of them; or a column, as `/user_email`.
"""

import hmac
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sark_pdp.audit.harmless import harmless
from sark_pdp.audit.sensitive import ERASED, KEPT, Secrets
from sark_pdp.model import Document, Json

_INPUT: Final = "input"
Operation = Literal["remove", "hash", "truncate"]

_ODD: Final = (RecursionError, TypeError, AttributeError)
"""What a document raises that is nested too deeply, or whose fields have names that are no texts."""
_MOST_LISTED: Final = 50
_LONGEST_SEGMENT: Final = 64
_HASH_BYTES: Final = 16
_STRENGTH: Final = {"remove": 0, "hash": 1, "truncate": 2}


class Rule(Struct, frozen=True):
    """What becomes of one place of every event."""

    path: tuple[str, ...]
    """Segments of a pointer; the first is `input`, a column, `reason` (of all that policies gave) or `peer`."""
    operation: Operation
    length: int
    """Characters that `truncate` leaves."""


class Changes(Struct):
    """Where an event was masked, as pointers; at most 50 each, with a word about the rest."""

    erased: list[str] = []
    """What is gone."""
    masked: list[str] = []
    """What was hashed, truncated, or replaced in part."""


_State = tuple[Rule, int]
"""A rule and how many of its segments were matched on the way here."""


class Mask:
    """Masks the events of one source. For one thread."""

    def __init__(self, rules: Sequence[Rule] = (), key: bytes = b"") -> None:
        """`key` is that of the hashes."""
        self._secrets = Secrets()
        self._columns = {rule.path[0]: rule for rule in rules if rule.path[0] != _INPUT}
        inside = [(rule, 1) for rule in rules if rule.path[0] == _INPUT]
        self._states = _closed(sorted(inside, key=lambda state: _STRENGTH[state[0].operation]))
        self._key = key
        self.of_documents = bool(self._states)
        """Whether what is taken from a document must be taken from its `document` instead."""
        self.of_columns = bool(self._columns)

    def document(self, document: Document) -> Document:
        """A document without what the rules mask, for the columns that are made from it."""
        try:
            return self._object(document, self._states, "", Changes([], []), secrets=False)
        except _ODD:
            return self._object(harmless(document), self._states, "", Changes([], []), secrets=False)

    def spares(self, document: Document) -> bool:
        """True where `input` would change nothing."""
        try:
            return not self._states and self._secrets.none_in(document)
        except _ODD:
            return False

    def input(self, document: Document, changes: Changes, at: str = "/input") -> Document:
        """What the policy saw, without secrets and what the rules mask."""
        try:
            return self._object(document, self._states, at, changes, secrets=True)
        except _ODD:
            return self._object(harmless(document), self._states, at, changes, secrets=True)

    def below(self, field: str, value: Json, changes: Changes, at: str) -> Json:
        """The same of a value that is the field of an input, told of as being at `at`."""
        changed = self.input({field: value}, found := Changes([], []), "")
        start = len(_pointer("", field))
        _list(changes.erased, [at + place[start:] for place in found.erased])
        _list(changes.masked, [at + place[start:] for place in found.masked])
        return changed.get(field)

    def column(self, name: str, value: str | None) -> str | None:
        """A column as it may be written."""
        rule = self._columns.get(name)
        if rule is None or value is None:
            return value
        text = self._replaced(rule, value)
        return None if text is ERASED else str(text)

    def lifecycle(self, details: Mapping[str, Json]) -> dict[str, Json]:
        """What is told of the process itself: columns that the rules mask, and the names of a peer, are here too."""
        made = dict(details)
        for name, value in details.items():
            if type(value) is str:
                made[name] = self.column(name, value)
        names = details.get("names")
        if type(names) is list and "peer" in self._columns:
            made["names"] = [self.column("peer", str(name)) for name in names]
        return made

    def _object(
        self, fields: Document, states: Sequence[_State], at: str, changes: Changes, *, secrets: bool
    ) -> Document:
        made: Document = {}
        for name, value in fields.items():
            place = _pointer(at, name)
            rule, below = _step(states, name)
            given, replaced = value, KEPT
            if rule is not None:
                given = self._left(rule, value, below, place, changes, secrets=secrets)
                replaced = self._replaced(rule, given)
            elif secrets:
                replaced = self._secrets.replacement(name, fields)
            if replaced is ERASED:
                _list(changes.erased, [place])
            elif replaced is KEPT:
                made[name] = self._value(value, below, place, changes, secrets=secrets)
            else:
                if replaced is not given:
                    _list(changes.masked, [place])
                made[name] = replaced
        return made

    def _value(self, value: Json, states: Sequence[_State], at: str, changes: Changes, *, secrets: bool) -> Json:
        if type(value) is dict:
            return self._object(value, states, at, changes, secrets=secrets)
        if type(value) is not list:
            return value
        made = []
        for index, element in enumerate(value):
            place = f"{at}/{index}"
            rule, below = _step(states, str(index))
            if rule is None:
                made.append(self._value(element, below, place, changes, secrets=secrets))
                continue
            given = self._left(rule, element, below, place, changes, secrets=secrets)
            replaced = self._replaced(rule, given)
            if replaced is not given:
                _list(changes.erased if replaced is ERASED else changes.masked, [place])
            # The others keep their places.
            made.append(None if replaced is ERASED else replaced)
        return made

    def _left(
        self, rule: Rule, value: Json, states: Sequence[_State], at: str, changes: Changes, *, secrets: bool
    ) -> Json:
        """What a rule is for: of what it leaves a part, the part is masked like all else."""
        if rule.operation != "truncate":
            return value
        return self._value(value, states, at, changes, secrets=secrets)

    def _replaced(self, rule: Rule, value: Json) -> Json:
        if rule.operation == "remove":
            return ERASED
        text = value if type(value) is str else _json(value)
        if rule.operation == "hash":
            digest = hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256")
            return f"hmac-sha256:{digest[:_HASH_BYTES].hex()}"
        return value if len(text) <= rule.length else f"{text[: rule.length]}…"


def _step(states: Sequence[_State], name: str) -> tuple[Rule | None, Sequence[_State]]:
    """The strongest rule for the field of this name, and those that may hold below it."""
    if not states:
        return None, ()
    strongest: Rule | None = None
    onward: list[_State] = []
    for rule, matched in states:
        segment = rule.path[matched]
        if segment not in {"*", "**", name}:
            continue
        if matched + 1 < len(rule.path):
            onward.append((rule, matched if segment == "**" else matched + 1))
        elif strongest is None:
            strongest = rule
    return strongest, _closed(onward)


def _closed(states: Sequence[_State]) -> list[_State]:
    """With those states that are reached because `**` may stand for no level at all."""
    closed = []
    for rule, first in states:
        last = first
        while rule.path[last] == "**" and last + 1 < len(rule.path):
            last += 1
        closed += [(rule, matched) for matched in range(first, last + 1)]
    return closed


def _json(value: Json) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.json.encode(harmless(value)).decode()


def _pointer(at: str, name: str) -> str:
    short = name if len(name) <= _LONGEST_SEGMENT else f"{name[:_LONGEST_SEGMENT]}…"
    return f"{at}/{short.replace('~', '~0').replace('/', '~1')}"


def _list(places: list[str], more: list[str]) -> None:
    for place in more:
        if len(places) < _MOST_LISTED:
            places.append(place)
        elif len(places) == _MOST_LISTED:
            places.append("(and more)")
