"""The part of an input that a policy reads: what its cache key is taken over, and all that the policy is given.

A policy never sees a field outside of its projection, so an answer cannot depend on one, whatever the analysis that
found the paths has missed.
"""

from collections.abc import Iterable
from typing import Any, Final

from msgspec.msgpack import Ext

Path = tuple[str, ...]


ABSENT: Final = Ext(0, b"absent")
"""Marks a path that the document does not have. MessagePack tells it from every JSON value, null included."""


class Projection:
    """A fixed, prefix-free set of paths into a document; `[()]` is the whole of it.

    A path ends where it leaves objects: `("user", "id")` of `{"user": "eve"}` is absent, as it is undefined in Rego.
    """

    __slots__ = ("_places", "_steps", "paths", "whole")

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths: tuple[Path, ...] = tuple(sorted(_without_covered(paths)))
        self.whole = self.paths == ((),)
        # Grouped by first key: each object of the first level is looked up once.
        groups: dict[str, list[Path]] = {}
        if not self.whole:
            for path in self.paths:
                groups.setdefault(path[0], []).append(path[1:])
        self._steps = tuple((key, None if rests == [()] else tuple(rests)) for key, rests in groups.items())

        # Paths are sorted, so siblings follow on each other; their parents are one object, told by identity.
        parents: dict[Path, Path] = {}
        self._places = tuple((parents.setdefault(path[:-1], path[:-1]), path[-1]) for path in self.paths if path)

    def values(self, document: dict[str, Any]) -> list[Any]:
        """The value of each path in the order of `paths`, ABSENT where there is none."""
        if self.whole:
            return [document]
        values: list[Any] = []
        for key, rests in self._steps:
            below = document.get(key, ABSENT)
            if rests is None:
                values.append(below)
            elif type(below) is dict:
                for rest in rests:
                    value: Any = below
                    for step in rest:
                        if type(value) is not dict:
                            value = ABSENT
                            break
                        value = value.get(step, ABSENT)
                    values.append(value)
            else:
                values.extend([ABSENT] * len(rests))
        return values

    def document(self, values: list[Any]) -> dict[str, Any]:
        """The smallest document that has these values at these paths."""
        if self.whole:
            whole: dict[str, Any] = values[0]
            return whole
        document: dict[str, Any] = {}
        below = document
        open_parent: Path | None = None
        for (parent, key), value in zip(self._places, values, strict=True):
            if value is ABSENT:
                continue
            if parent is not open_parent:
                open_parent = parent
                below = document
                for step in parent:
                    below = below.setdefault(step, {})
            below[key] = value
        return document


def _without_covered(paths: Iterable[Path]) -> set[Path]:
    """Those paths of which no other one is a prefix."""
    every = set(paths)
    return {path for path in every if not any(path[:length] in every for length in range(len(path)))}
