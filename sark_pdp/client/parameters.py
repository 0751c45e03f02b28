"""The filtered parameters of an answer, with the numbers as they were sent.

A `google.protobuf.Struct` has doubles only: 9007199254740993 comes back as 9007199254740992 and 10 as 10.0. A tool that
is called with what comes back must not see that.
"""

from collections.abc import Mapping

from google.protobuf.struct_pb2 import Struct as WireStruct
from google.protobuf.struct_pb2 import Value

from sark_pdp.model import Json


def read_parameters(received: WireStruct, sent: Json) -> dict[str, Json]:
    """What was received; a number that is the rounded form of what was sent at its place is that again."""
    before = sent if isinstance(sent, Mapping) else {}
    return {name: _value(value, before.get(name)) for name, value in received.fields.items()}


def _value(received: Value, sent: Json) -> Json:
    match received.WhichOneof("kind"):
        case "string_value":
            return received.string_value
        case "number_value":
            return _number(received.number_value, sent)
        case "bool_value":
            return received.bool_value
        case "struct_value":
            return read_parameters(received.struct_value, sent)
        case "list_value":
            values = received.list_value.values
            # An element that was taken out moves the others: their old places say nothing then.
            before = sent if isinstance(sent, list | tuple) and len(sent) == len(values) else [None] * len(values)
            return [_value(value, old) for value, old in zip(values, before, strict=True)]
        case _:
            return None


def _number(received: float, sent: Json) -> int | float:
    if isinstance(sent, int | float) and not isinstance(sent, bool):
        try:
            if float(sent) == received:
                return sent
        except OverflowError:
            pass
    return int(received) if received.is_integer() else received
