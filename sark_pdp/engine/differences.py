"""What distinguishes two bundles for whoever asks them: entrypoints, what they read, and data."""

from collections.abc import Iterator
from typing import Any

from sark_pdp.engine.bundle import Bundle
from sark_pdp.projection import Path as JsonPath

_MOST_PATHS = 50
"""Data that differs at more paths is counted, not listed."""


def differences(one: Bundle, other: Bundle) -> list[str]:
    """A line for each; empty where both decide the same."""
    found: list[str] = []
    if set(one.roots) != set(other.roots):
        found.append(f"roots: {_listed(one.roots)} become {_listed(other.roots)}")
    found += _entrypoints(one, other)
    paths = list(_paths(one.data, other.data, ()))
    found += [f"data {kind}: {'/'.join(path)}" for kind, path in paths[:_MOST_PATHS]]
    if len(paths) > _MOST_PATHS:
        found.append(f"data: {len(paths) - _MOST_PATHS} more paths differ")
    return found


def _entrypoints(one: Bundle, other: Bundle) -> Iterator[str]:
    before, after = _by_entrypoint(one), _by_entrypoint(other)
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"entrypoint removed: {name}"
        elif name not in before:
            yield f"entrypoint added: {name}"
        else:
            for field, past, now in zip(("compiled code", "input", "data"), before[name], after[name], strict=True):
                if past == now:
                    continue
                yield (
                    f"entrypoint {name}: its compiled code differs"
                    if field == "compiled code"
                    else f"entrypoint {name} reads other {field}: {_read(past)} becomes {_read(now)}"
                )


def _by_entrypoint(bundle: Bundle) -> dict[str, tuple[Any, ...]]:
    return {
        stated.name: (module.digest, tuple(sorted(stated.reads_input)), tuple(sorted(stated.reads_data)))
        for module in bundle.modules
        for stated in module.entrypoints
    }


def _paths(one: Any, other: Any, path: JsonPath) -> Iterator[tuple[str, JsonPath]]:
    """What happened to which path; objects are looked into, all else is compared whole."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        if type(one) is not type(other) or one != other:
            yield "changed", path
        return
    for key in sorted(one.keys() | other.keys()):
        below = (*path, key)
        if key not in other:
            yield "removed", below
        elif key not in one:
            yield "added", below
        else:
            yield from _paths(one[key], other[key], below)


def _listed(roots: tuple[str, ...]) -> str:
    return ", ".join(root or "all data" for root in sorted(roots)) or "none"


def _read(paths: tuple[JsonPath, ...]) -> str:
    if () in paths:
        return "everything"
    return ", ".join(".".join(path) for path in paths) or "nothing"
