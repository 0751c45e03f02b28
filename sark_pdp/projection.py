"""The part of an input that a policy reads: what its cache key is taken over, and all that the policy is given.

A policy never sees a field outside of its projection, so an answer cannot depend on one, whatever the analysis that
found the paths has missed.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

Path = tuple[str, ...]

_Document: TypeAlias = dict[str, Any]
_Project: TypeAlias = Callable[[_Document], _Document]

_ABSENT: Final = object()
_FEW: Final = 32


class Projection:
    """A fixed, prefix-free set of paths into a document; `[()]` is the whole of it.

    A path ends where it leaves objects: `("user", "id")` of `{"user": "eve"}` is absent, as it is undefined in Rego.
    """

    __slots__ = ("paths", "project", "whole")

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths: tuple[Path, ...] = tuple(sorted(_without_covered(paths)))
        self.whole = self.paths == ((),)
        # Every decision pays for this call, so it is a closure over prepared steps and not a method on a tree.
        self.project: _Project = _whole if self.whole else _projector(self.paths)
        """The smallest document with the same values at these paths; shares them with the one given, in any order."""


def _whole(document: _Document) -> _Document:
    return document


def _projector(paths: Iterable[Path]) -> _Project:
    by_key: dict[str, list[Path]] = {}
    for path in paths:
        by_key.setdefault(path[0], []).append(path[1:])
    whole = tuple(key for key, below in by_key.items() if below == [()])
    parts = tuple((key, _projector(below)) for key, below in by_key.items() if below != [()])
    steps: dict[str, _Project | None] = {**dict.fromkeys(whole), **dict(parts)}
    few = len(steps) if len(steps) > _FEW else 0

    def project(document: _Document) -> _Document:
        # What has fewer keys is gone through: either may have thousands. To ask for one that is not there costs little.
        if len(document) < few:
            return _of_few(document, steps)
        projected = {}
        for key in whole:
            if key in document:
                projected[key] = document[key]
        for key, below in parts:
            if key in document:
                value = document[key]
                if type(value) is dict:
                    part = below(value)
                    if part:
                        projected[key] = part
        return projected

    return project


def _of_few(document: _Document, steps: dict[str, _Project | None]) -> _Document:
    projected = {}
    for key, value in document.items():
        below = steps.get(key, _ABSENT)
        if below is None:
            projected[key] = value
        elif below is not _ABSENT and type(value) is dict:
            part = below(value)  # type: ignore[operator]  # it is not _ABSENT
            if part:
                projected[key] = part
    return projected


def _without_covered(paths: Iterable[Path]) -> set[Path]:
    """Those paths of which no other one is a prefix."""
    every = set(paths)
    return {path for path in every if not any(path[:length] in every for length in range(len(path)))}
