"""YAML as OPA reads it: libyaml's grammar, and the values of go.yaml.in/yaml/v3 as OPA makes JSON of them.

So `yes` and `on` are strings, `0777` and `0o777` are octal, dates are strings, the last of equal keys counts, and keys
that are no strings become some.
"""

import math
import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, TypeAlias

import yaml
from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gobase64 import decode
from sark_pdp.engine.wasm.builtins.gofloat import float_text
from sark_pdp.engine.wasm.terms import go_string
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

MAX_TEXT: Final = 64 * 1024
"""Bytes of YAML. Nothing can interrupt the host while it reads."""
MAX_VALUES: Final = 10_000
"""As they are written, and again after aliases are replaced: each alias can double the document. 10 µs for each."""
MAX_DEPTH: Final = 100
_EXPONENT: Final = 1e21
"""From here on Go's JSON has numbers with an exponent."""

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX: Final = "tag:yaml.org,2002:"
_CONSTANTS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER: Final = re.compile(
    "([+-]?)(?:0[xX]([0-9a-fA-F]{1,64})|0[bB]([01]{1,64})|0[oO]?([0-7]{1,64})|([1-9][0-9]{0,63}|0))"
)
_BASES: Final = (16, 2, 8, 10)
_STRAY_UNDERSCORE: Final = re.compile("(?<![0-9])_|_(?![0-9])")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class _Scalar(Struct, frozen=True):
    text: str
    tag: str
    """`int` for `!!int`; empty where none is given."""
    quoted: bool

    @property
    def merges(self) -> bool:
        """Whether it is the key `<<`."""
        return self.text == "<<" and (self.tag == "merge" or (not self.tag and not self.quoted))


class _Sequence(Struct, eq=False):
    elements: "list[_Node]"


class _Mapping(Struct, eq=False):
    pairs: "list[tuple[_Node, _Node]]"


class _Alias(Struct, eq=False):
    name: str
    target: "_Node"


_Node: TypeAlias = _Scalar | _Sequence | _Mapping | _Alias


def load(text: str, *, as_json: bool) -> Json:
    """The first document of a stream of which all must be YAML. Raises BuiltinError, or LimitError.

    `as_json` has numbers pass through Go's JSON, which rounds large whole ones to the digits that tell them apart.
    """
    raw = text.encode()
    if len(raw) > MAX_TEXT:
        raise LimitError(f"YAML of {len(raw)} bytes is too large for a built-in; the limit is {MAX_TEXT}")
    try:
        documents = list(_Composer(yaml.parse(raw, Loader=_LOADER)).documents())
    except yaml.YAMLError as problem:
        raise BuiltinError(f"not YAML: {problem}") from None
    return _Decoder(as_json=as_json).value(documents[0]) if documents else None


def resolved(text: str) -> Json:
    """What an unquoted scalar without a tag means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    first = text[0]
    if first == ".":
        # Here underscores must be between digits.
        return text if _STRAY_UNDERSCORE.search(text) else _float(text, text.replace("_", ""))
    if first not in "+-0123456789":
        return text
    digits = text.replace("_", "")
    match = _INTEGER.fullmatch(digits)
    if match is not None:
        found = next(group for group in range(2, 6) if match[group] is not None)
        number = int(match[found], _BASES[found - 2]) * (-1 if match[1] == "-" else 1)
        if -(1 << 63) <= number < 1 << (63 if match[1] else 64):
            return number
    return _float(text, digits)


def _float(text: str, digits: str) -> float | str:
    if not _FLOAT.fullmatch(digits):
        return text
    value = float(digits)
    return text if math.isinf(value) else value


class _Composer:
    """Makes trees of libyaml's events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}
        self._left = MAX_VALUES

    def documents(self) -> Iterator[_Node]:
        """Each document of the stream."""
        for event in self._events:
            if type(event) is yaml.DocumentStartEvent:
                self._anchors = {}
                yield self._node(next(self._events), 0)

    def _node(self, event: Any, depth: int) -> _Node:
        self._left -= 1
        if self._left < 0:
            raise LimitError(f"YAML of more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise LimitError(f"YAML is nested more than {MAX_DEPTH} deep")
        kind = type(event)
        if kind is yaml.AliasEvent:
            if event.anchor not in self._anchors:
                raise BuiltinError("YAML with an alias of nothing")
            return _Alias(event.anchor, self._anchors[event.anchor])
        if kind is yaml.ScalarEvent:
            tag = "" if event.tag in (None, "!") else event.tag.removeprefix(_PREFIX)
            scalar = _Scalar(event.value, tag, event.style not in (None, ""))
            self._name(event, scalar)
            return scalar
        if kind is yaml.SequenceStartEvent:
            sequence = _Sequence([])
            self._name(event, sequence)
            while type(event := next(self._events)) is not yaml.SequenceEndEvent:
                sequence.elements.append(self._node(event, depth + 1))
            return sequence
        mapping = _Mapping([])
        self._name(event, mapping)
        while type(event := next(self._events)) is not yaml.MappingEndEvent:
            key = self._node(event, depth + 1)
            mapping.pairs.append((key, self._node(next(self._events), depth + 1)))
        return mapping

    def _name(self, event: Any, node: _Node) -> None:
        # Before what is in it is read: what refers to itself is found out when it is decoded.
        if event.anchor is not None:
            self._anchors[event.anchor] = node


class _Decoder:
    """Makes values of trees; counts them."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._left = MAX_VALUES
        self._open: set[int] = set()
        """The aliases that are being decoded, by the identity of their targets."""

    def value(self, node: _Node) -> Json:
        self._left -= 1
        if self._left < 0:
            raise LimitError(f"YAML of more than {MAX_VALUES} values, with all aliases replaced")
        if type(node) is _Scalar:
            value = _scalar(node)
            if type(value) is float and not math.isfinite(value):
                raise BuiltinError("YAML with a number that JSON does not have")
            if self._as_json and type(value) is float and abs(value) < _EXPONENT and value.is_integer():
                return int(Decimal(repr(value)))
            return value
        if type(node) is _Sequence:
            return [self.value(element) for element in node.elements]
        if type(node) is _Mapping:
            return self._mapping(node)
        return self._aliased(node)

    def _aliased(self, node: Any) -> Json:
        target = id(node.target)
        if target in self._open:
            raise BuiltinError("YAML with an anchor that contains itself")
        self._open.add(target)
        value = self.value(node.target)
        self._open.remove(target)
        return value

    def _mapping(self, node: _Mapping) -> dict[str, Json]:
        values: dict[str, Json] = {}
        merged: list[_Node] = []
        aliases: set[str] = set()
        for key, below in node.pairs:
            if type(key) is _Scalar and key.merges:
                merged += below.elements if type(below) is _Sequence else [below]
                continue
            if type(key) is _Alias:
                if key.name in aliases:
                    raise BuiltinError("YAML with an alias twice as a key")
                aliases.add(key.name)
            name = _key(_scalar(key) if type(key) is _Scalar else self.value(key))
            values[name] = self.value(below)
        for source in merged:
            mapping = source.target if type(source) is _Alias else source
            if type(mapping) is not _Mapping:
                raise BuiltinError("YAML that merges what is no mapping")
            for name, value in self.value(source).items():
                values.setdefault(name, value)
        return values


def _scalar(node: _Scalar) -> Json:
    tag = node.tag
    if tag == "str" or (not tag and node.quoted):
        return node.text
    if tag == "binary":
        return go_string(decode(node.text))
    if tag == "timestamp":
        raise LimitError("YAML with an explicit !!timestamp")
    if tag and tag not in ("bool", "float", "int", "null"):
        return node.text
    value = node.text if node.merges else resolved(node.text)
    kind = {bool: "bool", float: "float", int: "int", str: "str"}.get(type(value), "null")
    if tag == "float" and kind == "int":
        return float(value)
    if tag not in ("", kind):
        raise BuiltinError(f"YAML with a !!{tag} that is none")
    return value


def _key(value: Json) -> str:
    """The key of a JSON object that a value becomes; a float keeps 32 bits."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    if type(value) is not float:
        raise BuiltinError("YAML with a key that is no string, number or boolean")
    if math.isnan(value):
        return ".nan"
    try:
        (value,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        value = math.copysign(math.inf, value)
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    texts = [f"{value:.{digits}e}" for digits in range(9)]
    return float_text(
        float(next(text for text in texts if struct.pack("f", float(text)) == struct.pack("f", value))), "g", None
    )
