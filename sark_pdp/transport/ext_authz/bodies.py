"""The body of an HTTP request as the value that it stands for, by its content type, as opa-envoy-plugin has it."""

from typing import Final, Protocol

from sark_pdp.model import Json
from sark_pdp.transport.bounds import has_more_values
from sark_pdp.transport.ext_authz.multipart import parts_of
from sark_pdp.transport.ext_authz.parsing import check_depth, json_value, pairs, path_and_query, too_many_values

_QUICK_BYTES: Final = 1024

_UNKNOWN: Final = (None, False)


class Messages(Protocol):
    """Knows what gRPC methods are called with."""

    def read(self, path: list[str], content: bytes) -> tuple[Json, bool]:
        """The message and whether it is truncated; None for one that is not known. Raises InvalidRequestError."""


class Bodies:
    """Parses JSON, forms of both kinds, and gRPC where its messages are known. Thread-safe."""

    def __init__(self, max_depth: int, max_values: int, messages: Messages | None = None) -> None:
        """A body may be `max_depth` deep and have `max_values` values."""
        self._max_depth = max_depth
        self._max_values = max_values
        self._messages = messages

    def parse(self, content_type: str, content: bytes, target: str) -> tuple[Json, bool]:
        """What it stands for, None where nobody can tell; and whether less came than the body itself says.

        `target` is the path of the request. Raises InvalidRequestError where the body is not of its type, too deep or
        has too many values.
        """
        media_type = content_type.lower()
        if "application/json" in media_type:
            return json_value(content, self._max_depth, self._max_values), False
        if "application/grpc" in media_type:
            return _UNKNOWN if self._messages is None else self._message(self._messages, target, content)
        if "application/x-www-form-urlencoded" in media_type:
            if content.count(b"&") >= self._max_values:
                raise too_many_values()
            return pairs("parsed_body", content.decode(errors="replace")), False
        if "multipart/form-data" in media_type:
            return self._form(content_type, content), False
        return _UNKNOWN

    def takes_long(self, content_type: str, content: bytes) -> bool:
        """Whether it takes longer than others may be kept waiting: what is not parsed by C alone."""
        if len(content) <= _QUICK_BYTES:
            return False
        media_type = content_type.lower()
        return "multipart/form-data" in media_type or (
            self._messages is not None and "application/grpc" in media_type and "application/json" not in media_type
        )

    def _form(self, content_type: str, content: bytes) -> Json:
        parts = parts_of(content_type, content, self._max_values)
        if parts is None:
            return None
        as_json = [part.content for part in parts if "application/json" in part.content_type.lower()]
        if len(as_json) > 1 and has_more_values(b",".join(as_json), self._max_values):
            raise too_many_values()
        values: dict[str, list[Json]] = {}
        for part in parts:
            if "application/json" in part.content_type.lower():
                # Below the form and the list of its values.
                value: Json = json_value(part.content, self._max_depth - 2, self._max_values)
            else:
                value = part.content.decode(errors="replace")
            values.setdefault(part.name, []).append(value)
        return values

    def _message(self, messages: Messages, target: str, content: bytes) -> tuple[Json, bool]:
        value, truncated = messages.read(path_and_query(target)[0], content)
        check_depth("parsed_body", value, self._max_depth)
        if len(content) > self._max_values and _more_values(value, self._max_values):
            raise too_many_values()
        return value, truncated


def _more_values(value: Json, most: int) -> bool:
    level, found = [value], 0
    while level:
        found += len(level)
        if found > most:
            return True
        level = [
            below
            for item in level
            if type(item) is dict or type(item) is list
            for below in (item.values() if type(item) is dict else item)
        ]
    return False
