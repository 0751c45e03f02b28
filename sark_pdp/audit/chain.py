"""The chain that makes a change to the trail visible.

Each value is HMAC-SHA256 with the key, or BLAKE2b-256 without, over the previous value (32 zero bytes at first) and the
payload.
"""

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sark_pdp.errors import StartError

FIRST: Final = bytes(32)
"""What the first event of a source is chained to."""

Link = Callable[[bytes, bytes], bytes]
"""Makes the chain value, 32 bytes, of a payload from the previous value and the payload."""

KEYED: Final = "hmac-sha256"
KEYLESS: Final = "blake2b-256"
_SHORTEST_KEY = 16


def algorithm_of(key: bytes | None) -> str:
    """The name of the chain that is made with this key."""
    return KEYLESS if key is None else KEYED


def link(key: bytes | None) -> Link:
    """The function that makes the chain with this key, or without one."""
    if key is None:
        return _keyless
    # A copy of a prepared object costs half of what a new one does.
    prepared = hmac.new(key, digestmod="sha256")

    def keyed(previous: bytes, payload: bytes) -> bytes:
        mac = prepared.copy()
        mac.update(previous + payload)
        return mac.digest()

    return keyed


def _keyless(previous: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(previous + payload, digest_size=32).digest()


def read_key(path: Path, kind: str = "chain") -> bytes:
    """The key in a file: its bytes without a line end; raises StartError for an unreadable or a short one.

    `kind` is what the error calls it.
    """
    try:
        key = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise StartError(f"The {kind} key file {path} cannot be read: {error.strerror}") from error
    if len(key) < _SHORTEST_KEY:
        raise StartError(
            f"The {kind} key file {path} holds {len(key)} bytes; at least {_SHORTEST_KEY} are needed, as in"
            f" `openssl rand -hex 32 > {path}`"
        )
    return key
