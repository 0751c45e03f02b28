"""Path, query and JSON of an HTTP request, parsed as opa-envoy-plugin parses them."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Json
from sark_pdp.transport.bounds import has_more_values, is_deeper

_NO_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")

_decode_json: Final = msgspec.json.Decoder().decode


def path_and_query(target: str) -> tuple[list[str], dict[str, list[str]]]:
    """`/a/b?x=1&x=2` as `["a", "b"]` and `{"x": ["1", "2"]}`; all slashes in front count as one.

    By hand, as a URI parser takes `//admin/x` for a host named admin. The path is decoded before it is split, so that
    `%2F` separates too. Raises InvalidRequestError where either is not well-formed.
    """
    path, _, query = target.partition("?")
    return _unquote("parsed_path", path).lstrip("/").split("/"), pairs("parsed_query", query)


def pairs(field: str, encoded: str) -> dict[str, list[str]]:
    """`x=1&x=2` as `{"x": ["1", "2"]}`: a query, or the body of a form. Raises InvalidRequestError naming `field`."""
    values: dict[str, list[str]] = {}
    if not encoded:
        return values
    if ";" in encoded:
        # Some servers separate at it, others do not: what is decided on must be what is carried out.
        raise InvalidRequestError(field, "a semicolon must be percent-encoded")
    for pair in encoded.replace("+", " ").split("&"):
        if pair:
            key, _, value = pair.partition("=")
            values.setdefault(_unquote(field, key), []).append(_unquote(field, value))
    return values


def check_depth(field: str, value: Json, max_depth: int) -> None:
    """Raises InvalidRequestError where objects and arrays are nested deeper than `max_depth`; `{}` is 1 deep."""
    if is_deeper(value, max_depth):
        raise _too_deep(field)


def json_value(content: bytes, max_depth: int, max_values: int) -> Json:
    """A body of JSON. Raises InvalidRequestError where it is none, too deep, or has too many values."""
    if has_more_values(content, max_values):
        raise too_many_values()
    try:
        value = _decode_json(content)
    except RecursionError:
        raise _too_deep("parsed_body") from None
    except (msgspec.MsgspecError, ValueError):
        # What the parser says of it may quote the body.
        raise InvalidRequestError(
            "parsed_body", "the body is not valid JSON, which its content-type says it is"
        ) from None
    # No deeper than there are brackets: nearly always few enough that nothing has to be walked.
    if content.count(b"{") + content.count(b"[") > max_depth:
        check_depth("parsed_body", value, max_depth)
    return value


def too_many_values() -> InvalidRequestError:
    """For a body."""
    return InvalidRequestError("parsed_body", "the body has more values than limits.max_values allows")


def _too_deep(field: str) -> InvalidRequestError:
    return InvalidRequestError(field, "nested deeper than limits.max_depth allows")


def _unquote(field: str, text: str) -> str:
    if "%" not in text:
        return text
    if _NO_ESCAPE.search(text):
        raise InvalidRequestError(field, "a '%' must be followed by two hexadecimal digits")
    return unquote_to_bytes(text).decode(errors="replace")
