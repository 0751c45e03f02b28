"""`graph.reachable_paths`."""

from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, Context, array, items
from sark_pdp.engine.wasm.values import LimitError, RegoSet, SortKey, sort_key
from sark_pdp.model import Json

_MAX_STEPS: Final = 20_000
"""Vertices of all paths together: their number can double with each further vertex."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"graph.reachable_paths": _reachable_paths}


def _reachable_paths(_: Context, graph: Json, initial: Json) -> RegoSet:
    paths = _Paths({sort_key(vertex): edges for vertex, edges in items(graph)})
    for vertex in initial if type(initial) is RegoSet else array(initial):
        paths.begin(vertex)
    return RegoSet(paths.found)


class _Paths:
    """The paths found so far."""

    def __init__(self, graph: dict[SortKey, Json]) -> None:
        self.found: list[list[Json]] = []
        self._graph = graph
        self._steps = 0

    def begin(self, vertex: Json) -> None:
        """Finds all paths from the vertex on, if there is one of this name."""
        key = sort_key(vertex)
        if key in self._graph:
            neighbours = _vertices(self._graph[key])
            for neighbour in neighbours:
                self._go_on([vertex], frozenset({key}), neighbour)
            if not neighbours:
                self._add([vertex])

    def _go_on(self, path: list[Json], reached: frozenset[SortKey], vertex: Json) -> None:
        # Each step is a copy of a path, and may be one of Python's stack.
        if len(path) > 400:
            raise LimitError("graph.reachable_paths: a path of more than 400 vertices")
        key = sort_key(vertex)
        if key not in self._graph:
            self._add(path)
            return
        path, reached = [*path, vertex], reached | {key}
        neighbours = _vertices(self._graph[key])
        if not neighbours:
            self._add(path)
        for neighbour in neighbours:
            if sort_key(neighbour) in reached:
                self._add(path)
            else:
                self._go_on(path, reached, neighbour)

    def _add(self, path: list[Json]) -> None:
        self._steps += len(path)
        if self._steps > _MAX_STEPS:
            raise LimitError(f"graph.reachable_paths: paths of more than {_MAX_STEPS} vertices together")
        self.found.append(path)


def _vertices(edges: Json) -> list[Json]:
    return list(edges) if type(edges) in (list, RegoSet) else []
