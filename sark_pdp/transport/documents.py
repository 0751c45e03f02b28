"""Makes the document that a policy sees from what a caller sent, within the limits."""

import math
from typing import Final

import msgspec
from google.protobuf.struct_pb2 import Struct, Value

from sark_pdp._proto.decision_pb2 import Authorization, CheckRequest
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Document, Json
from sark_pdp.transport.bounds import has_more_values, is_deeper

_AUTHORIZATION_OBJECTS: Final = ("user", "tool", "server", "context", "parameters", "source_agent", "target_agent")
_EXACT_INTEGERS: Final = float(1 << 53)

_decode = msgspec.json.Decoder().decode


class Documents:
    """Bounded by `max_bytes` of the encoded document, `max_depth` nested objects and arrays, and `max_values`."""

    def __init__(self, max_bytes: int, max_depth: int, max_values: int) -> None:
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._max_values = max_values

    def of_check(self, check: CheckRequest) -> Document:
        """The document of a request, whichever way it came. Raises InvalidRequestError."""
        match check.WhichOneof("document"):
            case "input_json":
                return self.from_json("input_json", check.input_json)
            case "authorization":
                return self._from_authorization(check.authorization)
            case "input":
                return self.from_struct("input", check.input)
            case _:
                raise InvalidRequestError("document", "one of authorization, input_json and input is needed")

    def from_json(self, field: str, text: bytes) -> Document:
        """Raises InvalidRequestError naming `field` where it is too large, too deep or not a JSON object."""
        self._check_size(field, len(text))
        if has_more_values(text, self._max_values):
            raise _too_many(field, self._max_values)
        # There is no deeper nesting than there are brackets; few enough of them, and nothing needs to be walked.
        deep = text.count(b"{") + text.count(b"[") > self._max_depth
        try:
            document = _decode(text)
        except RecursionError:
            raise _too_deep(field, self._max_depth) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(field, f"not valid JSON: {error}") from error
        if type(document) is not dict:
            raise InvalidRequestError(field, "not a JSON object")
        if deep and is_deeper(document, self._max_depth):
            raise _too_deep(field, self._max_depth)
        return document

    def from_struct(self, field: str, struct: Struct) -> Document:
        """Whole numbers become integers, as in protobuf's JSON. Raises InvalidRequestError naming `field`."""
        self._check_size(field, struct.ByteSize())
        return _Structs(self._max_depth, self._max_values).object(field, struct, 1)

    def resource(self, field: str, struct: Struct) -> Document:
        """The same for an object that becomes a field of a document."""
        self._check_size(field, struct.ByteSize())
        return _Structs(self._max_depth, self._max_values).object(field, struct, 2)

    def _from_authorization(self, authorization: Authorization) -> Document:
        self._check_size("authorization", authorization.ByteSize())
        document: Document = {"action": authorization.action} if authorization.action else {}
        structs = _Structs(self._max_depth, self._max_values)
        for name in _AUTHORIZATION_OBJECTS:
            if authorization.HasField(name):
                document[name] = structs.object(f"authorization.{name}", getattr(authorization, name), 2)
        return document

    def _check_size(self, field: str, size: int) -> None:
        if size > self._max_bytes:
            raise InvalidRequestError(
                field, f"{size} bytes are more than limits.max_input_bytes allows ({self._max_bytes})"
            )


class _Structs:
    """Reads the objects of one document. `_left` is how many values may still come, counted as those of JSON are."""

    __slots__ = ("_left", "_max_depth", "_max_values")

    def __init__(self, max_depth: int, max_values: int) -> None:
        self._max_depth = max_depth
        self._max_values = max_values
        self._left = max_values

    def object(self, field: str, struct: Struct, depth: int) -> Document:
        """`depth` is its own, 1 for the whole of a document. Raises InvalidRequestError naming `field`."""
        fields = struct.fields
        self._enter(field, len(fields), depth)
        return {name: self._value(field, value, depth) for name, value in fields.items()}

    def _enter(self, field: str, size: int, depth: int) -> None:
        if depth > self._max_depth:
            raise _too_deep(field, self._max_depth)
        self._left -= size or 1
        if self._left < 0:
            raise _too_many(field, self._max_values)

    def _value(self, field: str, value: Value, depth: int) -> Json:
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                return _number(field, value.number_value)
            case "bool_value":
                return value.bool_value
            case "struct_value":
                return self.object(field, value.struct_value, depth + 1)
            case "list_value":
                values = value.list_value.values
                self._enter(field, len(values), depth + 1)
                return [self._value(field, item, depth + 1) for item in values]
            case "null_value":
                return None
            case _:
                raise InvalidRequestError(field, "a value has no kind")


def _number(field: str, number: float) -> int | float:
    if not math.isfinite(number):
        raise InvalidRequestError(field, "NaN and infinity are not JSON")
    return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGERS else number


def _too_deep(field: str, max_depth: int) -> InvalidRequestError:
    return InvalidRequestError(field, f"nested deeper than limits.max_depth allows ({max_depth})")


def _too_many(field: str, max_values: int) -> InvalidRequestError:
    return InvalidRequestError(field, f"more values than limits.max_values allows ({max_values})")
