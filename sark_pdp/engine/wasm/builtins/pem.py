"""PEM as Go's `encoding/pem` finds it: what is no block is skipped, and so is a block that is damaged."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gobase64 import decode

_BEGIN: Final = b"-----BEGIN "
_END: Final = b"\n-----END "
_DASHES: Final = b"-----"


class Block(NamedTuple):
    """One block; `end` is where in the text the next one may begin."""

    kind: str
    content: bytes
    end: int


def blocks(text: bytes) -> Iterator[Block]:
    """All blocks of the text."""
    block = next_block(text, 0)
    while block is not None:
        yield block
        block = next_block(text, block.end)


def next_block(text: bytes, start: int) -> Block | None:
    """The first block at or behind `start`."""
    while True:
        end = text.find(_END, start)
        if end < 0:
            return None
        begin = text.rfind(_BEGIN, start, end)
        behind = end + len(_END)
        if begin >= 0 and (begin == start or text[begin - 1] == 0x0A):
            kind, body = _line(text, begin + len(_BEGIN))
            if kind.endswith(_DASHES):
                kind = kind.removesuffix(_DASHES)
                body, has_headers = _behind_headers(text, body)
                if body > behind or body >= len(text):
                    return None
                if not (has_headers and body > end) and (block := _block(text, kind, body, end)):
                    return block
        start = behind


def _block(text: bytes, kind: bytes, body: int, end: int) -> Block | None:
    """The block between these two places, if its last line and its content are as they must be."""
    last, after = _line(text, end + len(_END))
    # The kind may be shorter than what stands here only by the spaces behind the dashes.
    if last != kind + _DASHES:
        return None
    content = text[body:end].replace(b" ", b"").replace(b"\t", b"") if body < end else b""
    try:
        return Block(kind.decode(errors="replace"), decode(content.decode("latin-1")), after)
    except BuiltinError:
        return None


def _behind_headers(text: bytes, position: int) -> tuple[int, bool]:
    has_headers = False
    while position < len(text):
        line, after = _line(text, position)
        if b":" not in line:
            break
        has_headers, position = True, after
    return position, has_headers


def _line(text: bytes, position: int) -> tuple[bytes, int]:
    """The line that begins here, without what is white at its end, and where the next one begins."""
    end = text.find(b"\n", position)
    if end < 0:
        return text[position:].rstrip(b" \t"), len(text)
    return text[position:end].removesuffix(b"\r").rstrip(b" \t"), end + 1
