"""Bodies of `multipart/form-data`, taken apart by python-multipart, which is imported with the first of them.

Where readers of such bodies differ the body is refused, as the server behind Envoy may read it in another way: lines
that end in LF alone, a preamble, folded headers, parameters that come twice, an encoded name, a line within a part that
begins as a boundary does, no closing boundary or text after it on its line.
"""

import logging
import re
from binascii import a2b_qp
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sark_pdp.errors import InvalidRequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = re.compile(rf'[ \t]*;[ \t]*({_WORD})[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)")')
_END: Final = re.compile(r"[ \t]*;?[ \t]*")

# RFC 2045: a backslash before anything else is itself, as in the paths that some browsers send.
_ESCAPED: Final = re.compile(r'\\([()<>@,;:\\"/\[\]?=])')


class Part(Struct, frozen=True):
    """One field of a form."""

    name: str
    content_type: str
    """Empty where it has none."""
    content: bytes


def parts_of(content_type: str, content: bytes, most: int) -> list[Part] | None:
    """Those parts that have a name, in order; None where `content_type` states no boundary.

    Raises InvalidRequestError where the body is malformed, or has more than `most` parts.
    """
    _, separator, rest = content_type.partition(";")
    stated = _parameters(separator + rest)
    if "boundary" not in stated:
        return None
    boundary = stated["boundary"].encode()
    if not boundary or not content.startswith(b"--" + boundary):
        raise _malformed()
    if content.count(b"--" + boundary) > most + 1:
        raise InvalidRequestError("parsed_body", "the body has more values than limits.max_values allows")
    return [part for headers, body in _split(boundary, content) if (part := _part(headers, body)) is not None]


class _Collector:
    """What the parser calls back."""

    def __init__(self) -> None:
        self.parts: list[tuple[list[tuple[bytes, bytes]], bytearray]] = []
        self.ended = False
        self._name = bytearray()
        self._value = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_content,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self.parts.append(([], bytearray()))

    def _begin_header(self) -> None:
        self._name, self._value = bytearray(), bytearray()

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self.parts[-1][0].append((bytes(self._name).lower(), bytes(self._value)))

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].extend(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _split(boundary: bytes, content: bytes) -> list[tuple[list[tuple[bytes, bytes]], bytes]]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    # It logs what strangers send.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    collector = _Collector()
    try:
        MultipartParser(boundary, collector.callbacks()).write(content)
    except FormParserError:
        raise _malformed() from None
    _, _, epilogue = (b"\r\n" + content).partition(b"\r\n--" + boundary + b"--")
    if not collector.ended or (epilogue and not epilogue.lstrip(b" \t").startswith(b"\r\n")):
        raise _malformed()
    for _, body in collector.parts:
        if body.startswith(b"--" + boundary) or b"\n--" + boundary in body:
            raise _malformed()
    return [(headers, bytes(body)) for headers, body in collector.parts]


def _part(headers: list[tuple[bytes, bytes]], body: bytes) -> Part | None:
    """None where it is no field of a form, or has no name."""
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in found:
            raise _malformed()
        found[name] = value.decode(errors="replace").strip(" \t")
    kind, separator, rest = found.get(b"content-disposition", "").partition(";")
    if kind.strip(" \t").lower() != "form-data":
        return None
    stated = _parameters(separator + rest)
    if any(name.startswith("name*") for name in stated):
        raise _malformed()
    if not stated.get("name"):
        return None
    if found.get(b"content-transfer-encoding", "").lower() == "quoted-printable":
        body = a2b_qp(body)
    return Part(stated["name"], found.get(b"content-type", ""), body)


def _parameters(text: str) -> dict[str, str]:
    """Of `; a=b; c="d"`, by lower-case name."""
    stated: dict[str, str] = {}
    position = 0
    while found := _PARAMETER.match(text, position):
        name, token, quoted = found.groups()
        if name.lower() in stated:
            raise _malformed()
        stated[name.lower()] = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = found.end()
    if not _END.fullmatch(text, position):
        raise _malformed()
    return stated


def _malformed() -> InvalidRequestError:
    return InvalidRequestError(
        "parsed_body", "the body is not well-formed multipart/form-data, which its content-type says it is"
    )
