"""`json.match_schema` and `json.verify_schema`. No schema is ever fetched: one that refers elsewhere fails."""

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context
from sark_pdp.engine.wasm.builtins.expressions import Expressions
from sark_pdp.engine.wasm.builtins.gojson import loads, marshal
from sark_pdp.engine.wasm.builtins.schemacheck import Checker
from sark_pdp.engine.wasm.builtins.schemanode import Node
from sark_pdp.engine.wasm.builtins.schematree import compiled
from sark_pdp.engine.wasm.values import LimitError, RegoObject
from sark_pdp.model import Json

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST: Final = 256 * 1024
"""Bytes of a schema."""
_REMEMBERED: Final = 32


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    calls = _Schemas()
    return {"json.match_schema": calls.match, "json.verify_schema": calls.verify}


class _Schemas:
    """Remembers compiled schemas and their expressions."""

    def __init__(self) -> None:
        self._expressions = Expressions()
        self._remembered: Callable[[str], Node] = lru_cache(_REMEMBERED)(self._compiled)

    def match(self, _: Context, document: Json, schema: Json) -> list[Json]:
        """`[valid, errors]`."""
        value = loads(_text(document).encode())
        errors = Checker(self._expressions.is_expression).errors(self._remembered(_schema_text(schema)), value)
        told: list[Json] = [
            {
                "error": f"{error.field}: {error.description}",
                "type": error.kind,
                "field": error.field,
                "desc": error.description,
            }
            for error in errors
        ]
        return [not errors, told]

    def verify(self, _: Context, schema: Json) -> list[Json]:
        """`[true, null]`, or `[false, what is wrong with it]`."""
        try:
            self._remembered(_schema_text(schema))
        except BuiltinError as problem:
            return [False, f"jsonschema: {problem}"]
        return [True, None]

    def _compiled(self, text: str) -> Node:
        return compiled(loads(text.encode()), self._expressions.compile)


def _schema_text(schema: Json) -> str:
    text = _text(schema)
    if len(text) > _LONGEST:
        raise LimitError(
            f"a JSON schema of {len(text)} characters is too large for a built-in; the limit is {_LONGEST}"
        )
    return text


def _text(value: Json) -> str:
    """JSON, as which strings are taken as they are."""
    if type(value) is str:
        try:
            loads(value.encode())
        except BuiltinError:
            raise BuiltinError("invalid JSON string") from None
        return value
    if type(value) in (dict, list, RegoObject):
        return marshal(value)
    raise BuiltinError("wrong type, expected string or object")
