"""Rego's values where they are more than JSON, and the order and equality that they all have.

A value that plain JSON can hold is a plain Python one: None, bool, int, float, str, list, or dict with str keys.
"""

from collections.abc import Iterable, Iterator
from operator import itemgetter

from sark_pdp.errors import EvaluationError, SarkError
from sark_pdp.model import Json

SortKey = tuple[object, ...]
"""Compares as Rego orders values; equal for values that Rego calls equal; hashable."""


class TermError(SarkError):
    """A value cannot be read or written, because it is not a Rego value."""


class LimitError(EvaluationError):
    """A value or a call is larger than this engine takes, and OPA would take it.

    The evaluation fails, as undefined could switch off a rule that denies.
    """


class Numeral:
    """A number that no float can hold, such as 2e308, as the policy or the data write it."""

    # No Struct, which msgspec would write as an object.
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Numeral({self.text!r})"


class RegoSet:
    """An immutable set, iterated in Rego's order; 1 and 1.0 are one element, 1 and true are two."""

    __slots__ = ("elements", "key")

    def __init__(self, elements: Iterable[Json] = ()) -> None:
        unique: dict[SortKey, Json] = {}
        for element in elements:
            unique.setdefault(sort_key(element), element)
        keyed = sorted(unique.items(), key=itemgetter(0))
        self.elements: tuple[Json, ...] = tuple(element for _, element in keyed)
        self.key: SortKey = (7, tuple(key for key, _ in keyed))

    def __iter__(self) -> Iterator[Json]:
        return iter(self.elements)

    def __len__(self) -> int:
        return len(self.elements)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegoSet) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"RegoSet({list(self.elements)!r})"


class RegoObject:
    """An immutable object with at least one key that is no string; `items` are in Rego's order."""

    __slots__ = ("items", "key")

    def __init__(self, items: Iterable[tuple[Json, Json]]) -> None:
        # The last one of equal keys counts, as in JSON.
        last = {sort_key(key): (key, value) for key, value in items}
        keyed = sorted(last.items(), key=itemgetter(0))
        self.items: tuple[tuple[Json, Json], ...] = tuple(item for _, item in keyed)
        self.key: SortKey = (6, tuple(part for key, item in keyed for part in (key, sort_key(item[1]))))

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegoObject) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"RegoObject({self.items!r})"


def sort_key(value: Json) -> SortKey:
    """Orders values as Rego does: null, booleans, numbers, strings, arrays, objects, sets."""
    kind = type(value)
    if kind is str:
        return (4, value)
    if kind is int or kind is float:
        return (3, value)
    if kind is bool:
        return (2, value)
    if value is None:
        return (1,)
    if kind is list:
        return (5, tuple([sort_key(element) for element in value]))
    if kind is dict:
        return (6, tuple([part for key in sorted(value) for part in ((4, key), sort_key(value[key]))]))
    if kind is RegoSet or kind is RegoObject:
        key: SortKey = value.key
        return key
    if kind is Numeral:
        raise LimitError("a number is too large to be compared by a built-in")
    raise TermError(f"a {kind.__name__} is not a Rego value")


def equal(left: Json, right: Json) -> bool:
    """Rego's equality: 1 equals 1.0, and nothing equals a value of another type."""
    return sort_key(left) == sort_key(right)
