"""`regex.*` on RE2, whose expressions and matches are those of Go; needs the package google-re2."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, integer, string, within
from sark_pdp.engine.wasm.terms import MAX_TEXT, go_string
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.errors import BundleError
from sark_pdp.model import Json

_REMEMBERED: Final = 100
_LONGEST_REMEMBERED: Final = 1024
"""Characters of an expression that is kept compiled."""

_MEMORY: Final = 2 * 1024 * 1024
"""Bytes that one compiled expression may take; a larger one is refused."""

_MAX_MATCHES: Final = 10_000
_LONGEST_TEMPLATE: Final = 8 * 1024
"""Characters: each expression in it is tried by itself."""

_MAX_SCANNED: Final = 64 * 1024 * 1024
"""Bytes in one call: each further match may look at the whole rest of the text, at about 1 GB/s."""

_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_GROUP: Final = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")

Match = tuple[tuple[int, int], ...]
"""Where the match and its groups begin and end, in bytes; -1 for a group that took no part."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module; raises BundleError without google-re2."""
    calls = _Regex()
    return {
        "regex.find_n": calls.find_n,
        "regex.replace": calls.replace,
        "regex.split": calls.split,
        "regex.template_match": calls.template_match,
    }


class _Regex:
    """Remembers compiled expressions."""

    def __init__(self) -> None:
        try:
            import re2
        except ImportError:
            raise BundleError(
                "the policy calls regular expressions that run on the host, and google-re2 is not installed: "
                "install sark-pdp[regex]"
            ) from None
        self._options = re2.Options()
        self._options.max_mem = _MEMORY
        self._options.log_errors = False
        self._re2 = re2
        self._remembered: Callable[[str], Any] = lru_cache(_REMEMBERED)(self._compile)

    def find_n(self, _: Context, pattern: Json, text: Json, count: Json) -> list[str]:
        expression, raw, count = self._expression(pattern), string(text).encode(), integer(count)
        return [go_string(raw[match[0][0] : match[0][1]]) for match in _matches(expression, raw, count)]

    def split(self, _: Context, pattern: Json, text: Json) -> list[str]:
        expression, raw = self._expression(pattern), string(text).encode()
        if pattern and not raw:
            return [""]
        parts: list[str] = []
        begin = end = 0
        for match in _matches(expression, raw, -1):
            end, after = match[0]
            # An empty match at the very beginning separates nothing.
            if after:
                parts.append(go_string(raw[begin:end]))
            begin = after
        if end != len(raw):
            parts.append(go_string(raw[begin:]))
        return parts

    def replace(self, _: Context, text: Json, pattern: Json, value: Json) -> str:
        raw, expression, template = string(text).encode(), self._expression(pattern), string(value)
        parts: list[bytes] = []
        size = position = 0
        for match in _matches(expression, raw, -1):
            begin, end = match[0]
            parts += [raw[position:begin], _expanded(template, expression, raw, match)]
            size += len(parts[-1])
            if size > MAX_TEXT:
                raise LimitError(f"regex.replace: the text would have more than {MAX_TEXT} bytes")
            position = end
        parts.append(raw[position:])
        return go_string(b"".join(parts))

    def template_match(self, _: Context, template: Json, text: Json, start: Json, end: Json) -> bool:
        template, text, start, end = string(template), string(text), string(start), string(end)
        within(len(template), _LONGEST_TEMPLATE, "regex.template_match: characters of the template")
        if len(start.encode()) != 1 or len(end.encode()) != 1:
            raise BuiltinError("regex.template_match: each delimiter must be one character of ASCII")
        pattern, position = "^", 0
        for begin, after in _delimited(template, start, end):
            inner = template[begin + 1 : after - 1]
            self._expression(f"^{inner}$")
            pattern += f"{_quoted(template[position:begin])}({inner})"
            position = after
        expression = self._expression(f"{pattern}{_quoted(template[position:])}$")
        return expression.search(text.encode()) is not None

    def _expression(self, pattern: Json) -> Any:
        pattern = string(pattern)
        return self._remembered(pattern) if len(pattern) <= _LONGEST_REMEMBERED else self._compile(pattern)

    def _compile(self, pattern: str) -> Any:
        # A single byte is no character in Go, which refuses it.
        if "\\C" in re.findall(r"\\.", pattern):
            raise BuiltinError("not an expression that Go knows: \\C")
        try:
            return self._re2.compile(pattern.encode(), self._options)
        except self._re2.error as problem:
            if "too large" in str(problem):
                raise LimitError(f"a regular expression needs more than {_MEMORY} bytes") from None
            raise BuiltinError(f"not a regular expression: {problem}") from None


def _matches(expression: Any, raw: bytes, count: int) -> Iterator[Match]:
    """At most `count` matches, all where it is negative; no empty one right behind another match."""
    position, previous_end, found, scanned = 0, -1, 0, 0
    while found != count and position <= len(raw):
        scanned += len(raw) - position
        if found >= _MAX_MATCHES or scanned > _MAX_SCANNED:
            raise LimitError("a regular expression matches too often in one call")
        match = expression.search(raw, position)
        if match is None:
            return
        begin, end = match.span()
        if begin < len(raw) and raw[begin] & 0xC0 == 0x80:
            # RE2 finds `\B` between the bytes of one character, Go does not.
            position = begin + 1
            continue
        if end == position:
            position += _rune_length(raw, position)
            if begin == previous_end:
                continue
        else:
            position = end
        previous_end = end
        found += 1
        yield tuple(match.span(group) for group in range(expression.groups + 1))


def _rune_length(raw: bytes, position: int) -> int:
    length = 1
    while position + length < len(raw) and raw[position + length] & 0xC0 == 0x80:
        length += 1
    return length


def _expanded(template: str, expression: Any, raw: bytes, match: Match) -> bytes:
    """The replacement with `$1`, `${1}` and `${name}` filled in; `$$` is a dollar sign."""
    if "$" not in template:
        return template.encode()

    def group(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        begin, end = _span(found[2] or found[3], expression, match)
        return go_string(raw[begin:end])

    return _GROUP.sub(group, template).encode()


def _span(name: str, expression: Any, match: Match) -> tuple[int, int]:
    """Where a group is; of no length where there is none of this name."""
    if name.isascii() and name.isdigit():
        # Go takes a number with a leading zero for a name, which no group has.
        number = -1 if (name[0] == "0" and len(name) > 1) or len(name) > 8 else int(name)
    else:
        number = expression.groupindex.get(name.encode(), -1)
    return match[number] if 0 <= number < len(match) and match[number][0] >= 0 else (0, 0)


def _delimited(template: str, start: str, end: str) -> list[tuple[int, int]]:
    """Where each outermost pair of delimiters begins and ends."""
    found: list[tuple[int, int]] = []
    level = begin = 0
    for at, character in enumerate(template):
        if character == start:
            level += 1
            if level == 1:
                begin = at
        elif character == end:
            level -= 1
            if level == 0:
                found.append((begin, at + 1))
            elif level < 0:
                break
    if level:
        raise BuiltinError("regex.template_match: the delimiters are not balanced")
    return found


def _quoted(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)
