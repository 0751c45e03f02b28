"""`cast_*` and `trace`: what old policies call, and what only tells a tracer something."""

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, string, type_name
from sark_pdp.engine.wasm.values import RegoSet
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "cast_array": _cast_array,
        "cast_set": _cast_set,
        **{f"cast_{kind}": _cast(kind) for kind in ("boolean", "null", "object", "string")},
        "trace": _trace,
    }


def _cast(kind: str) -> Builtin:
    def call(_: Context, value: Json) -> Json:
        if type_name(value) != kind:
            raise BuiltinError(f"cast_{kind}: a {type_name(value)} is none")
        return value

    return call


def _cast_array(_: Context, value: Json) -> list[Json]:
    return list(value) if type(value) is RegoSet else array(value)


def _cast_set(_: Context, value: Json) -> RegoSet:
    return value if type(value) is RegoSet else RegoSet(array(value))


def _trace(_: Context, note: Json) -> bool:
    string(note)
    return True
