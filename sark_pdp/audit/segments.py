"""The form in which the events of a segment are stored: MessagePack, [[chain, payload], ...], as one LZ4 block.

Events resemble each other: a quarter to a tenth of them is left. To pack them takes less processor time than SQLite and
the file system would take for the rest, and a spool of the same size lasts that much longer.
"""

from typing import Final

import msgspec
from lz4.block import LZ4BlockError, compress, decompress

from sark_pdp.audit.source import Sealed

_SIZE_BYTES: Final = 4
"""The block begins with the size of what is in it, little-endian."""
_DENSEST: Final = 255
"""No block holds more than so many times its own size: a larger claim is none of LZ4's."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Sealed]).decode


def pack(events: list[Sealed]) -> bytes:
    """The bytes to store; most of the work is done while other threads run."""
    packed: bytes = compress(_encode(events))
    return packed


def unpack(blob: bytes) -> list[Sealed] | None:
    """The events; None where the bytes are not what `pack` makes."""
    if int.from_bytes(blob[:_SIZE_BYTES], "little") > _DENSEST * len(blob):
        return None
    try:
        return _decode(decompress(blob))
    except (LZ4BlockError, msgspec.MsgspecError, ValueError, MemoryError):
        # There may be no memory for what a block claims: no writer needs so much for a segment.
        return None
