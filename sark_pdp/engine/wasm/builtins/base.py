"""What every built-in is given and may raise."""

from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeAlias

from sark_pdp.engine.wasm.values import LimitError, RegoObject, RegoSet
from sark_pdp.errors import SarkError
from sark_pdp.model import Json


class _Undefined:
    __slots__ = ()

    def __repr__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = _Undefined()
"""A built-in without a result, where that is no error."""


class BuiltinError(SarkError):
    """A built-in got an operand that it cannot work on: undefined in the policy, as in OPA without strict errors."""


class Context:
    """One evaluation, as its built-ins see it."""

    __slots__ = ("cache", "now_ns", "random")

    def __init__(self, now_ns: int, random: Random) -> None:
        self.now_ns = now_ns
        """Since the epoch, UTC: the same for the whole evaluation."""
        self.random = random
        self.cache: dict[object, Json] = {}
        """What must be the same when asked again within the evaluation, as `rand.intn`."""


Builtin: TypeAlias = Callable[..., Json]
"""Called with the context and the operands as `terms.loads` gives them. Returns what `terms.dumps` takes, or UNDEFINED;
raises BuiltinError or TermError, which are undefined in the policy, or LimitError, with which the evaluation fails. The
operands are its own to change."""


def within(count: int, most: int, what: str) -> None:
    """Raises LimitError where a call would take longer than a moment: nothing can interrupt a built-in."""
    if count > most:
        raise LimitError(f"{what}: {count}, and the limit is {most}")


def string(operand: Json) -> str:
    """The operand, which must be a string."""
    if type(operand) is not str:
        raise _mismatch("a string", operand)
    return operand


def integer(operand: Json) -> int:
    """The operand, which must be a whole number of 64 bits; 1.0 is one."""
    if type(operand) is float and operand.is_integer():
        operand = int(operand)
    if type(operand) is not int or not -(1 << 63) <= operand < 1 << 63:
        raise _mismatch("an integer of 64 bits", operand)
    return operand


def whole_number(operand: Json) -> int:
    """The operand, which must be a whole number of any size; 1.0 is one."""
    if type(operand) is float and operand.is_integer():
        return int(operand)
    if type(operand) is not int:
        raise _mismatch("an integer", operand)
    return operand


def array(operand: Json) -> list[Json]:
    """The operand, which must be an array."""
    if type(operand) is not list:
        raise _mismatch("an array", operand)
    return operand


def strings(operand: Json) -> list[str]:
    """The operand, which must be an array or a set of strings."""
    if type(operand) is RegoSet:
        operand = list(operand)
    return [string(element) for element in array(operand)]


def items(operand: Json) -> list[tuple[Json, Json]]:
    """Keys and values of the operand, which must be an object."""
    if type(operand) is dict:
        return list(operand.items())
    if type(operand) is RegoObject:
        return list(operand.items)
    raise _mismatch("an object", operand)


def _mismatch(wanted: str, operand: Any) -> BuiltinError:
    return BuiltinError(f"the operand must be {wanted}, and is {type_name(operand)}")


def type_name(value: Json) -> str:
    """What Rego calls the type of a value."""
    names = {dict: "object", RegoObject: "object", RegoSet: "set", list: "array", str: "string", bool: "boolean"}
    return names.get(type(value), "null" if value is None else "number")
