"""The key of a decision: a digest of all that shaped it, and of nothing else.

SHA-256 over the entrypoint's fingerprint (key version, module, data, settings, name) and the projected input in
MessagePack, which is typed and length-prefixed: 1, 1.0, true, "1", null and absent all differ, and no two inputs have
the same encoding. Objects are written in the order of their keys.
"""

from hashlib import sha256
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from sark_pdp.model import Document

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_BIG_INTEGER = 1


def key_of(fingerprint: bytes, projected: Document) -> bytes:
    """32 bytes; `projected` is what the policy reads of the input."""
    try:
        encoded = _encode(projected)
    except OverflowError:
        encoded = _encode(_with_big_integers_as_text(projected))
    return sha256(fingerprint + encoded).digest()


def _with_big_integers_as_text(value: Any) -> Any:
    """MessagePack has no integers beyond 64 bits."""
    if type(value) is int and not -(1 << 63) <= value < (1 << 64):
        return Ext(_BIG_INTEGER, str(value).encode())
    if type(value) is list:
        return [_with_big_integers_as_text(item) for item in value]
    if type(value) is dict:
        return {key: _with_big_integers_as_text(item) for key, item in value.items()}
    return value
