"""What a notification of the registry's triggers says, as subjects to invalidate.

A payload is `{"kind": "user" or "server", "changed": [ID, …]}`, `{"kind": "tool", "changed": [[ID, SERVER, NAME], …]}`,
or `{"kind": …, "all": true}` where more changed than is told row by row. Anybody who may connect to the database can
notify: at worst, everything is read anew.
"""

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from sark_pdp.cache.subjects import ATTRIBUTES, Subject, of_named_tool, server, tool, user

_Entry: TypeAlias = str | tuple[str, str, str]


class _Payload(Struct, forbid_unknown_fields=True):
    kind: Literal["user", "server", "tool"]
    changed: list[_Entry] | None = None
    all: bool = False


class Change(Struct, frozen=True):
    """One notification."""

    kind: str
    """`user`, `server` or `tool`; `unknown` where it could not be read."""
    subjects: tuple[Subject, ...]


_decode: Final = msgspec.json.Decoder(_Payload).decode


def change_of(payload: str) -> Change:
    """Never fails: what cannot be read may have told of anything."""
    try:
        told = _decode(payload)
        subjects = (ATTRIBUTES,) if told.all else tuple(dict.fromkeys(_subjects(told.kind, told.changed)))
    except (ValueError, msgspec.DecodeError):
        return Change("unknown", (ATTRIBUTES,))
    return Change(told.kind, subjects)


def _subjects(kind: str, changed: list[_Entry] | None) -> Iterator[Subject]:
    """Raises ValueError for what no trigger sends."""
    if changed is None:
        raise ValueError("nothing changed")
    for entry in changed:
        match kind, entry:
            case "user", str(id_):
                yield user(id_)
            case "server", str(id_):
                yield server(id_)
            case "tool", (id_, server_id, name):
                yield tool(id_)
                yield from of_named_tool(server_id, name)
            case _:
                raise ValueError("no such change")
