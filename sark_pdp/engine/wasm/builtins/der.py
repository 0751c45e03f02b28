"""DER, as strictly as Go's `cryptobyte` reads it: definite lengths, in as few bytes as they take."""

from datetime import UTC, datetime
from typing import Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18

ObjectId = list[int]


class Reader:
    """Reads one element after another."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._position < len(self._content)

    def peek(self) -> int:
        """The tag of the next element; 0 at the end."""
        return self._content[self._position] if self else 0

    def any(self) -> tuple[int, bytes, bytes]:
        """Tag, content, and the whole next element. Raises BuiltinError."""
        begin, content = self._position, self._content
        if len(content) - begin < 2 or content[begin] & 0x1F == 0x1F:
            raise _malformed()
        length, at = content[begin + 1], begin + 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(content[at : at + size])
            if not 1 <= size <= 4 or length < 0x80 or length >> (size - 1) * 8 == 0:
                raise _malformed()
            at += size
        end = at + length
        if end > len(content):
            raise _malformed()
        self._position = end
        return content[begin], content[at:end], content[begin:end]

    def content(self, tag: int) -> bytes:
        """The content of the next element, which must have this tag."""
        found, content, _ = self.any()
        if found != tag:
            raise _malformed()
        return content

    def element(self, tag: int) -> bytes:
        """The whole next element, which must have this tag."""
        found, _, whole = self.any()
        if found != tag:
            raise _malformed()
        return whole

    def inner(self, tag: int = SEQUENCE) -> "Reader":
        """A reader of what is in the next element."""
        return Reader(self.content(tag))

    def optional(self, tag: int) -> bytes | None:
        """The content of the next element if it has this tag."""
        return self.content(tag) if self.peek() == tag else None

    def integer(self, tag: int = INTEGER) -> int:
        """A number of any size."""
        content = self.content(tag)
        if not content or (len(content) > 1 and content[0] in (0, 0xFF) and content[0] >> 7 == content[1] >> 7):
            raise _malformed()
        return int.from_bytes(content, signed=True)

    def oid(self) -> ObjectId:
        """An object identifier."""
        return oid_of(self.content(OID))

    def bits(self) -> bytes:
        """A bit string, as a number of bits from the right where they fill no bytes."""
        unused, content = bit_string(self.content(BIT_STRING))
        return (int.from_bytes(content) >> unused).to_bytes(len(content))

    def time(self) -> datetime:
        """A time in UTC."""
        tag, content, _ = self.any()
        text = content.decode("latin-1")
        if tag == _UTC_TIME and len(text) in (11, 13) and text[:-1].isdecimal():
            text = ("19" if text >= "5" else "20") + text[:-1].ljust(12, "0") + "Z"
        elif tag != _GENERALIZED_TIME:
            raise _malformed()
        if len(text) != 15 or text[-1] != "Z" or not text[:-1].isdecimal():
            raise _malformed()
        try:
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise _malformed() from None


def oid_of(content: bytes) -> ObjectId:
    """The numbers of an object identifier."""
    numbers: ObjectId = []
    number = 0
    for at, byte in enumerate(content):
        if byte == 0x80 and (at == 0 or content[at - 1] < 0x80):
            raise _malformed()
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            if number > 0x7FFFFFFF:
                raise _malformed()
            numbers += [number] if numbers else [min(number // 40, 2), number - 40 * min(number // 40, 2)]
            number = 0
    if not numbers or content[-1] >= 0x80:
        raise _malformed()
    return numbers


def bit_string(content: bytes) -> tuple[int, bytes]:
    """How many bits at the end count nothing, and the bytes."""
    if not content or content[0] > 7 or (len(content) == 1 and content[0]) or content[-1] & (1 << content[0]) - 1:
        raise _malformed()
    return content[0], content[1:]


def _malformed() -> BuiltinError:
    return BuiltinError("not the DER that it should be")
