"""`strings.render_template`: Go's `text/template`, over data that is JSON."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.builtins.gotemplate import Block, Call, Literal, Operand, Part, Path, Pipeline, parse
from sark_pdp.engine.wasm.terms import dumps
from sark_pdp.engine.wasm.values import LimitError, RegoObject, RegoSet
from sark_pdp.model import Json

_LONGEST: Final = 64 * 1024
"""Characters of a template."""
_MAX_STEPS: Final = 20_000
_MAX_TEXT: Final = 1024 * 1024
"""Characters of what is made."""
_REMEMBERED: Final = 64


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    parsed = lru_cache(_REMEMBERED)(parse)

    def render(_: Context, template: Json, variables: Json) -> str:
        text = string(template)
        if len(text) > _LONGEST:
            raise LimitError(f"strings.render_template: a template may have {_LONGEST} characters, not {len(text)}")
        return _Rendering(variables).text(parsed(text)).replace("<no value>", "<undefined>")

    return {"strings.render_template": render}


class _Missing:
    """What a field that is not there has, which is not null: its own fields are missing, and no error."""

    def __bool__(self) -> bool:
        return False


_MISSING: Final = _Missing()


class _Number(str):
    """A number as Go has it here: a text of digits."""

    __slots__ = ()


class _Rendering:
    """One text in the making."""

    def __init__(self, data: Json) -> None:
        if type(data) is not dict:
            raise BuiltinError("strings.render_template: the variables are no JSON object")
        self._data = _with_numbers(data)
        self._variables: list[tuple[str, Any]] = [("$", self._data)]
        self._texts: list[str] = []
        self._length = 0
        self._steps = 0

    def text(self, parts: list[Part]) -> str:
        """All of it. Raises BuiltinError where the data has not what the template wants, or LimitError."""
        self._all(parts, self._data)
        return "".join(self._texts)

    def _all(self, parts: list[Part], dot: Any) -> None:
        for part in parts:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise LimitError(f"strings.render_template: more than {_MAX_STEPS} steps")
            if isinstance(part, str):
                self._put(part)
            elif isinstance(part, Block):
                scope = len(self._variables)
                self._block(part, dot)
                del self._variables[scope:]
            else:
                value = self._piped(part, dot)
                if not part.variables:
                    self._put(_shown(value))

    def _put(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MAX_TEXT:
            raise LimitError(f"strings.render_template: a text of more than {_MAX_TEXT} characters")
        self._texts.append(text)

    def _block(self, block: Block, dot: Any) -> None:
        if block.kind == "range":
            self._range(block, dot)
            return
        value = self._piped(block.pipeline, dot)
        if _is_true(value):
            self._all(block.body, value if block.kind == "with" else dot)
        else:
            self._all(block.otherwise, dot)

    def _range(self, block: Block, dot: Any) -> None:
        value = self._result(block.pipeline, dot)
        if type(value) not in (list, dict) and value is not None and value is not _MISSING:
            raise LimitError("strings.render_template: `range` over what is no array or object is not supported")
        pairs = sorted(value.items()) if type(value) is dict else list(enumerate(value or []))
        names = block.pipeline.variables
        for key, element in pairs:
            scope = len(self._variables)
            for name, each in zip(names, (key, element)[-len(names) or 2 :], strict=False):
                self._set(name, each, declares=block.pipeline.declares)
            self._all(block.body, element)
            del self._variables[scope:]
        if not pairs:
            self._all(block.otherwise, dot)

    def _piped(self, pipeline: Pipeline, dot: Any) -> Any:
        value = self._result(pipeline, dot)
        for name in pipeline.variables:
            self._set(name, value, declares=pipeline.declares)
        return value

    def _set(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        raise BuiltinError("strings.render_template: a variable that there is not")

    def _result(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for at, (first, *rest) in enumerate(pipeline.commands):
            if isinstance(first, Call):
                operands = [self._operand(operand, dot) for operand in rest]
                given = [*operands, value] if at else operands
                value = _called(first.name, [None if each is _MISSING else each for each in given])
            elif at:
                raise BuiltinError("strings.render_template: a value that is no function")
            else:
                value = self._operand(first, dot)
        return value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if not isinstance(operand, Path):
            raise BuiltinError("strings.render_template: a function without its operands")
        value = self._start(operand, dot)
        for field in operand.fields:
            if value is not _MISSING:
                if type(value) is not dict:
                    raise BuiltinError("strings.render_template: a field of what is no object")
                value = value.get(field, _MISSING)
        return value

    def _start(self, path: Path, dot: Any) -> Any:
        if isinstance(path.start, Pipeline):
            return self._result(path.start, dot)
        if path.start == ".":
            return dot
        for name, value in reversed(self._variables):
            if name == path.start:
                return value
        raise BuiltinError("strings.render_template: a variable that there is not")


def _with_numbers(value: Json) -> Any:
    """The data with numbers as Go has them here."""
    kind = type(value)
    if kind is list:
        return [_with_numbers(element) for element in value]
    if kind is dict:
        return {key: _with_numbers(below) for key, below in value.items()}
    if kind is RegoSet or kind is RegoObject:
        raise BuiltinError("strings.render_template: data that is no JSON")
    return _Number(dumps(value).decode()) if kind is int or kind is float else value


def _is_true(value: Any) -> bool:
    # A number of the data is a text here, and so true, even 0.
    return bool(value)


def _shown(value: Any) -> str:
    return "<no value>" if value is None or value is _MISSING else _text(value)


def _text(value: Any) -> str:
    """As Go's `fmt` prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join([_text(element) for element in value])}]"
    if isinstance(value, dict):
        return f"map[{' '.join([f'{key}:{_text(value[key])}' for key in sorted(value)])}]"
    return str(value)


def _called(name: str, operands: list[Any]) -> Any:
    if not operands:
        if name == "print":
            return ""
        raise BuiltinError(f"strings.render_template: {name} without operands")
    return _CALLS[name](operands)


def _and(operands: list[Any]) -> Any:
    return next((operand for operand in operands if not _is_true(operand)), operands[-1])


def _or(operands: list[Any]) -> Any:
    return next((operand for operand in operands if _is_true(operand)), operands[-1])


def _not(operands: list[Any]) -> bool:
    (operand,) = _exactly(1, operands)
    return not _is_true(operand)


def _len(operands: list[Any]) -> int:
    (operand,) = _exactly(1, operands)
    if isinstance(operand, str):
        return len(operand.encode())
    if not isinstance(operand, list | dict):
        raise BuiltinError("strings.render_template: len of what has none")
    return len(operand)


def _index(operands: list[Any]) -> Any:
    value, *keys = operands
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str) and not isinstance(key, _Number):
            value = value.get(key)
        elif isinstance(value, list) and type(key) is int and 0 <= key < len(value):
            value = value[key]
        else:
            raise BuiltinError("strings.render_template: an index that there is not")
    return value


def _eq(operands: list[Any]) -> bool:
    first, *others = operands
    if not others:
        raise BuiltinError("strings.render_template: eq needs two operands")
    if any(operand is None or isinstance(operand, list | dict) for operand in operands):
        raise LimitError("strings.render_template: eq and ne compare texts, numbers and booleans only")
    found = False
    for other in others:
        if isinstance(first, str) != isinstance(other, str) or isinstance(first, bool) != isinstance(other, bool):
            raise BuiltinError("strings.render_template: eq of values of different types")
        if str(first) == str(other):
            found = True
            break
    return found


def _ne(operands: list[Any]) -> bool:
    return not _eq(_exactly(2, operands))


def _print(operands: list[Any]) -> str:
    parts = [_text(operands[0])]
    for before, operand in pairwise(operands):
        # Go has a space between two of which neither is a text.
        parts.append(("" if _is_text(before) or _is_text(operand) else " ") + _text(operand))
    return "".join(parts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _exactly(count: int, operands: list[Any]) -> list[Any]:
    if len(operands) != count:
        raise BuiltinError(f"strings.render_template: a function of {count} operands has {len(operands)}")
    return operands


_CALLS: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "and": _and,
    "or": _or,
    "not": _not,
    "len": _len,
    "index": _index,
    "eq": _eq,
    "ne": _ne,
    "print": _print,
}
