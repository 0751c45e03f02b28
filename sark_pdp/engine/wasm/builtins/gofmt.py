"""Go's `fmt.Sprintf` for what OPA gives to it: formats are parsed once, mistakes are written into it, as in Go."""

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.engine.wasm.builtins.goverbs import BARE, Argument, Spec, go_type, is_big, write
from sark_pdp.engine.wasm.values import LimitError

MAX_RESULT: Final = 1024 * 1024
"""Characters that one call may make: a format of a few bytes can ask for gigabytes of padding."""

_MAX_WIDTH: Final = 1_000_000
"""Go's own limit of a width or a precision."""

_FLAGS: Final = re.compile(r"[#0+\- ]*")
_NUMBER: Final = re.compile(r"[0-9]+")
_QUICK: Final = (Spec("s"), Spec("v"), Spec("d"))
_INDEX: Final = re.compile(r"\[([^\]]*)\]")


class Index(Struct, frozen=True):
    """`[3]`: which argument comes next, from 0; None where there is no number, or the bracket is not closed."""

    position: int | None


class Directive(Struct, frozen=True):
    """One `%…`; an empty verb where the format ends before it."""

    spec: Spec
    plain: bool
    """It takes the next argument, and nothing else."""
    bad_index: bool
    width_index: Index | None
    width_argument: bool
    precision_index: Index | None
    precision_argument: bool
    verb_index: Index | None


Piece: TypeAlias = tuple[str, Directive | None]
"""Text, and the directive after it; the last piece has none."""


class Format(Struct, frozen=True):
    """A parsed format."""

    pieces: tuple[Piece, ...]
    quick: str
    """The same for Python's `%`, where each directive is `%s`, `%v` or `%d`."""
    verbs: str | None
    """The verbs of `quick`; None where there are other directives."""


def parse(template: str) -> Format:
    """The format for `sprintf`."""
    pieces: list[Piece] = []
    position = 0
    while (percent := template.find("%", position)) >= 0:
        scanner = _Scanner(template, percent + 1)
        pieces.append((template[position:percent], scanner.directive()))
        position = scanner.position
    pieces.append((template[position:], None))
    verbs = [directive.spec for _, directive in pieces if directive is not None]
    quick = all(spec in _QUICK for spec in verbs) and all(
        directive is None or directive.plain for _, directive in pieces
    )
    return Format(
        pieces=tuple(pieces),
        quick="%s".join([literal.replace("%", "%%") for literal, _ in pieces]),
        verbs="".join([spec.verb for spec in verbs]) if quick else None,
    )


class _Scanner:
    """Reads one directive; what follows it begins at `position`."""

    __slots__ = ("_template", "position")

    def __init__(self, template: str, position: int) -> None:
        self._template = template
        self.position = position

    def directive(self) -> Directive:
        flags = self._take(_FLAGS) or ""
        width = precision = precision_index = verb_index = None
        width_argument = precision_argument = False
        width_index = self._index()
        after_index = _is_number(width_index)
        bad_index = False
        if self._take_character("*"):
            width_argument, after_index = True, False
        else:
            width = self._number()
            bad_index = after_index and width is not None
        if self.position + 1 < len(self._template) and self._take_character("."):
            bad_index = bad_index or after_index
            precision_index = self._index()
            after_index = _is_number(precision_index)
            if self._take_character("*"):
                precision_argument, after_index = True, False
            else:
                precision = self._number() or 0
        if not after_index:
            verb_index = self._index()
        verb = self._template[self.position : self.position + 1]
        self.position += len(verb)
        plain = verb not in ("", "%") and not (width_argument or precision_argument)
        plain = plain and width_index is None and precision_index is None and verb_index is None
        return Directive(
            spec=_spec(verb, flags, width, precision),
            plain=plain,
            bad_index=bad_index,
            width_index=width_index,
            width_argument=width_argument,
            precision_index=precision_index,
            precision_argument=precision_argument,
            verb_index=verb_index,
        )

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._template, self.position)
        if match is None:
            return None
        self.position = match.end()
        return match[0]

    def _take_character(self, character: str) -> bool:
        found = self._template.startswith(character, self.position)
        self.position += found
        return found

    def _number(self) -> int | None:
        digits = self._take(_NUMBER)
        if digits is None:
            return None
        number = _bounded(digits)
        if number is None:
            # Go gives up on the rest of the format.
            self.position = len(self._template)
        return number

    def _index(self) -> Index | None:
        if not self._template.startswith("[", self.position):
            return None
        text = self._take(_INDEX)
        if text is None:
            self.position += 1
            return Index(None)
        number = _bounded(text[1:-1]) if _NUMBER.fullmatch(text[1:-1]) else None
        return Index(None if number is None else number - 1)


def _spec(verb: str, flags: str, width: int | None, precision: int | None) -> Spec:
    of_value = verb in ("v", "w")
    return Spec(
        verb=verb,
        sharp="#" in flags and not of_value,
        zero="0" in flags,
        plus="+" in flags and not of_value,
        minus="-" in flags,
        space=" " in flags,
        go_syntax="#" in flags and of_value,
        plus_v="+" in flags and of_value,
        width=width,
        precision=precision,
    )


def _is_number(index: Index | None) -> bool:
    return index is not None and index.position is not None


def _bounded(digits: str) -> int | None:
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(_MAX_WIDTH)) + 1 or int(digits[:-1] or 0) > _MAX_WIDTH:
        return None
    return int(digits)


def sprintf(template: Format, arguments: list[Argument]) -> str:
    """The text of a format and its arguments."""
    if template.verbs is not None and len(template.verbs) == len(arguments):
        for verb, argument in zip(template.verbs, arguments, strict=True):
            if verb == "s" or (verb == "v" and type(argument) is str):
                if type(argument) is not str:
                    break
            elif type(argument) is not int:
                break
        else:
            return template.quick % tuple(arguments)
    return _Call(arguments).text(template.pieces)


class _Call:
    """Which argument is next, and how much has been written."""

    __slots__ = ("_arguments", "_good_index", "_next", "_reordered", "_size")

    def __init__(self, arguments: list[Argument]) -> None:
        self._arguments = arguments
        self._next = 0
        self._reordered = False
        self._good_index = True
        self._size = 0

    def text(self, pieces: Sequence[Piece]) -> str:
        out: list[str] = []
        put = out.append
        for literal, directive in pieces:
            if literal:
                put(literal)
            if directive is None:
                break
            put(self._directive(directive))
        if self._next < len(self._arguments) and not self._reordered:
            put(self._extra())
        return "".join(out)

    def _directive(self, directive: Directive) -> str:
        self._good_index = not directive.bad_index
        spec, problems = (directive.spec, "") if directive.plain else self._resolved(directive)
        verb = spec.verb
        if not verb:
            return problems + "%!(NOVERB)"
        if verb == "%":
            return problems + "%"
        if not self._good_index:
            return f"{problems}%!{verb}(BADINDEX)"
        if self._next >= len(self._arguments):
            return f"{problems}%!{verb}(MISSING)"
        self._size += (spec.width or 0) + (spec.precision or 0)
        if self._size > MAX_RESULT:
            raise LimitError(f"sprintf: the text would have more than {MAX_RESULT} characters")
        argument = self._arguments[self._next]
        self._next += 1
        return problems + write(spec, argument)

    def _resolved(self, directive: Directive) -> tuple[Spec, str]:
        """The spec with widths and precisions that are arguments, and what Go says where they are not fit."""
        spec, problems = directive.spec, ""
        self._go_to(directive.width_index)
        if directive.width_argument:
            width = self._length()
            if width is None:
                problems += "%!(BADWIDTH)"
            elif width < 0:
                spec = replace(spec, width=-width, minus=True, zero=False)
            else:
                spec = replace(spec, width=width)
        self._go_to(directive.precision_index)
        if directive.precision_argument:
            precision = self._length()
            if precision is None or precision < 0:
                problems += "%!(BADPREC)"
            else:
                spec = replace(spec, precision=precision)
        self._go_to(directive.verb_index)
        return spec, problems

    def _go_to(self, index: Index | None) -> None:
        if index is None:
            return
        self._reordered = True
        if index.position is not None and 0 <= index.position < len(self._arguments):
            self._next = index.position
        else:
            self._good_index = False

    def _length(self) -> int | None:
        if self._next >= len(self._arguments):
            return None
        argument = self._arguments[self._next]
        self._next += 1
        if type(argument) is not int or is_big(argument) or abs(argument) > _MAX_WIDTH:
            return None
        return argument

    def _extra(self) -> str:
        rest = self._arguments[self._next :]
        return f"%!(EXTRA {', '.join([f'{go_type(argument)}={write(BARE, argument)}' for argument in rest])})"
