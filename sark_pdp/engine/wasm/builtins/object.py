"""`object.subset`."""

from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, items
from sark_pdp.engine.wasm.values import LimitError, RegoObject, RegoSet, SortKey, sort_key
from sark_pdp.model import Json

_MAX_COMPARISONS: Final = 1_000_000
"""Elements of one array times those of the other."""

_OBJECTS: Final = (dict, RegoObject)


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"object.subset": _subset}


def _subset(_: Context, larger: Json, smaller: Json) -> bool:
    kinds = (type(larger), type(smaller))
    if kinds == (list, RegoSet):
        # Go leaves the search when it meets the last element, which an empty set does not have.
        keys = {sort_key(element) for element in larger}
        return bool(larger) and all(sort_key(element) in keys for element in smaller)
    if kinds in ((list, list), (RegoSet, RegoSet)) or (kinds[0] in _OBJECTS and kinds[1] in _OBJECTS):
        return _holds(larger, smaller)
    raise BuiltinError("object.subset: both must be objects, arrays or sets, or an array and a set")


def _holds(larger: Json, smaller: Json) -> bool:
    """Objects key by key and through their values, sets by element, an array as a run of another one."""
    kinds = (type(larger), type(smaller))
    if kinds[0] in _OBJECTS and kinds[1] in _OBJECTS:
        values = {sort_key(key): value for key, value in items(larger)}
        return all((found := sort_key(key)) in values and _holds(values[found], value) for key, value in items(smaller))
    if kinds == (RegoSet, RegoSet):
        keys = {sort_key(element) for element in larger}
        return all(sort_key(element) in keys for element in smaller)
    if kinds == (list, list):
        return _has_run([sort_key(element) for element in larger], [sort_key(element) for element in smaller])
    return sort_key(larger) == sort_key(smaller)


def _has_run(keys: list[SortKey], run: list[SortKey]) -> bool:
    if len(keys) * len(run) > _MAX_COMPARISONS:
        raise LimitError(f"object.subset: more than {_MAX_COMPARISONS} comparisons of elements")
    return any(keys[at : at + len(run)] == run for at in range(len(keys) - len(run) + 1))
