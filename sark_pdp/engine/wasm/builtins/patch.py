"""JSON Patch (RFC 6902) on Rego values: sets are walked by their elements, and keys may be any value."""

import re
from collections.abc import Callable
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError, items, string, type_name, within
from sark_pdp.engine.wasm.values import LimitError, RegoObject, RegoSet, equal, sort_key
from sark_pdp.model import Json

MAX_COPIED: Final = 100_000
"""Values that the `copy` operations of one patch may make: each can double the document."""

_MAX_REBUILT: Final = 50_000
"""Elements: each operation on a set makes a new one."""

_INDEX: Final = re.compile(r"[+-]?[0-9]{1,18}(?:\.0*)?")

Path = list[Json]
Change = Callable[[Json, Json], Json]
"""Given a collection and a key, returns the collection as it is then; lists and dicts are changed in place."""


def patched(document: Json, operations: list[Json]) -> Json:
    """The document after all operations; the operands are used up. Raises BuiltinError where one does not apply."""
    elements = _set_elements(document) + _set_elements(operations)
    within(elements * len(operations), _MAX_REBUILT, "json.patch: elements of sets, for each operation")
    patch = _Patch(document)
    for operation in operations:
        patch.apply({key: value for key, value in items(operation) if type(key) is str})
    if patch.document is _REMOVED:
        raise BuiltinError("json.patch: the whole document was removed")
    return patch.document


def _set_elements(value: Json) -> int:
    """How many elements, or keys, the collections in it have that plain JSON cannot hold."""
    kind = type(value)
    if kind is list:
        return sum([_set_elements(element) for element in value if type(element) in _COLLECTIONS])
    if kind is dict:
        return sum([_set_elements(below) for below in value.values() if type(below) in _COLLECTIONS])
    if kind is RegoSet:
        return len(value) + sum([_set_elements(element) for element in value if type(element) in _COLLECTIONS])
    if kind is RegoObject:
        return len(value) + sum([_set_elements(key) + _set_elements(below) for key, below in value.items])
    return 0


class _Patch:
    """The document so far."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._copied = 0

    def apply(self, operation: dict[str, Json]) -> None:
        path, verb = _path(_attribute(operation, "path")), string(_attribute(operation, "op"))
        if verb == "add":
            self._add(path, _attribute(operation, "value"))
        elif verb == "remove":
            self._remove(path)
        elif verb == "replace":
            self._remove(path)
            self._add(path, _attribute(operation, "value"))
        elif verb == "move":
            source = _path(_attribute(operation, "from"))
            value = _found(self.document, source)
            self._remove(source)
            self._add(path, value)
        elif verb == "copy":
            self._add(path, self._copy(_found(self.document, _path(_attribute(operation, "from")))))
        elif verb == "test":
            if not equal(_found(self.document, path), _attribute(operation, "value")):
                raise BuiltinError("json.patch: a tested value is another one")
        else:
            raise BuiltinError(f"json.patch: not an operation: {verb[:40]!r}")

    def _add(self, path: Path, value: Json) -> None:
        def add(collection: Json, key: Json) -> Json:
            return _inserted(collection, key, value)

        self.document = _changed(self.document, path, add) if path else value

    def _remove(self, path: Path) -> None:
        self.document = _changed(self.document, path, _without) if path else _REMOVED

    def _copy(self, value: Json) -> Json:
        self._copied += 1
        if self._copied > MAX_COPIED:
            raise LimitError(f"json.patch: copies of more than {MAX_COPIED} values")
        kind = type(value)
        if kind is list:
            return [self._copy(element) for element in value]
        if kind is dict:
            return {key: self._copy(below) for key, below in value.items()}
        if kind is RegoSet:
            return RegoSet([self._copy(element) for element in value])
        if kind is RegoObject:
            return RegoObject([(self._copy(key), self._copy(below)) for key, below in value.items])
        return value


_COLLECTIONS: Final = frozenset({list, dict, RegoSet, RegoObject})

_REMOVED: Final = object()
"""A document of which the root was removed."""


def _attribute(operation: dict[str, Json], name: str) -> Json:
    if name not in operation:
        raise BuiltinError(f"json.patch: an operation has no {name!r}")
    return operation[name]


def _path(operand: Json) -> Path:
    if type(operand) is list:
        return list(operand)
    text = string(operand)
    if not text:
        return []
    return [part.replace("~1", "/").replace("~0", "~") for part in text.lstrip("/").split("/")]


def _index(length: int, key: Json, *, past_end: bool = False) -> int:
    """Where in an array a key points to; `-` is behind the last element."""
    index = _integer(length, key)
    if not 0 <= index < length + past_end:
        raise BuiltinError("json.patch: an index is out of bounds")
    return index


def _integer(length: int, key: Json) -> int:
    if type(key) is str:
        if key == "-":
            return length
        if _INDEX.fullmatch(key) and (key == "0" or key[0] != "0"):
            return int(key.partition(".")[0])
    elif type(key) is int:
        return key
    elif type(key) is float and key.is_integer():
        return int(key)
    raise BuiltinError(f"json.patch: a {type_name(key)} is no index of an array")


def _changed(value: Json, path: Path, change: Change) -> Json:
    """The value with the change made where the path leads to."""
    if len(path) == 1:
        return change(value, path[0])
    below = _changed(_element(value, path[0]), path[1:], change)
    return _replaced(value, path[0], below)


def _found(value: Json, path: Path) -> Json:
    for key in path:
        value = _element(value, key)
    return value


def _element(value: Json, key: Json) -> Json:
    kind = type(value)
    if kind is list:
        return value[_index(len(value), key)]
    if kind is dict and type(key) is str and key in value:
        return value[key]
    if kind is RegoObject or kind is RegoSet:
        wanted = sort_key(key)
        pairs = value.items if kind is RegoObject else [(element, element) for element in value]
        for own, below in pairs:
            if sort_key(own) == wanted:
                return below
    raise BuiltinError("json.patch: a path leads nowhere")


def _replaced(value: Json, key: Json, below: Json) -> Json:
    """With another value for a key that is there."""
    kind = type(value)
    if kind is list:
        value[_index(len(value), key)] = below
        return value
    if kind is RegoSet:
        wanted = sort_key(key)
        return RegoSet([below if sort_key(element) == wanted else element for element in value])
    return _inserted(value, key, below)


def _inserted(value: Json, key: Json, below: Json) -> Json:
    kind = type(value)
    if kind is list:
        value.insert(_index(len(value), key, past_end=True), below)
        return value
    if kind is dict and type(key) is str:
        value[key] = below
        return value
    if kind is dict or kind is RegoObject:
        return RegoObject([*items(value), (key, below)])
    if kind is RegoSet and equal(key, below):
        return RegoSet([*value, below])
    raise BuiltinError(f"json.patch: nothing can be added to a {type_name(value)} here")


def _without(value: Json, key: Json) -> Json:
    _element(value, key)
    kind = type(value)
    if kind is list:
        del value[_index(len(value), key)]
        return value
    if kind is dict:
        del value[key]
        return value
    gone = sort_key(key)
    if kind is RegoSet:
        return RegoSet([element for element in value if sort_key(element) != gone])
    rest = [(own, below) for own, below in value.items if sort_key(own) != gone]
    return RegoObject(rest) if any(type(own) is not str for own, _ in rest) else dict(rest)
