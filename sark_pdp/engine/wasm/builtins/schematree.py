"""Compiles a JSON schema (drafts 4, 6 and 7, or what they all have) into a tree, as gojsonschema does it.

What is wrong with a schema is said in that library's words, for `json.verify_schema` returns them.
"""

from collections.abc import Callable
from typing import Any, Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gourl import parse_url
from sark_pdp.engine.wasm.builtins.schemanode import (
    HYBRID,
    Node,
    SchemaError,
    array_of,
    read_lengths,
    read_numbers,
    read_required,
    read_types,
    read_values,
    string_of,
    wrong_type,
)
from sark_pdp.engine.wasm.builtins.schemapool import Pool, draft_of
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_MAX_NODES: Final = 5000
_SCHEMAS: Final = (bool, dict)


def compiled(document: Json, compile_expression: Callable[[str], Any]) -> Node:
    """The tree of a schema, which is changed.

    Raises SchemaError, or LimitError for one that is too large or refers to another document.
    """
    try:
        pool = Pool(document)
        draft = draft_of(document)
        return _Compiler(pool, compile_expression).node(document, draft or HYBRID)
    except RecursionError:
        raise LimitError("a JSON schema is nested too deeply for a built-in") from None


class _Compiler:
    """Compiles the parts; each that is referred to once."""

    def __init__(self, pool: Pool, compile_expression: Callable[[str], Any]) -> None:
        self._pool = pool
        self._compile_expression = compile_expression
        self._referred: dict[str, Node] = {}
        self._nodes = 0

    def node(self, schema: Json, draft: int, name: str = "") -> Node:
        """The node of a schema."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise LimitError(f"a JSON schema of more than {_MAX_NODES} parts is too large for a built-in")
        node = Node(draft, name)
        self._fill(node, schema)
        return node

    def _fill(self, node: Node, schema: Json) -> None:
        if node.draft >= 6 and type(schema) is bool:
            node.passes = schema
            return
        if type(schema) is not dict:
            raise SchemaError("Expected: Valid Schema, given: Invalid JSON")
        identity = string_of(schema, "id" if node.draft == 4 or (node.draft == HYBRID and "id" in schema) else "$id")
        parse_url(identity or "")
        self._definitions(node, schema)
        string_of(schema, "title")
        string_of(schema, "description")
        reference = string_of(schema, "$ref")
        if reference is not None:
            node.reference = self._referred.get(reference) or self._refer(reference, node.draft)
            return
        read_types(node, schema)
        self._properties(node, schema)
        self._items(node, schema)
        read_numbers(node, schema)
        read_lengths(node, schema, "Length")
        self._texts(node, schema)
        read_lengths(node, schema, "Properties")
        read_required(node, schema)
        read_lengths(node, schema, "Items")
        self._elements(node, schema)
        read_values(node, schema)
        self._combinations(node, schema)

    def _refer(self, reference: str, draft: int) -> Node:
        # It is known before it is filled: it may refer to itself.
        node = self._referred[reference] = Node(draft)
        document, own_draft = self._pool.found(reference)
        node.draft = own_draft or draft
        if type(document) not in _SCHEMAS:
            raise SchemaError("Valid Schema must be of type object")
        self._fill(node, document)
        return node

    def _definitions(self, node: Node, schema: dict[str, Json]) -> None:
        if "definitions" not in schema:
            return
        definitions = schema["definitions"]
        if type(definitions) is not dict:
            raise wrong_type("Array Of Schemas", "definitions")
        for _, definition in sorted(definitions.items()):
            if type(definition) not in _SCHEMAS:
                raise wrong_type("Array Of Schemas", "definitions")
            self.node(definition, node.draft)

    def _properties(self, node: Node, schema: dict[str, Json]) -> None:
        if "properties" in schema:
            if type(schema["properties"]) is not dict:
                raise SchemaError("Properties must be of type object")
            node.properties = [
                self.node(below, node.draft, name) for name, below in sorted(schema["properties"].items())
            ]
        node.additional_properties = self._or_boolean(node, schema, "additionalProperties")
        self._names(node, schema)
        if "dependencies" in schema:
            if type(schema["dependencies"]) is not dict:
                raise SchemaError("dependencies must be of type object")
            for name, below in sorted(schema["dependencies"].items()):
                self._dependency(node, name, below)

    def _names(self, node: Node, schema: dict[str, Json]) -> None:
        if "patternProperties" in schema:
            if type(schema["patternProperties"]) is not dict:
                raise wrong_type("Valid Schema", "patternProperties")
            for pattern, below in sorted(schema["patternProperties"].items()):
                expression = self._expression(pattern, f"Invalid regex pattern '{pattern}'")
                node.pattern_properties[pattern] = (expression, self.node(below, node.draft))
        if "propertyNames" in schema and node.draft >= 6:
            if type(schema["propertyNames"]) not in _SCHEMAS:
                raise wrong_type("Valid Schema", "patternProperties")
            node.property_names = self.node(schema["propertyNames"], node.draft)

    def _or_boolean(self, node: Node, schema: dict[str, Json], key: str) -> bool | Node | None:
        below = schema.get(key)
        if key not in schema or type(below) is bool:
            return below
        if type(below) is not dict:
            raise wrong_type("boolean/Valid Schema", key)
        return self.node(below, node.draft)

    def _dependency(self, node: Node, name: str, below: Json) -> None:
        if type(below) in _SCHEMAS:
            node.dependencies[name] = self.node(below, node.draft)
        elif type(below) is list and all(type(key) is str for key in below):
            if below:
                node.dependencies[name] = below
        else:
            raise SchemaError("Dependency must be of type Schema Or Array Of Strings")

    def _items(self, node: Node, schema: dict[str, Json]) -> None:
        if "items" in schema:
            items = schema["items"]
            if type(items) is list and all(type(item) in _SCHEMAS for item in items):
                node.items = [self.node(item, node.draft) for item in items]
            elif type(items) in _SCHEMAS:
                node.items = self.node(items, node.draft)
            else:
                raise wrong_type("Valid Schema/Array Of Schemas", "items")
        node.additional_items = self._or_boolean(node, schema, "additionalItems")

    def _texts(self, node: Node, schema: dict[str, Json]) -> None:
        pattern = string_of(schema, "pattern")
        if pattern is not None:
            node.pattern = (pattern, self._expression(pattern, "pattern must be a valid regex"))
        node.format = string_of(schema, "format") or ""

    def _expression(self, pattern: str, problem: str) -> Any:
        try:
            return self._compile_expression(pattern)
        except BuiltinError:
            raise SchemaError(problem) from None

    def _elements(self, node: Node, schema: dict[str, Json]) -> None:
        if "uniqueItems" in schema:
            if type(schema["uniqueItems"]) is not bool:
                raise SchemaError("uniqueItems must be of a boolean")
            node.unique = schema["uniqueItems"]
        if "contains" in schema and node.draft >= 6:
            node.contains = self.node(schema["contains"], node.draft)

    def _combinations(self, node: Node, schema: dict[str, Json]) -> None:
        node.one_of = [self.node(below, node.draft) for below in array_of(schema, "oneOf") or ()]
        node.any_of = [self.node(below, node.draft) for below in array_of(schema, "anyOf") or ()]
        node.all_of = [self.node(below, node.draft) for below in array_of(schema, "allOf") or ()]
        node.negated = self._schema(node, schema, "not")
        if node.draft >= 7:
            node.condition = self._schema(node, schema, "if")
            node.then = self._schema(node, schema, "then")
            node.otherwise = self._schema(node, schema, "else")

    def _schema(self, node: Node, schema: dict[str, Json], key: str) -> Node | None:
        if key not in schema:
            return None
        if type(schema[key]) not in _SCHEMAS:
            raise SchemaError(f"{key} must be of an object")
        return self.node(schema[key], node.draft)
