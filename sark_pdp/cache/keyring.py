"""The keys that values in Redis are signed with: the first of a file signs, all of them verify, so that keys rotate.

A MAC is keyed BLAKE2b of 32 bytes.
"""

import hmac
import logging
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from sark_pdp.errors import StartError

MAC_BYTES: Final = 32

_SHORTEST: Final = 16
_MOST_KEYS: Final = 8
_LARGEST_FILE: Final = 16 * 1024

_log = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """What of a file changes when it does; a mounted secret is replaced as a whole."""

    inode: int
    modified_ns: int
    size: int


class Keyring:
    """The keys of one file. Any thread signs; one thread calls `refresh`, which replaces `_keys` in one assignment."""

    def __init__(self, file: Path) -> None:
        """Raises StartError, one line, for a file that holds no usable keys."""
        self._file = file
        self._seen = _seen(file)
        self._keys = _read(file)

    def mac(self, message: bytes) -> bytes:
        """With the first key."""
        return blake2b(message, digest_size=MAC_BYTES, key=self._keys[0]).digest()

    def verifies(self, message: bytes, mac: bytes) -> bool:
        """Whether one of the keys made this MAC of it."""
        for key in self._keys:
            if hmac.compare_digest(blake2b(message, digest_size=MAC_BYTES, key=key).digest(), mac):
                return True
        return False

    def refresh(self) -> None:
        """Reads the file again where it changed; one that is of no use leaves the keys as they are, and is logged."""
        try:
            seen = _seen(self._file)
            if seen == self._seen:
                return
            self._seen = seen
            self._keys = _read(self._file)
        except StartError as error:
            _log.warning("the keys stay as they were", extra={"reason": str(error)})
        else:
            _log.info("the keys of the cache were read again", extra={"keys": len(self._keys)})


def _seen(file: Path) -> _Seen | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Seen(status.st_ino, status.st_mtime_ns, status.st_size)


def _read(file: Path) -> Sequence[bytes]:
    setting = f"cache.l2.mac_key_file: {file}"
    try:
        with file.open("rb") as opened:
            text = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise StartError(f"{setting} cannot be read: {error.strerror}") from error
    if len(text) > _LARGEST_FILE:
        raise StartError(f"{setting} is longer than {_LARGEST_FILE // 1024} KiB; expected a few keys")
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line]
    if not keys or len(keys) > _MOST_KEYS:
        raise StartError(f"{setting} holds {len(keys)} keys; expected 1 to {_MOST_KEYS}, one on each line")
    if min(map(len, keys)) < _SHORTEST:
        raise StartError(
            f"{setting} holds a key of less than {_SHORTEST} bytes; make one with `openssl rand -hex 32 > {file}`"
        )
    # BLAKE2b takes keys of up to 64 bytes.
    return tuple(blake2b(key).digest() for key in keys)
