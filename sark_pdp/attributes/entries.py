"""What is kept of one row of the registry: its fields or why there are none, how old it is, what it counts on."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from sark_pdp.attributes.names import NAMED_SERVER, SERVER, USER
from sark_pdp.interfaces import RowKey
from sark_pdp.model import Document, Seconds

_UNKNOWN: Final = "is not in the registry"
_AMBIGUOUS: Final = "is in the registry more than once"
_INACTIVE: Final = "is not active"


class Told(Struct, frozen=True, array_like=True):
    """What the registry tells of a key; one of the two."""

    fields: Document | None
    """Of the section of a document."""
    refusal: str = ""
    """The reason of the denial where there is no such row, or none that counts."""


class Entry(Struct, frozen=True):
    """The same with its lifetime; both points are on `time.monotonic()`."""

    told: Told
    as_of: float
    """When its reading began."""
    expires: float
    subjects: tuple[str, ...]
    generations: Sequence[bytes]
    """Of the subjects, from before it was read: with others it is as if it were not there."""


class EntryStore(Protocol):
    """Keeps entries in memory; may forget any of them at any time. Thread-safe."""

    def get(self, key: RowKey) -> Entry | None:
        """What was put under this key, whatever its lifetime."""

    def put(self, key: RowKey, entry: Entry) -> None:
        """Replaces what was there."""

    @property
    def capacity(self) -> int:
        """Entries that it holds at most."""

    def __len__(self) -> int:
        """Entries that it holds now."""


class Shared(Struct, frozen=True):
    """What processes share of an entry; both points are seconds since the epoch."""

    payload: bytes
    as_of: float
    expires: float


class SharedStore(Protocol):
    """Keeps entries where other processes find them, for as long as it likes; nothing that it returns was forged."""

    @property
    def run_id(self) -> bytes | None:
        """Of the server that it keeps them on; read before what an entry is made of."""

    def get_many(self, keys: Sequence[bytes], waited: Seconds) -> Sequence[Shared | None]:
        """In order; None for what is not there or cannot be had.

        May wait, at most `cache.l2.timeout` in all, of which the caller has spent `waited` on the generations.
        """

    def put_later(self, items: Sequence[tuple[bytes, Shared]], run_id: bytes | None) -> None:
        """Returns at once; what was read while another server kept the generations is not kept."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Told).decode


def told_of(key: RowKey, rows: Sequence[Document]) -> Told:
    """What rows of the registry mean for what was looked up by `key`."""
    what = "user" if key[0] == USER else "server" if key[0] in {SERVER, NAMED_SERVER} else "tool"
    if len(rows) != 1:
        return Told(None, f"the {what} {_AMBIGUOUS if rows else _UNKNOWN}")
    fields = rows[0]
    if "active" in fields:
        if fields["active"] is not True:
            return Told(None, f"the {what} {_INACTIVE}")
        fields = {**fields, "status": "active"}
    return Told(fields)


def to_payload(told: Told) -> bytes:
    """For a store that processes share."""
    return _encode(told)


def from_payload(payload: bytes) -> Told | None:
    """None for what another version wrote."""
    try:
        return _decode(payload)
    except msgspec.MsgspecError:
        return None
