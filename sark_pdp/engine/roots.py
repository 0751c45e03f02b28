"""Roots: the paths below `data` that a bundle owns, as in `a/b`; the empty one is all of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sark_pdp.projection import Path as JsonPath


def owns(root: str, path: JsonPath) -> bool:
    """Whether `path` is `root` or lies below it."""
    steps = steps_of(root)
    return path[: len(steps)] == steps


def overlap(one: str, other: str) -> bool:
    """Whether there are paths that lie below both."""
    return owns(one, steps_of(other)) or owns(other, steps_of(one))


def steps_of(root: str) -> JsonPath:
    """The keys on the way to `root`. A root has no way to write a key with a slash."""
    return tuple(root.split("/")) if root else ()


def first_foreign(roots: Iterable[str], data: Mapping[str, Any]) -> JsonPath | None:
    """A path of `data` that none of `roots` owns, where there is one."""
    roots = tuple(roots)
    # Keys of what lies between the top and the roots: no deeper than the roots.
    waiting: list[tuple[JsonPath, Any]] = [((key,), value) for key, value in data.items()]
    while waiting:
        path, value = waiting.pop()
        if any(owns(root, path) for root in roots):
            continue
        if not isinstance(value, dict) or not any(steps_of(root)[: len(path)] == path for root in roots):
            return path
        waiting += [((*path, key), below) for key, below in value.items()]
    return None


def first_overlap(owned: Mapping[str, Iterable[str]]) -> tuple[str, str, str] | None:
    """Of roots by the name of their bundle: two bundles and the path of both, where there is one."""
    every = [(root, name) for name, roots in owned.items() for root in roots]
    for index, (root, name) in enumerate(every):
        for other, other_name in every[index + 1 :]:
            if name != other_name and overlap(root, other):
                return name, other_name, max(root, other, key=len)
    return None
