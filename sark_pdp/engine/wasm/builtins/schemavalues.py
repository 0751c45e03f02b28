"""Checks of single values against a JSON schema: numbers, texts, and whether elements are unique."""

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.schemanode import Node
from sark_pdp.engine.wasm.builtins.schemanumbers import big_text, canonical, exact
from sark_pdp.model import Json

ROOT: Final = "(Root)"


class Error(Struct, frozen=True):
    """One thing that is wrong; `field` is the path to it, with dots."""

    kind: str
    field: str
    description: str


class Result:
    """What was found in one value; more score is closer."""

    def __init__(self) -> None:
        self.errors: list[Error] = []
        self.score = 0

    def add(self, kind: str, path: str, description: str) -> None:
        """Adds an error."""
        # The score is net 1 less, as each check adds 1 at its end.
        self.score -= 2
        self.errors.append(Error(kind, path.removeprefix(f"{ROOT}."), description))

    def merge(self, other: "Result") -> None:
        """Adds what was found in a part."""
        self.errors += other.errors
        self.score += other.score


def check_unique(value: list[Json], result: Result, path: str) -> None:
    found: dict[str, int] = {}
    for at, element in enumerate(value):
        text = canonical(element)
        if text in found:
            result.add("unique", path, f"array items[{found[text]},{at}] must be unique")
        found[text] = at


def check_number(node: Node, value: float, result: Result, path: str) -> None:
    limits = node.limits
    if limits:
        number = exact(value)
        if "multipleOf" in limits and (number / exact(limits["multipleOf"])).denominator != 1:
            result.add("multiple_of", path, f"Must be a multiple of {big_text(limits['multipleOf'])}")
        for key, kind, told, fails in _BOUNDS:
            if key in limits and fails(number, exact(limits[key])):
                result.add(kind, path, f"Must be {told} {big_text(limits[key])}")
    result.score += 1


_BOUNDS: Final[tuple[tuple[str, str, str, Callable[[Fraction, Fraction], bool]], ...]] = (
    ("maximum", "number_lte", "less than or equal to", operator.gt),
    ("exclusiveMaximum", "number_lt", "less than", operator.ge),
    ("minimum", "number_gte", "greater than or equal to", operator.lt),
    ("exclusiveMinimum", "number_gt", "greater than", operator.le),
)


def check_text(node: Node, value: str, result: Result, path: str) -> None:
    limits, length = node.limits, len(value)
    if length < limits.get("minLength", 0):
        result.add("string_gte", path, f"String length must be greater than or equal to {limits['minLength']}")
    if length > limits.get("maxLength", length):
        result.add("string_lte", path, f"String length must be less than or equal to {limits['maxLength']}")
    if node.pattern is not None and node.pattern[1].search(value.encode()) is None:
        result.add("pattern", path, f"Does not match pattern '{node.pattern[0]}'")
    result.score += 1
