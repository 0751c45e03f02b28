"""What is said to Redis of generations: keys, commands and messages."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, TypeAlias

import msgspec

from sark_pdp.cache.generations import GENERATION_BYTES, new_generation
from sark_pdp.errors import SarkError

Command: TypeAlias = tuple[bytes | str | int, ...]

_LIFETIME_MS: Final = 24 * 60 * 60 * 1000
"""Of a generation in Redis: longer than anything lives that is kept under one. A lost one is only a new one."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class InvalidationError(SarkError):
    """A message on the channel of invalidations is none."""


class Commands:
    """Commands for keys and the channel below one prefix."""

    def __init__(self, prefix: str) -> None:
        self.channel = f"{prefix}:invalidations".encode()
        """What invalidations are published on: a list of subjects in MessagePack."""
        self._key_prefix = f"{prefix}:generation:"

    def make(self, subjects: Iterable[str]) -> list[Command]:
        """Gives each a generation where there is none."""
        return [self._set(subject, "NX") for subject in subjects]

    def read(self, subjects: Iterable[str]) -> Command:
        """Asks for the generation of each."""
        return ("MGET", *map(self._key, subjects))

    def tell(self, subjects: Iterable[str]) -> list[Command]:
        """Gives each a new generation, and lets everybody hear of it.

        Several may tell of the same invalidation, the last one late: each makes a generation that never was.
        """
        subjects = tuple(subjects)
        return [*map(self._set, subjects), ("PUBLISH", self.channel, _encode([*map(_bytes_of, subjects)]))]

    def _set(self, subject: str, *condition: str) -> Command:
        return ("SET", self._key(subject), new_generation(), *condition, "PX", _LIFETIME_MS)

    def _key(self, subject: str) -> bytes:
        return _bytes_of(self._key_prefix + subject)


def _bytes_of(text: str) -> bytes:
    # A document may hold half of a surrogate pair.
    return text.encode("utf-8", "surrogatepass")


def subjects_in(message: bytes) -> list[str]:
    """Those that a message tells of. Raises InvalidationError for anything else."""
    try:
        return [each.decode("utf-8", "surrogatepass") for each in _decode(message)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidationError("the message is no list of subjects") from error


def mixed(stored: bytes, run_id: bytes) -> bytes:
    """What Redis stores of a generation, and which run of it: 16 bytes, whatever somebody may have put there."""
    return blake2b(stored, digest_size=GENERATION_BYTES, key=run_id[:64]).digest()
