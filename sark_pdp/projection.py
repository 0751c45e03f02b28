"""The part of an input that a policy reads: what its cache key is taken over, and all that the policy is given.

A policy never sees a field outside of its projection, so an answer cannot depend on one, whatever the analysis that
found the paths has missed.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

Path = tuple[str, ...]

_Tree: TypeAlias = dict[str, "_Tree | None"]
"""By key what is below it; None where all of it is read."""


class Projection:
    """A fixed, prefix-free set of paths into a document; `[()]` is the whole of it.

    A path ends where it leaves objects: `("user", "id")` of `{"user": "eve"}` is absent, as it is undefined in Rego.
    """

    __slots__ = ("_tree", "paths", "whole")

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths: tuple[Path, ...] = tuple(sorted(_without_covered(paths)))
        self.whole = self.paths == ((),)
        self._tree: _Tree = {}
        for path in () if self.whole else self.paths:
            below: Any = self._tree
            for step in path[:-1]:
                below = below.setdefault(step, {})
            below[path[-1]] = None

    def project(self, document: dict[str, Any]) -> dict[str, Any]:
        """The smallest document with the same values at these paths; shares them with `document`, in any order."""
        return document if self.whole else _projected(document, self._tree)


def _projected(document: dict[str, Any], tree: _Tree) -> dict[str, Any]:
    projected: dict[str, Any] = {}
    # The intersection takes as long as the shorter of both.
    for key in document.keys() & tree.keys():
        below = tree[key]
        value = document[key]
        if below is None:
            projected[key] = value
        elif type(value) is dict:
            part = _projected(value, below)
            if part:
                projected[key] = part
    return projected


def _without_covered(paths: Iterable[Path]) -> set[Path]:
    """Those paths of which no other one is a prefix."""
    every = set(paths)
    return {path for path in every if not any(path[:length] in every for length in range(len(path)))}
