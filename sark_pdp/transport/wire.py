"""Single fields of protobuf messages as they are encoded.

Put behind an encoded message they become part of it, as protobuf's encoding promises
(https://protobuf.dev/programming-guides/encoding/#last-one-wins): what differs from answer to answer need not be built
together with what does not.
"""

from typing import Final

_VARINT: Final = 0
_LENGTH: Final = 2


def varint(number: int) -> bytes:
    """A number that is not negative."""
    if number < 0x80:
        return bytes((number,))
    # The length of most messages: a loop would take four times as long.
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def integer(field: int, value: int) -> bytes:
    """An integer that is not negative, or an enum."""
    return varint(field << 3 | _VARINT) + varint(value)


def tag(field: int) -> bytes:
    """What comes before the length of a string, bytes or a message."""
    return varint(field << 3 | _LENGTH)


def embedded(field: bytes, message: bytes) -> bytes:
    """An encoded message as a field of another one; `field` is its tag."""
    return b"".join((field, varint(len(message)), message))


def duration(seconds: float) -> bytes:
    """The content of a `google.protobuf.Duration` that is not negative."""
    whole, nanos = divmod(int(seconds * 1e9), 1_000_000_000)
    # Always five bytes for the nanoseconds, zeros in front included: a loop would take three times as long.
    return (b"\x08%b\x10" % varint(whole)) + bytes(
        (
            nanos & 0x7F | 0x80,
            nanos >> 7 & 0x7F | 0x80,
            nanos >> 14 & 0x7F | 0x80,
            nanos >> 21 & 0x7F | 0x80,
            nanos >> 28,
        )
    )
