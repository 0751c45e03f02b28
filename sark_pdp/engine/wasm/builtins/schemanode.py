"""A compiled JSON schema, and the keywords that hold no schemas of their own."""

from typing import Any, Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.schemanumbers import canonical, is_number
from sark_pdp.model import Json

HYBRID: Final = 1000
"""Where a schema does not say which draft it is of: newer than all."""
_TYPES: Final = ("array", "boolean", "integer", "number", "null", "object", "string")


class SchemaError(BuiltinError):
    """A schema is none."""


class Node:
    """A schema or a part of one; what it does not say is None, or empty."""

    def __init__(self, draft: int, name: str = "") -> None:
        self.draft = draft
        self.name = name
        """Of the property that it is for."""
        self.passes: bool | None = None
        self.reference: Node | None = None
        self.types: list[str] = []
        self.properties: list[Node] = []
        self.pattern_properties: dict[str, tuple[Any, Node]] = {}
        """The compiled expression and the schema by the expression."""
        self.additional_properties: bool | Node | None = None
        self.property_names: Node | None = None
        self.dependencies: dict[str, list[str] | Node] = {}
        self.items: Node | list[Node] | None = None
        self.additional_items: bool | Node | None = None
        self.contains: Node | None = None
        self.limits: dict[str, Any] = {}
        """`minimum`, `maxLength` and the like, by their names; numbers all."""
        self.unique = False
        self.required: list[str] = []
        self.pattern: tuple[str, Any] | None = None
        self.format = ""
        self.constant: str | None = None
        self.enumeration: list[str] | None = None
        self.all_of: list[Node] = []
        self.any_of: list[Node] = []
        self.one_of: list[Node] = []
        self.negated: Node | None = None
        self.condition: Node | None = None
        self.then: Node | None = None
        self.otherwise: Node | None = None


def wrong_type(expected: str, given: str) -> SchemaError:
    """What is said of a keyword of a wrong type."""
    return SchemaError(f"Invalid type. Expected: {expected}, given: {given}")


def string_of(schema: dict[str, Json], key: str) -> str | None:
    """A keyword that must be a string; None where it is not there."""
    text = schema.get(key)
    if key in schema and type(text) is not str:
        raise wrong_type("string", key)
    return text


def array_of(schema: dict[str, Json], key: str) -> list[Json] | None:
    """A keyword that must be an array; None where it is not there."""
    array = schema.get(key)
    if key in schema and type(array) is not list:
        raise SchemaError(f"{key} must be of an array")
    return array


def read_types(node: Node, schema: dict[str, Json]) -> None:
    """Reads `type`."""
    if "type" not in schema:
        return
    types = schema["type"]
    for name in [types] if type(types) is str else types if type(types) is list else [None]:
        if type(name) is not str:
            raise wrong_type("type", "string/Array Of Strings")
        if name not in _TYPES:
            raise SchemaError(
                f"has a primitive type that is NOT VALID -- given: /{name}/ "
                f"Expected valid values are:[{' '.join(_TYPES)}]"
            )
        if name in node.types:
            raise SchemaError(f"{name} type is duplicated")
        node.types.append(name)


def read_numbers(node: Node, schema: dict[str, Json]) -> None:
    """Reads the limits of numbers."""
    if "multipleOf" in schema:
        if not is_number(schema["multipleOf"]):
            raise wrong_type("Number", "multipleOf")
        if schema["multipleOf"] <= 0:
            raise SchemaError("multipleOf must be strictly greater than 0")
        node.limits["multipleOf"] = schema["multipleOf"]
    for side in ("minimum", "maximum"):
        if side in schema:
            if not is_number(schema[side]):
                raise SchemaError(f"{side} must be of a Number")
            node.limits[side] = schema[side]
        exclusive = f"exclusive{side.title()}"
        if exclusive in schema:
            _exclusive(node, schema[exclusive], exclusive, side)


def _exclusive(node: Node, value: Json, exclusive: str, side: str) -> None:
    """In draft 4 it is a boolean that makes the other limit exclusive, later a limit of its own."""
    if is_number(value) and node.draft != 4:
        node.limits[exclusive] = value
        return
    if type(value) is not bool or node.draft in (6, 7):
        raise wrong_type({4: "boolean", HYBRID: "boolean/number"}.get(node.draft, "number"), exclusive)
    if side not in node.limits:
        raise SchemaError(f"{exclusive} cannot be used without {side}")
    if value:
        node.limits[exclusive] = node.limits.pop(side)


def read_lengths(node: Node, schema: dict[str, Json], what: str) -> None:
    """Reads `min` and `max` of Length, Items or Properties."""
    smallest, largest = f"min{what}", f"max{what}"
    for key in (smallest, largest):
        if key not in schema:
            continue
        value = schema[key]
        if not is_number(value) or type(value) is float:
            raise SchemaError(f"{key} must be of an integer")
        if value < 0:
            raise SchemaError(f"{key} must be greater than or equal to 0")
        node.limits[key] = value
    if what != "Items" and node.limits.get(smallest, 0) > node.limits.get(largest, float("inf")):
        raise SchemaError(f"{smallest} cannot be greater than {largest}")


def read_required(node: Node, schema: dict[str, Json]) -> None:
    """Reads `required`."""
    for name in array_of(schema, "required") or ():
        if type(name) is not str:
            raise wrong_type("string", "required")
        if name in node.required:
            raise SchemaError("required items must be unique")
        node.required.append(name)


def read_values(node: Node, schema: dict[str, Json]) -> None:
    """Reads `const` and `enum`."""
    if "const" in schema and node.draft >= 6:
        node.constant = canonical(schema["const"])
    values = array_of(schema, "enum")
    if values is not None:
        node.enumeration = []
        for value in values:
            text = canonical(value)
            if text in node.enumeration:
                raise SchemaError("enum items must be unique")
            node.enumeration.append(text)
