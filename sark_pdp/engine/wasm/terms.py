"""Rego values as text: what OPA's `opa_value_dump` writes and `opa_value_parse` reads.

The text is JSON, and besides it sets, `{1, 2}` and `set()`, and objects whose keys are any value. A value that plain
JSON can hold becomes a plain Python one; the rest becomes RegoSet and RegoObject.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec

from sark_pdp.engine.wasm.values import LimitError, Numeral, RegoObject, RegoSet, TermError
from sark_pdp.model import Json

__all__ = ["LimitError", "Numeral", "RegoObject", "RegoSet", "TermError", "dumps", "go_string", "loads"]

MAX_TEXT: Final = 1024 * 1024
"""Bytes of one value. Nothing can interrupt the host while it reads one."""

MAX_PARSED_TEXT: Final = 128 * 1024
"""Bytes of one value that plain JSON cannot hold: it is read at 3 to 6 MB/s, JSON a hundred times faster."""

MAX_ELEMENTS: Final = 50_000
"""Elements of one set: a microsecond each to put them into order."""

_TOKEN: Final = re.compile(
    rb'[ \t\r\n]*(?:("(?:[^"\\\x00-\x1f]|\\.)*")|(-?[0-9.][0-9.eE+-]*)'
    rb"|(set\([ \t\r\n]*\))|(null|true|false)|([\[\]{},:]))"
)
_STRING, _NUMBER, _EMPTY_SET, _WORD = 1, 2, 3, 4
_STRAY_BYTES: Final = re.compile("[\udc80-\udcff]")
_WORDS: Final = {b"null": None, b"true": True, b"false": False}


def loads(text: bytes) -> Json:
    """The value that `opa_value_dump` wrote. Raises TermError or LimitError."""
    if len(text) > MAX_TEXT:
        raise LimitError(f"a value of {len(text)} bytes is too large for a built-in; the limit is {MAX_TEXT}")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parsed(text)
    except RecursionError:
        raise LimitError("a value is nested too deeply for a built-in") from None


def dumps(value: Json) -> bytes:
    """The text of a value for `opa_value_parse`. Raises TermError or LimitError."""
    try:
        try:
            return msgspec.json.encode(value)
        except TypeError:
            # There are sets in it, or keys that are no strings.
            parts: list[bytes] = []
            _write(value, parts.append)
            return b"".join(parts)
    except RecursionError:
        raise LimitError("the result of a built-in is nested too deeply") from None
    except (TypeError, UnicodeEncodeError) as problem:
        raise TermError(f"the result of a built-in cannot be written: {problem}") from None


def _parsed(text: bytes) -> Json:
    try:
        if text[:1] == b"{" and text[-1:] == b"}" and text.count(b",") < MAX_ELEMENTS:
            # Most are sets of plain values: within the braces they are written as arrays are.
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                return RegoSet(msgspec.json.decode(b"[" + text[1:-1] + b"]"))
        if len(text) > MAX_PARSED_TEXT:
            raise LimitError(f"a set of {len(text)} bytes is too large for a built-in; the limit is {MAX_PARSED_TEXT}")
        parser = _Parser(text)
        value = parser.value()
    except RecursionError:
        raise LimitError("a value is nested too deeply for a built-in") from None
    parser.end()
    return value


class _Parser:
    """Reads one value; `_kind` and `_token` are the token that is looked at."""

    __slots__ = ("_kind", "_position", "_text", "_token")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._position = 0
        self._advance()

    def end(self) -> None:
        if self._kind:
            raise self._error()

    def value(self) -> Json:
        kind, token = self._kind, self._token
        self._advance()
        if kind == _STRING:
            return _string(token)
        if kind == _NUMBER:
            return _number(token)
        if kind == _WORD:
            return _WORDS[token]
        if kind == _EMPTY_SET:
            return RegoSet()
        if token == b"[":
            return self._list()
        if token == b"{":
            return self._braces()
        raise self._error()

    def _list(self) -> list[Json]:
        values: list[Json] = []
        if self._token == b"]":
            self._advance()
            return values
        values.append(self.value())
        while self._separator(b"]"):
            values.append(self.value())
        return values

    def _braces(self) -> Json:
        """After a brace: an object, or a set where the first element is not followed by a colon."""
        if self._token == b"}":
            self._advance()
            return {}
        first = self.value()
        if self._token != b":":
            elements = [first]
            while self._separator(b"}"):
                elements.append(self.value())
            return RegoSet(elements)
        items = [(first, self._value_of_key())]
        while self._separator(b"}"):
            items.append((self.value(), self._value_of_key()))
        if all(type(key) is str for key, _ in items):
            return dict(items)
        return RegoObject(items)

    def _value_of_key(self) -> Json:
        if self._token != b":":
            raise self._error()
        self._advance()
        return self.value()

    def _separator(self, closing: bytes) -> bool:
        """Steps over a comma, or over the closing mark: then False."""
        token = self._token
        if token != b"," and token != closing:
            raise self._error()
        self._advance()
        return token == b","

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            if self._text[self._position :].strip():
                raise self._error()
            self._kind, self._token = 0, b""
            return
        self._position = match.end()
        self._kind = match.lastindex or 0
        self._token = match[self._kind]

    def _error(self) -> TermError:
        return TermError(f"not a Rego value, near byte {self._position}")


def _string(token: bytes) -> str:
    try:
        text: str = msgspec.json.decode(token, type=str)
    except UnicodeDecodeError:
        # A policy can make strings that are not UTF-8 (base64.decode); Go shows each stray byte as U+FFFD.
        return _string(go_string(token).encode())
    except msgspec.DecodeError as problem:
        raise TermError(f"not a Rego string: {problem}") from None
    return text


def go_string(raw: bytes) -> str:
    """Bytes as text, each byte that is no part of a UTF-8 sequence as U+FFFD, as Go ranges over a string."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _STRAY_BYTES.sub("\ufffd", raw.decode(errors="surrogateescape"))


def _number(token: bytes) -> int | float | Numeral:
    # Rego lets a policy write .5, and its compiler passes that on.
    if token.startswith((b".", b"-.")):
        token = token.replace(b".", b"0.", 1)
    try:
        number: int | float = msgspec.json.decode(token, type=int | float)
    except msgspec.ValidationError:
        return Numeral(token.decode())
    except msgspec.DecodeError as problem:
        raise TermError(f"not a number: {problem}") from None
    return number


def _write(value: Json, put: Callable[[bytes], None]) -> None:
    kind = type(value)
    if kind is RegoSet:
        if not value:
            put(b"set()")
        else:
            _write_all(b"{", value, b"}", put)
    elif kind is list:
        _write_all(b"[", value, b"]", put)
    elif kind is dict or kind is RegoObject:
        separator = b"{"
        for key, below in value.items() if kind is dict else value.items:
            put(separator)
            _write(key, put)
            put(b":")
            _write(below, put)
            separator = b","
        put(b"{}" if separator == b"{" else b"}")
    elif kind is Numeral:
        put(value.text.encode())
    else:
        put(msgspec.json.encode(value))


def _write_all(opening: bytes, values: Iterable[Json], closing: bytes, put: Callable[[bytes], None]) -> None:
    separator = opening
    for value in values:
        put(separator)
        _write(value, put)
        separator = b","
    put(opening + closing if separator is opening else closing)
