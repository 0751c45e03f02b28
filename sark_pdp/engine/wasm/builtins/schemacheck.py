"""Checks a document against a compiled JSON schema, and says what is wrong in the words of gojsonschema.

Where several schemas are alternatives, the errors of the one that came closest are told: each check scores.
"""

from collections.abc import Callable
from typing import Final

from sark_pdp.engine.wasm.builtins.schemaformats import is_format
from sark_pdp.engine.wasm.builtins.schemanode import Node
from sark_pdp.engine.wasm.builtins.schemanumbers import canonical, is_number, is_whole
from sark_pdp.engine.wasm.builtins.schemavalues import ROOT, Error, Result, check_number, check_text, check_unique
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

MAX_STEPS: Final = 20_000
"""Pairs of a value and a schema."""


class Checker:
    """Counts the steps of one check."""

    def __init__(self, is_expression: Callable[[str], bool]) -> None:
        self._is_expression = is_expression
        self._steps = 0

    def errors(self, schema: Node, document: Json) -> list[Error]:
        """What is wrong with a document. Raises LimitError."""
        try:
            return self._part(schema, document, ROOT).errors
        except RecursionError:
            raise LimitError("a document or its JSON schema is nested too deeply for a built-in") from None

    def _part(self, node: Node, value: Json, path: str) -> Result:
        result = Result()
        self._check(node, value, result, path)
        return result

    def _check(self, node: Node, value: Json, result: Result, path: str) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise LimitError(f"checking a JSON schema takes more than {MAX_STEPS} steps")
        if node.reference is not None:
            self._check(node.reference, value, result, path)
        elif node.passes is None:
            given = _type_name(value)
            if node.types and given not in node.types and not (given == "integer" and "number" in node.types):
                expected = node.types[0] if len(node.types) == 1 else f"[{','.join(node.types)}]"
                result.add("invalid_type", path, f"Invalid type. Expected: {expected}, given: {given}")
            else:
                self._check_content(node, value, result, path)
                result.score += 1
        elif not node.passes:
            result.add("false", path, "False always fails validation")

    def _check_content(self, node: Node, value: Json, result: Result, path: str) -> None:
        """Of a value that is of the right type."""
        self._combined(node, value, result, path)
        if type(value) is list:
            self._array(node, value, result, path)
        elif type(value) is dict:
            self._object(node, value, result, path)
        elif is_number(value):
            check_number(node, value, result, path)
        self._any(node, value, result, path)
        if type(value) is dict:
            for schema in node.properties:
                if schema.name in value:
                    self._check(schema, value[schema.name], result, f"{path}.{schema.name}")
        elif type(value) is str:
            check_text(node, value, result, path)

    def _combined(self, node: Node, value: Json, result: Result, path: str) -> None:
        """What other schemas say of the value."""
        if node.any_of:
            self._one_at_least(node.any_of, value, result, path)
        if node.one_of:
            self._one_and_only_one(node.one_of, value, result, path)
        if node.all_of:
            parts = [self._part(schema, value, path) for schema in node.all_of]
            for part in parts:
                result.merge(part)
            if any(part.errors for part in parts):
                result.add("number_all_of", path, "Must validate all the schemas (allOf)")
        if node.negated is not None and not self._part(node.negated, value, path).errors:
            result.add("number_not", path, "Must not validate the schema (not)")
        if type(value) is dict:
            for key in sorted(node.dependencies.keys() & value.keys()):
                self._dependency(node.dependencies[key], value, result, path)
        if node.condition is not None:
            self._condition(node, node.condition, value, result, path)
        result.score += 1

    def _one_at_least(self, schemas: list[Node], value: Json, result: Result, path: str) -> None:
        best: Result | None = None
        for schema in schemas:
            part = self._part(schema, value, path)
            if not part.errors:
                return
            best = _closer(best, part)
        result.add("number_any_of", path, "Must validate at least one schema (anyOf)")
        if best is not None:
            result.merge(best)

    def _one_and_only_one(self, schemas: list[Node], value: Json, result: Result, path: str) -> None:
        best: Result | None = None
        valid = 0
        for schema in schemas:
            part = self._part(schema, value, path)
            if not part.errors:
                valid += 1
            elif not valid:
                best = _closer(best, part)
        if valid != 1:
            result.add("number_one_of", path, "Must validate one and only one schema (oneOf)")
            if not valid and best is not None:
                result.merge(best)

    def _dependency(self, dependency: list[str] | Node, value: dict[str, Json], result: Result, path: str) -> None:
        if isinstance(dependency, Node):
            self._check(dependency, value, result, path)
            return
        for name in dependency:
            if name not in value:
                result.add("missing_dependency", path, f"Has a dependency on {name}")

    def _condition(self, node: Node, condition: Node, value: Json, result: Result, path: str) -> None:
        holds = not self._part(condition, value, path).errors
        schema, kind, told = (
            (node.then, "condition_then", 'Must validate "then" as "if" was valid')
            if holds
            else (node.otherwise, "condition_else", 'Must validate "else" as "if" was not valid')
        )
        if schema is None:
            return
        part = self._part(schema, value, path)
        if part.errors:
            result.add(kind, path, told)
            result.merge(part)

    def _any(self, node: Node, value: Json, result: Result, path: str) -> None:
        """What may be said of values of all types."""
        field = path.removeprefix(f"{ROOT}.")
        if node.constant is not None and canonical(value) != node.constant:
            result.add("const", path, f"{field} does not match: {node.constant}")
        if node.enumeration is not None and canonical(value) not in node.enumeration:
            allowed = ", ".join(node.enumeration)
            result.add("enum", path, f"{field} must be one of the following: {allowed}")
        if node.format and type(value) is str and not is_format(node.format, value, self._is_expression):
            result.add("format", path, f"Does not match format '{node.format}'")
        result.score += 1

    def _array(self, node: Node, value: list[Json], result: Result, path: str) -> None:
        if isinstance(node.items, Node):
            for at, element in enumerate(value):
                result.merge(self._part(node.items, element, f"{path}.{at}"))
        elif node.items:
            for at, (schema, element) in enumerate(zip(node.items, value, strict=False)):
                result.merge(self._part(schema, element, f"{path}.{at}"))
            if len(value) > len(node.items):
                self._additional_items(node, len(node.items), value, result, path)
        limits, length = node.limits, len(value)
        if length < limits.get("minItems", 0):
            result.add("array_min_items", path, f"Array must have at least {limits['minItems']} items")
        if length > limits.get("maxItems", length):
            result.add("array_max_items", path, f"Array must have at most {limits['maxItems']} items")
        if node.unique:
            check_unique(value, result, path)
        if node.contains is not None:
            self._contains(node.contains, value, result, path)
        result.score += 1

    def _additional_items(self, node: Node, begin: int, value: list[Json], result: Result, path: str) -> None:
        if node.additional_items is False:
            result.add("array_no_additional_items", path, "No additional items allowed on array")
        elif isinstance(node.additional_items, Node):
            for at in range(begin, len(value)):
                result.merge(self._part(node.additional_items, value[at], f"{path}.{at}"))

    def _contains(self, schema: Node, value: list[Json], result: Result, path: str) -> None:
        best: Result | None = None
        for at, element in enumerate(value):
            part = self._part(schema, element, f"{path}.{at}")
            if not part.errors:
                return
            best = _closer(best, part)
        result.add("contains", path, "At least one of the items must match")
        if best is not None:
            result.merge(best)

    def _object(self, node: Node, value: dict[str, Json], result: Result, path: str) -> None:
        limits, length = node.limits, len(value)
        if length < limits.get("minProperties", 0):
            result.add("array_min_properties", path, f"Must have at least {limits['minProperties']} properties")
        if length > limits.get("maxProperties", length):
            result.add("array_max_properties", path, f"Must have at most {limits['maxProperties']} properties")
        for name in node.required:
            if name in value:
                result.score += 1
            else:
                result.add("required", path, f"{name} is required")
        if node.pattern_properties or node.additional_properties not in (None, True):
            described = {schema.name for schema in node.properties}
            for name in sorted(value):
                self._property(node, name, value[name], result, path, is_described=name in described)
        if node.property_names is not None:
            for name in sorted(value):
                part = self._part(node.property_names, name, path)
                if part.errors:
                    result.add("invalid_property_name", path, f'Property name of "{name}" does not match')
                    result.merge(part)
        result.score += 1

    def _property(self, node: Node, name: str, value: Json, result: Result, path: str, *, is_described: bool) -> None:
        """A property by the patterns of its name, or by what all others must be."""
        matched = False
        for expression, schema in node.pattern_properties.values():
            if expression.search(name.encode()) is not None:
                matched = True
                result.merge(self._part(schema, value, f"{path}.{name}"))
        if matched:
            result.score += 1
        elif not is_described:
            if node.additional_properties is False:
                told = f"Additional property {name} is not allowed"
                result.add("additional_property_not_allowed", path, told)
            elif isinstance(node.additional_properties, Node):
                result.merge(self._part(node.additional_properties, value, f"{path}.{name}"))


def _type_name(value: Json) -> str:
    if is_number(value):
        return "integer" if is_whole(value) else "number"
    names = {bool: "boolean", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _closer(best: Result | None, other: Result) -> Result:
    return other if best is None or other.score > best.score else best
