"""Parses templates of Go's `text/template`: the parts of it that make texts of data.

There are fields, variables, `if`, `range`, `with`, pipelines and functions. Templates that define or call others, and
the functions that format, are refused by name.
"""

import re
from typing import Any, Final, TypeAlias

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.values import LimitError

FUNCTIONS: Final = frozenset({"and", "or", "not", "len", "index", "eq", "ne", "print"})
_REFUSED: Final = frozenset({
    "call", "html", "js", "printf", "println", "slice", "urlquery", "lt", "le", "gt", "ge", "define", "template",
    "block", "break", "continue",
})  # fmt: skip
_MAX_DEPTH: Final = 50

_ACTION: Final = re.compile(
    r"""\{\{(?P<left>-(?=\s))?(?:\s*/\*(?P<comment>.*?)\*/\s*?|(?P<inner>(?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|'(?:[^'\\\n]|\\.)*'
    |(?!-?\}\}|\{\{)[^"`'])*?))(?P<right>(?<=\s)-)?\}\}""",
    re.VERBOSE | re.DOTALL,
)
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>[+-]?[0-9]+(?![\w.]))|(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)|(?P<variable>\$\w*)|(?P<name>[^\W\d]\w*)|(?P<mark>:=|[=|(),])""",
    re.VERBOSE,
)


class Literal(Struct, frozen=True):
    """A constant."""

    value: str | int | bool | None


class Path(Struct, frozen=True):
    """Where a value begins, and the fields on the way from there."""

    start: "str | Pipeline"
    """`.`, the name of a variable, or what is in parentheses."""
    fields: tuple[str, ...]


class Call(Struct, frozen=True):
    """A function; its operands follow."""

    name: str


Operand: TypeAlias = Literal | Path | Call


class Pipeline(Struct, frozen=True):
    """Commands, of which each has the result of the one before as its last operand."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    """What the result is called from here on."""
    declares: bool = False


class Block(Struct):
    """`if`, `range` or `with`."""

    kind: str
    pipeline: Pipeline
    body: "list[Part]"
    otherwise: "list[Part]"


Part: TypeAlias = str | Pipeline | Block


def parse(text: str) -> list[Part]:
    """The parts of a template. Raises BuiltinError, or LimitError for what is not supported."""
    root: list[Part] = []
    open_blocks: list[tuple[Block, bool]] = []
    """With whether `else` was met."""
    parts = root
    position = 0
    trims = False
    while (begin := text.find("{{", position)) >= 0:
        match = _ACTION.match(text, begin)
        if match is None:
            raise BuiltinError("strings.render_template: an action that does not end")
        plain = text[position:begin].lstrip(" \t\r\n") if trims else text[position:begin]
        parts.append(plain.rstrip(" \t\r\n") if match["left"] else plain)
        position, trims = match.end(), bool(match["right"])
        if match["comment"] is None:
            parts = _act(_Action(match["inner"]), root, parts, open_blocks)
    if open_blocks:
        raise BuiltinError("strings.render_template: a block that does not end")
    parts.append(text[position:].lstrip(" \t\r\n") if trims else text[position:])
    return root


def _act(action: "_Action", root: list[Part], parts: list[Part], blocks: list[tuple[Block, bool]]) -> list[Part]:
    """Takes an action in, and returns where the next parts go."""
    word = action.word()
    if word in ("if", "range", "with"):
        if len(blocks) >= _MAX_DEPTH:
            raise LimitError(f"strings.render_template: blocks more than {_MAX_DEPTH} deep")
        block = Block(word, action.pipeline(variables=2 if word == "range" else 1), [], [])
        parts.append(block)
        blocks.append((block, False))
        return block.body
    if word == "else":
        if not blocks or blocks[-1][1]:
            raise BuiltinError("strings.render_template: an else without its block")
        block, _ = blocks[-1]
        blocks[-1] = (block, True)
        if action.ends():
            return block.otherwise
        if action.word() != block.kind or block.kind == "range":
            raise BuiltinError("strings.render_template: an else of another kind")
        raise LimitError("strings.render_template: `else if` is not supported: put the `if` into an `else`")
    if word == "end":
        if not blocks:
            raise BuiltinError("strings.render_template: an end without its block")
        action.must_end()
        blocks.pop()
        if not blocks:
            return root
        outer, in_else = blocks[-1]
        return outer.otherwise if in_else else outer.body
    parts.append(action.pipeline(variables=1))
    return parts


class _Action:
    """Reads the tokens between two pairs of braces."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        self._depth = 0
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise BuiltinError("strings.render_template: an action with a mark that none has")
            self._tokens.append((str(match.lastgroup), match[0]))
            position = match.end()
        self._skip()

    def word(self) -> str | None:
        """The keyword that comes next, if it is one."""
        kind, text = self._peek()
        if kind != "name" or text not in ("if", "range", "with", "else", "end"):
            return None
        self._next()
        self._skip()
        return text

    def ends(self) -> bool:
        """Whether there is nothing more."""
        return self._at == len(self._tokens)

    def must_end(self) -> None:
        """Raises BuiltinError where there is more."""
        if not self.ends():
            raise BuiltinError("strings.render_template: an action with too much in it")

    def pipeline(self, *, variables: int) -> Pipeline:
        """All that is left of the action."""
        names, declares = self._declared(variables)
        commands = self._commands()
        self.must_end()
        return Pipeline(tuple(commands), names, declares)

    def _declared(self, most: int) -> tuple[tuple[str, ...], bool]:
        """The variables in front of `:=` or `=`."""
        begin, names = self._at, []
        while self._peek()[0] == "variable":
            names.append(self._next())
            self._skip()
            if self._peek()[1] in (":=", "="):
                declares = self._next() == ":="
                self._skip()
                if len(names) > most or "$" in names:
                    raise BuiltinError("strings.render_template: too many variables")
                return tuple(names), declares
            if self._peek()[1] != ",":
                break
            self._next()
            self._skip()
        self._at = begin
        return (), False

    def _commands(self) -> list[tuple[Operand, ...]]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise LimitError(f"strings.render_template: parentheses more than {_MAX_DEPTH} deep")
        commands: list[tuple[Operand, ...]] = []
        operands: list[Operand] = []
        while not self.ends() and self._peek()[1] != ")":
            if self._peek()[1] == "|":
                self._next()
                self._skip()
                commands.append(self._command(operands))
                operands = []
                continue
            operands.append(self._operand())
            if not self.ends() and self._peek()[1] not in ("|", ")") and not self._skip():
                raise BuiltinError("strings.render_template: operands without a space between them")
            self._skip()
        commands.append(self._command(operands))
        self._depth -= 1
        return commands

    def _command(self, operands: list[Operand]) -> tuple[Operand, ...]:
        if not operands or (len(operands) > 1 and type(operands[0]) is not Call):
            raise BuiltinError("strings.render_template: a command that is none")
        if operands == [Literal(None)]:
            raise BuiltinError("strings.render_template: nil is no command")
        if any(type(operand) is Call for operand in operands[1:]):
            raise LimitError("strings.render_template: a function as an operand must be in parentheses")
        return tuple(operands)

    def _operand(self) -> Operand:
        kind, text = self._peek()
        if kind == "name" and text not in ("true", "false", "nil"):
            self._next()
            if text in _REFUSED:
                raise LimitError(f"strings.render_template: `{text}` is not supported")
            if text not in FUNCTIONS:
                raise BuiltinError("strings.render_template: a function that there is not")
            return Call(text)
        if kind in ("string", "number", "name"):
            self._next()
            return Literal(
                {"true": True, "false": False, "nil": None}.get(text) if kind == "name" else _constant(kind, text)
            )
        return Path(self._start(), self._fields())

    def _start(self) -> "str | Pipeline":
        kind, text = self._peek()
        if kind in ("dot", "variable"):
            start = self._next()
            if kind == "dot" and self._peek()[0] in ("dot", "field"):
                raise BuiltinError("strings.render_template: two dots in a row")
            return start
        if kind == "field":
            return "."
        if text != "(":
            raise BuiltinError("strings.render_template: an operand that is none")
        self._next()
        self._skip()
        commands = self._commands()
        if self._peek()[1] != ")":
            raise BuiltinError("strings.render_template: a parenthesis that does not close")
        self._next()
        return Pipeline(tuple(commands))

    def _fields(self) -> tuple[str, ...]:
        fields: list[str] = []
        while self._peek()[0] == "field":
            fields.append(self._next()[1:])
        return tuple(fields)

    def _peek(self) -> tuple[str, str]:
        return ("", "") if self.ends() else self._tokens[self._at]

    def _next(self) -> str:
        text = self._tokens[self._at][1]
        self._at += 1
        return text

    def _skip(self) -> bool:
        """Steps over space; whether there was some."""
        if self._peek()[0] != "space":
            return False
        self._at += 1
        return True


def _constant(kind: str, text: str) -> Any:
    if kind == "number":
        return int(text)
    if text[0] == "`":
        return text[1:-1]
    if "\\" in text:
        raise LimitError("strings.render_template: an escape in a string is not supported: use backquotes")
    return text[1:-1]
