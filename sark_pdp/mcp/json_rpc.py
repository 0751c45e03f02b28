"""Reads JSON-RPC 2.0 messages strictly, and writes what was read: whoever is behind gets nothing that was not judged.

Two keys of one name, names that differ in capitals only, numbers that are none: readers differ in what they make of
these. So a message is passed on as it was understood here, and what some reader could take for something else is
refused.
"""

import json
import math
from typing import Any, Final

from msgspec import Struct

from sark_pdp.errors import SarkError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600

_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_DEEPEST: Final = 200


class MessageError(SarkError):
    """What was sent is no message; says why, in a sentence for whoever sent it."""

    def __init__(self, message: str, code: int = INVALID_REQUEST, http_status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status


class Messages(Struct, frozen=True):
    """What one body holds."""

    all: tuple[dict[str, Any], ...]
    batch: bool
    """As an array, even of one."""

    def encode(self) -> bytes:
        """A body."""
        return encode(list(self.all) if self.batch else self.all[0])


def read_messages(body: bytes, most: int) -> Messages:
    """One message, or a batch of up to `most`; raises MessageError."""
    decoded = decode(body)
    if not isinstance(decoded, list):
        return Messages((_checked(decoded),), batch=False)
    if not 0 < len(decoded) <= most:
        raise MessageError(f"a batch must have 1 to {most} messages")
    return Messages(tuple(map(_checked, decoded)), batch=True)


def decode(text: bytes | str, *, strict: bool = True) -> Any:
    """A value of JSON; raises MessageError. Where it is not strict, numbers may be infinite or none."""
    try:
        decoded = json.loads(text, parse_constant=_no_number, parse_float=_finite) if strict else json.loads(text)
    except (ValueError, RecursionError):
        # What the parser says of it may quote it.
        raise MessageError("the message is not valid JSON", PARSE_ERROR) from None
    if _is_deeper(decoded, _DEEPEST):
        raise MessageError(f"the message is nested deeper than {_DEEPEST}")
    return decoded


def encode(value: Any) -> bytes:
    """What `decode` has read, or the like."""
    return json.dumps(value, separators=(",", ":")).encode()


def is_request(message: dict[str, Any]) -> bool:
    """Whether it waits for an answer."""
    return "method" in message and "id" in message


def failure(code: int, message: str, call_id: str | int | None = None) -> dict[str, Any]:
    """An error that no policy has decided."""
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}


def _checked(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise MessageError("the body is no JSON-RPC 2.0 message")
    unknown = message.keys() - _MEMBERS
    if unknown:
        raise MessageError("the message has a member that JSON-RPC does not know")
    if "id" in message and type(message["id"]) not in {str, int}:
        raise MessageError("the id is neither text nor an integer")
    if "method" not in message:
        if "id" not in message or not message.keys() & {"result", "error"} or "params" in message:
            raise MessageError("the message is neither a request nor an answer")
        return message
    if not isinstance(message["method"], str) or message.keys() & {"result", "error"}:
        raise MessageError("the message is no request")
    if not isinstance(message.get("params", {}), dict | None):
        raise MessageError("params is not an object")
    return message


def _no_number(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            below
            for each in level
            if isinstance(each, dict | list)
            for below in (each.values() if isinstance(each, dict) else each)
            if isinstance(below, dict | list)
        ]
        if not level:
            return False
    return True
