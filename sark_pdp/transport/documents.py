"""Makes the document that a policy sees from what a caller sent, within the limits."""

import math
from typing import Final, NoReturn

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
    """Bounded by `max_bytes` of the encoded document, `max_depth` nested objects and arrays, `max_values` in JSON."""

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
            raise InvalidRequestError(field, f"more values than limits.max_values allows ({self._max_values})")
        # There is no deeper nesting than there are brackets; few enough of them, and nothing needs to be walked.
        deep = text.count(b"{") + text.count(b"[") > self._max_depth
        try:
            document = _decode(text)
        except RecursionError:
            self._refuse_depth(field)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(field, f"not valid JSON: {error}") from error
        if type(document) is not dict:
            raise InvalidRequestError(field, "not a JSON object")
        if deep and is_deeper(document, self._max_depth):
            self._refuse_depth(field)
        return document

    def from_struct(self, field: str, struct: Struct) -> Document:
        """Whole numbers become integers, as in protobuf's JSON. Raises InvalidRequestError naming `field`."""
        self._check_size(field, struct.ByteSize())
        return self._object(field, struct, self._max_depth)

    def resource(self, field: str, struct: Struct) -> Document:
        """The same for an object that becomes a field of a document."""
        self._check_size(field, struct.ByteSize())
        return self._object(field, struct, self._max_depth - 1)

    def _from_authorization(self, authorization: Authorization) -> Document:
        self._check_size("authorization", authorization.ByteSize())
        document: Document = {"action": authorization.action} if authorization.action else {}
        for name in _AUTHORIZATION_OBJECTS:
            if authorization.HasField(name):
                document[name] = self._object(
                    f"authorization.{name}", getattr(authorization, name), self._max_depth - 1
                )
        return document

    def _object(self, field: str, struct: Struct, depth: int) -> Document:
        if depth <= 0:
            self._refuse_depth(field)
        return {name: self._value(field, value, depth) for name, value in struct.fields.items()}

    def _value(self, field: str, value: Value, depth: int) -> Json:
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                return self._number(field, value.number_value)
            case "bool_value":
                return value.bool_value
            case "struct_value":
                return self._object(field, value.struct_value, depth - 1)
            case "list_value":
                if depth <= 1:
                    self._refuse_depth(field)
                return [self._value(field, item, depth - 1) for item in value.list_value.values]
            case "null_value":
                return None
            case _:
                raise InvalidRequestError(field, "a value has no kind")

    @staticmethod
    def _number(field: str, number: float) -> int | float:
        if not math.isfinite(number):
            raise InvalidRequestError(field, "NaN and infinity are not JSON")
        return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGERS else number

    def _check_size(self, field: str, size: int) -> None:
        if size > self._max_bytes:
            raise InvalidRequestError(
                field, f"{size} bytes are more than limits.max_input_bytes allows ({self._max_bytes})"
            )

    def _refuse_depth(self, field: str) -> NoReturn:
        raise InvalidRequestError(field, f"nested deeper than limits.max_depth allows ({self._max_depth})")
