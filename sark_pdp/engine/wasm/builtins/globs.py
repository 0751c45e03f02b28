"""`regex.globs_match`: whether some text matches both of two simple expressions, which need not be the same.

The expressions have characters, `.`, `[a-z]`, `+` and `*`. They are compared as github.com/yashtewari/glob-intersection
does it, which OPA uses, and which is no complete test: some that have a text in common are said to have none.
"""

from typing import Final

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_LONGEST: Final = 1024
"""Characters of an expression."""
_MAX_RUNES: Final = 70_000
"""Characters in the sets of an expression."""
_MAX_STEPS: Final = 20_000
"""Pairs of tokens that are compared: each further star can double them."""


class _Token(Struct, frozen=True):
    characters: frozenset[str] | None
    """None is any."""
    is_set: bool
    flag: str
    """`+`, `*` or nothing."""

    def matches(self, other: "_Token") -> bool:
        """Whether some character is in both."""
        if self.characters is None or other.characters is None:
            return True
        return not self.characters.isdisjoint(other.characters)


_Glob = tuple[_Token, ...]


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"regex.globs_match": _globs_match}


def _globs_match(_: Context, first: Json, second: Json) -> bool:
    left, right = _Reader(string(first)).glob(), _Reader(string(second)).glob()
    return _Intersection().trimmed(left, right)


class _Reader:
    """Reads the tokens of one expression."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise LimitError(f"regex.globs_match: an expression may have {_LONGEST} characters, not {len(text)}")
        self._text = text
        self._position = 0
        self._runes = 0

    def glob(self) -> _Glob:
        """All tokens; of equal ones with a flag each that follow one another, one stays."""
        tokens: list[_Token] = []
        while self._position < len(self._text):
            token = self._token()
            last = tokens[-1] if tokens else None
            if last and last.flag and token.flag and (last.characters, last.is_set) == (token.characters, token.is_set):
                if token.flag == "+":
                    tokens[-1] = token
            else:
                tokens.append(token)
        return tuple(tokens)

    def _token(self) -> _Token:
        character, escaped = self._next()
        if escaped or character not in ".[]+*":
            return _Token(frozenset({character}), is_set=False, flag=self._flag())
        if character == ".":
            return _Token(None, is_set=False, flag=self._flag())
        if character != "[":
            raise _malformed()
        return _Token(self._set(), is_set=True, flag=self._flag())

    def _flag(self) -> str:
        flag = self._text[self._position : self._position + 1]
        if flag not in ("+", "*"):
            return ""
        self._position += 1
        return flag

    def _set(self) -> frozenset[str]:
        characters: set[str] = set()
        previous = ""
        while True:
            character, escaped = self._next()
            if escaped or character not in "]-":
                characters.add(character)
                previous = character
            elif character == "]":
                return frozenset(characters)
            else:
                characters.update(self._range(previous))
                previous = ""

    def _range(self, first: str) -> list[str]:
        # What follows may not be the last character of all, even before it is looked at.
        if not first or self._position >= len(self._text) - 1:
            raise _malformed()
        last, escaped = self._next()
        if (not escaped and last in "]-") or last < first:
            raise _malformed()
        self._runes += ord(last) - ord(first)
        if self._runes > _MAX_RUNES:
            raise LimitError(f"regex.globs_match: ranges of more than {_MAX_RUNES} characters")
        return [chr(code) for code in range(ord(first), ord(last) + 1)]

    def _next(self) -> tuple[str, bool]:
        character = self._text[self._position : self._position + 1]
        escaped = character == "\\"
        if escaped:
            character = self._text[self._position + 1 : self._position + 2]
        if not character:
            raise _malformed()
        self._position += 1 + escaped
        return character, escaped


class _Intersection:
    """Counts its steps."""

    def __init__(self) -> None:
        self._steps = 0

    def trimmed(self, left: _Glob, right: _Glob) -> bool:
        """Both without what stands at their beginnings and ends and has no flag."""
        shorter, begin = min(len(left), len(right)), 0
        while begin < shorter and not left[begin].flag and not right[begin].flag:
            if not self._match(left[begin], right[begin]):
                return False
            begin += 1
        # One token stays at each end.
        begin = max(begin - 1, 0)
        left_end, right_end = len(left) - 1, len(right) - 1
        while min(left_end, right_end) >= begin and not left[left_end].flag and not right[right_end].flag:
            if not self._match(left[left_end], right[right_end]):
                return False
            left_end, right_end = left_end - 1, right_end - 1
        if left_end < len(left) - 1:
            left_end, right_end = left_end + 1, right_end + 1
        return self._normal(left[begin : left_end + 1], right[begin : right_end + 1])

    def _match(self, left: _Token, right: _Token) -> bool:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise LimitError("regex.globs_match: the expressions have too much in common to compare them")
        return left.matches(right)

    def _normal(self, left: _Glob, right: _Glob) -> bool:
        for at in range(min(len(left), len(right))):
            if left[at].flag:
                return self._special(left[at:], right[at:])
            if right[at].flag:
                return self._special(right[at:], left[at:])
            if not self._match(left[at], right[at]):
                return False
        return len(left) == len(right)

    def _special(self, flagged: _Glob, other: _Glob) -> bool:
        if flagged[0].flag == "*":
            return self._star(flagged, other)
        if not self._match(flagged[0], other[0]):
            return False
        return self._star(flagged, other[1:]) or (other[0].flag != "" and self._normal(flagged[1:], other))

    def _star(self, starred: _Glob, other: _Glob) -> bool:
        for at, token in enumerate(other):
            if len(starred) > 1 and self._match(token, starred[1]) and self._normal(starred[1:], other[at:]):
                return True
            if not self._match(token, starred[0]):
                return False
        return len(starred) == 1


def _malformed() -> BuiltinError:
    return BuiltinError("regex.globs_match: not an expression")
