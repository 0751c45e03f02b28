"""How a value of each type is read from a file or from text, shown again, and described in a JSON schema."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from sark_pdp.addresses import Address, TcpAddress, parse_address, parse_tcp
from sark_pdp.model import Seconds
from sark_pdp.settings.audit import MASK_PATH_EXPECTED, MaskPath
from sark_pdp.settings.schema import FileMode
from sark_pdp.settings.units import (
    DURATION_EXPECTED,
    RATIO_EXPECTED,
    SIZE_EXPECTED,
    Bytes,
    Ratio,
    format_duration,
    format_size,
    parse_duration,
    parse_ratio,
    parse_size,
)

Schema: TypeAlias = dict[str, Any]


class UnusableValueError(Exception):
    """A value that a kind cannot read: what is wrong with it, what is expected, and where in it when it is a list."""

    def __init__(self, value: Any, problem: str, expected: str, at: str = "") -> None:
        super().__init__(problem)
        self.value, self.problem, self.expected, self.at = value, problem, expected, at


class Kind(Struct, frozen=True):
    """What one type of setting does."""

    expected: str
    """What a person has to write, as the end of a sentence."""
    schema: Schema
    """JSON schema of what a file may hold."""
    read: Callable[[Any], Any]
    """From what YAML gave; raises UnusableValueError."""
    read_text: Callable[[str], Any]
    """From the environment or a flag; raises UnusableValueError."""
    show: Callable[[Any], Any]
    """As JSON that `read` takes back."""


def kind_of(annotation: Any) -> Kind:
    """The kind of a field; TypeError for a type that no setting has."""
    if get_origin(annotation) is Annotated:
        base, *notes = get_args(annotation)
        metas = [note for note in notes if isinstance(note, Meta)]
        return _limited(kind_of(base), metas[0]) if metas else kind_of(base)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]()
    if get_origin(annotation) is Literal:
        return _choice(get_args(annotation))
    if get_origin(annotation) is tuple:
        return _list(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType} and NoneType in get_args(annotation):
        return _optional(kind_of(get_args(annotation)[0]))
    raise TypeError(f"no setting can have the type {annotation!r}")


def _parsed(parse: Callable[[str], Any], expected: str, schema: Schema, show: Callable[[Any], Any] = str) -> Kind:
    """A kind that is written as a string; `parse` raises ValueError with what is wrong."""

    def read(raw: Any) -> Any:
        # A bare number means what its digits mean as text: 0 is a duration, 660 is a mode.
        if type(raw) is not str and not (type(raw) is int and "integer" in schema["type"]):
            raise UnusableValueError(raw, "is of the wrong type", expected)
        try:
            return parse(str(raw))
        except ValueError as error:
            raise UnusableValueError(raw, str(error), expected) from None

    return Kind(expected, schema, read, read, show)


def _text() -> Kind:
    def parse(text: str) -> str:
        if not text or "\0" in text:
            raise ValueError("is empty" if not text else "has a NUL in it")
        return text

    return _parsed(parse, "a text", {"type": ["string"], "minLength": 1})


def _path() -> Kind:
    def parse(text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError("is no path")
        return Path(text).absolute()

    return _parsed(parse, "a path", {"type": ["string"], "minLength": 1})


def _integer() -> Kind:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError("is not a whole number")
        return int(text)

    kind = _parsed(parse, "a whole number", {"type": ["integer"]}, int)

    def read(raw: Any) -> Any:
        if type(raw) is not int:
            raise UnusableValueError(raw, "is not a whole number", kind.expected)
        return kind.read(raw)

    return msgspec.structs.replace(kind, read=read)


def _ratio() -> Kind:
    kind = _parsed(parse_ratio, RATIO_EXPECTED, {"type": ["number"]}, float)

    def read(raw: Any) -> Any:
        if type(raw) not in {int, float}:
            raise UnusableValueError(raw, "is not a number", kind.expected)
        return kind.read(str(raw))

    return msgspec.structs.replace(kind, read=read)


def _boolean() -> Kind:
    expected = "true or false"

    def read(raw: Any) -> Any:
        if type(raw) is not bool:
            raise UnusableValueError(raw, "is neither true nor false", expected)
        return raw

    def read_text(text: str) -> Any:
        return read({"true": True, "false": False}.get(text, text))

    return Kind(expected, {"type": ["boolean"]}, read, read_text, bool)


def _choice(choices: tuple[str, ...]) -> Kind:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("is not one of its values")
        return text

    return _parsed(parse, " or ".join(choices), {"type": ["string"], "enum": list(choices)})


def _mode() -> Kind:
    def parse(text: str) -> FileMode:
        if not re.fullmatch(r"0?[0-7]{3}", text):
            raise ValueError("is not a file mode")
        return FileMode(int(text, 8))

    return _parsed(parse, "three octal digits, as in 0660", {"type": ["string", "integer"]}, lambda mode: f"{mode:04o}")


_SIMPLE: Mapping[Any, Callable[[], Kind]] = {
    str: _text,
    Path: _path,
    int: _integer,
    Ratio: _ratio,
    bool: _boolean,
    MaskPath: lambda: _parsed(MaskPath.parse, MASK_PATH_EXPECTED, {"type": ["string"], "minLength": 1}),
    FileMode: _mode,
    Seconds: lambda: _parsed(parse_duration, DURATION_EXPECTED, {"type": ["string", "integer"]}, format_duration),
    Bytes: lambda: _parsed(parse_size, SIZE_EXPECTED, {"type": ["string", "integer"]}, format_size),
    TcpAddress: lambda: _parsed(parse_tcp, "host:port or [v6]:port", {"type": ["string"]}),
    Address: lambda: _parsed(parse_address, "host:port, [v6]:port or unix:///path", {"type": ["string"]}),
}


def _optional(inner: Kind) -> Kind:
    """Null, or an empty text, stands for none."""
    return Kind(
        expected=inner.expected,
        schema=inner.schema | {"type": [*inner.schema["type"], "null"]},
        read=lambda raw: None if raw is None or raw == "" else inner.read(raw),
        read_text=lambda text: inner.read_text(text) if text else None,
        show=lambda value: None if value is None else inner.show(value),
    )


def _limited(inner: Kind, meta: Meta) -> Kind:
    """Adds the limits of a number."""
    limits = {"at least": meta.ge, "more than": meta.gt, "at most": meta.le}
    bounds = " and ".join(f"{word} {inner.show(limit)}" for word, limit in limits.items() if limit is not None)
    if not bounds:
        return inner
    expected = f"{inner.expected}, {bounds}"
    schema = inner.schema
    if schema["type"] in (["integer"], ["number"]):
        schema = schema | {
            word: limit for word, limit in (("minimum", meta.ge), ("maximum", meta.le)) if limit is not None
        }

    def check(raw: Any, value: Any) -> Any:
        if value is not None and (
            (meta.ge is not None and value < meta.ge)
            or (meta.gt is not None and value <= meta.gt)
            or (meta.le is not None and value > meta.le)
        ):
            raise UnusableValueError(raw, "is out of range", expected)
        return value

    return msgspec.structs.replace(
        inner,
        expected=expected,
        schema=schema,
        read=lambda raw: check(raw, inner.read(raw)),
        read_text=lambda text: check(text, inner.read_text(text)),
    )


def _list(element: Any) -> Kind:
    """A list; where its elements are addresses, one alone stands for a list of one."""
    if isinstance(element, type) and issubclass(element, Struct):
        inner, single = _record(element), False
    else:
        inner, single = kind_of(element), element == Address
    expected = f"{inner.expected}, or a list of them" if single else f"a list, each element {inner.expected}"

    def read(raw: Any) -> Any:
        if single and type(raw) is str:
            raw = [raw]
        if type(raw) is not list:
            raise UnusableValueError(raw, "is not a list", expected)
        return tuple(_element(inner, index, item) for index, item in enumerate(raw))

    def read_text(text: str) -> Any:
        # An IPv6 address begins with a bracket too, but is not JSON.
        try:
            return read(msgspec.json.decode(text))
        except msgspec.DecodeError:
            return read(text)

    array: Schema = {"type": ["array"], "items": inner.schema}
    schema = array | {"type": ["array", "string"]} if single else array
    return Kind(expected, schema, read, read_text, lambda values: [inner.show(value) for value in values])


def _element(inner: Kind, index: int, item: Any) -> Any:
    try:
        return inner.read(item)
    except UnusableValueError as error:
        raise UnusableValueError(error.value, error.problem, error.expected, f"[{index}]{error.at}") from None


def _record(struct: type[Struct]) -> Kind:
    """A mapping with the fields of `struct`; one that has its default may be left out, and is not shown."""
    fields = {name: kind_of(hint) for name, hint in get_type_hints(struct, include_extras=True).items()}
    defaults = {field.name: field.default for field in msgspec.structs.fields(struct) if not field.required}
    required = [name for name in fields if name not in defaults]
    expected = "a mapping with " + " and ".join(required) + (f", and maybe {', '.join(defaults)}" if defaults else "")

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise UnusableValueError(raw, "is not a mapping", expected)
        odd = ", ".join(str(name) for name in raw if name not in fields)
        if odd or not set(raw).issuperset(required):
            raise UnusableValueError(raw, f"has the unknown {odd}" if odd else "is incomplete", expected)
        return struct(**{name: _member(fields[name], name, value) for name, value in raw.items()})

    def show(value: Struct) -> Any:
        given = {name: getattr(value, name) for name in fields}
        return {
            name: fields[name].show(each) for name, each in given.items() if name in required or each != defaults[name]
        }

    schema = {
        "type": ["object"],
        "properties": {name: kind.schema for name, kind in fields.items()},
        "required": required,
        "additionalProperties": False,
    }
    return Kind(
        expected,
        schema,
        read,
        read_text=read,
        show=show,
    )


def _member(kind: Kind, name: str, raw: Any) -> Any:
    try:
        return kind.read(raw)
    except UnusableValueError as error:
        raise UnusableValueError(error.value, error.problem, error.expected, f".{name}{error.at}") from None
