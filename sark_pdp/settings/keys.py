"""The settings as a flat table: one row per dotted key."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from sark_pdp.settings.kinds import Kind, kind_of
from sark_pdp.settings.schema import Settings

S = TypeVar("S", bound=Struct)


class Key(Struct, frozen=True):
    """One setting."""

    name: str
    """As in `cache.l1.size`."""
    kind: Kind
    description: str
    default: Any
    """None too where it is derived: then `derived` says in words what it is."""
    derived: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.name)


def variable_of(name: str) -> str:
    """`SARK_PDP_CACHE__L1__SIZE` for `cache.l1.size`."""
    return "SARK_PDP_" + name.upper().replace(".", "__")


def all_keys(schema: type[Struct] = Settings) -> Mapping[str, Key]:
    """Every key of a process by its name, in the order of their definition."""
    return {key.name: key for key in _keys(schema, "")}


def build(schema: type[S], values: Mapping[str, Any]) -> S:
    """The settings from a value for every key."""
    built: S = _build(schema, "", values)
    return built


def _keys(struct: type[Struct], prefix: str) -> Iterator[Key]:
    for name, (hint, default) in _fields(struct).items():
        if _is_section(hint):
            yield from _keys(hint, f"{prefix}{name}.")
            continue
        meta = next(note for note in get_args(hint) if isinstance(note, Meta))
        yield Key(
            name=prefix + name,
            kind=kind_of(hint),
            description=meta.description or "",
            default=default,
            derived=(meta.extra or {}).get("default", ""),
        )


def _build(struct: type[Struct], prefix: str, values: Mapping[str, Any]) -> Any:
    return struct(
        **{
            name: _build(hint, f"{prefix}{name}.", values) if _is_section(hint) else values[prefix + name]
            for name, (hint, _) in _fields(struct).items()
        }
    )


def _fields(struct: type[Struct]) -> dict[str, tuple[Any, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    return {
        field.name: (hints[field.name], None if field.required else field.default)
        for field in msgspec.structs.fields(struct)
    }


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)
