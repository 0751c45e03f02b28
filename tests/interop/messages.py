"""The messages of `grpc.testing.TestService`, which gRPC's interoperability clients speak: only the fields they use.

<https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE: Final = "grpc.testing"
_TYPES: Final = {
    "int32": FieldDescriptorProto.TYPE_INT32,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}
_FIELDS: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "Payload": {"type": (1, "int32"), "body": (2, "bytes")},
    "EchoStatus": {"code": (1, "int32"), "message": (2, "string")},
    "SimpleRequest": {
        "response_size": (2, "int32"),
        "payload": (3, "Payload"),
        "response_status": (7, "EchoStatus"),
        "fill_server_id": (9, "bool"),
    },
    "SimpleResponse": {"payload": (1, "Payload"), "server_id": (4, "string")},
    "ResponseParameters": {"size": (1, "int32")},
    "StreamingOutputCallRequest": {
        "response_parameters": (2, "repeated ResponseParameters"),
        "payload": (3, "Payload"),
        "response_status": (7, "EchoStatus"),
    },
    "StreamingOutputCallResponse": {"payload": (1, "Payload")},
}
"""By message and field: number and type. The type of a payload is an enumeration, which travels as an int32."""


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="testing.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            many, _, of = kind.rpartition(" ")
            field = described.field.add(name=name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if many else FieldDescriptorProto.LABEL_OPTIONAL
            if of in _TYPES:
                field.type = _TYPES[of]
            else:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{of}"
    return file


def message_types() -> dict[str, Any]:
    """The classes of the messages, by name."""
    pool = DescriptorPool()
    pool.Add(_file())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}
