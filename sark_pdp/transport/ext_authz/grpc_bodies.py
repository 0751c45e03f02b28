"""Messages of gRPC calls that pass through Envoy, decoded by the descriptors of `policy.ext_authz_proto_descriptor`.

Imported where that is set, as protobuf's JSON costs memory.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from sark_pdp.errors import InvalidRequestError, StartError
from sark_pdp.model import Json

_FRAME: Final = 5
"""Bytes before a message: whether it is compressed, and its length."""


class MessageTypes:
    """The messages that methods are called with. Thread-safe."""

    def __init__(self, file: Path) -> None:
        """Raises StartError where `file` is no `FileDescriptorSet`, or not a whole one."""
        self._pool = DescriptorPool()
        self._types: dict[tuple[str, str], Any] = {}
        try:
            files = FileDescriptorSet.FromString(file.read_bytes()).file
            for each in files:
                self._pool.Add(each)
            for each in files:
                self._learn(each.name)
        except (OSError, DecodeError, TypeError, KeyError) as error:
            raise StartError(
                f"policy.ext_authz_proto_descriptor: {file} holds no whole set of descriptors; "
                "make it with protoc --include_imports --descriptor_set_out"
            ) from error

    def read(self, path: Sequence[str], content: bytes) -> tuple[Json, bool]:
        """The first message of a call, as protobuf's JSON, and whether less of it came than its length.

        None for a method that is not known or whose caller streams, and for a compressed message. Raises
        InvalidRequestError where `path` is none of a method or the message does not decode.
        """
        if len(path) != 2:
            raise InvalidRequestError("parsed_path", "a call of gRPC has a service and a method in its path")
        if len(content) < _FRAME:
            raise InvalidRequestError("parsed_body", "the body is shorter than the frame of a gRPC message")
        if content[0]:
            return None, False
        end = _FRAME + int.from_bytes(content[1:_FRAME])
        if end > len(content):
            return None, True
        message_type = self._types.get((path[0], path[1]))
        if message_type is None:
            return None, False
        try:
            message = message_type.FromString(content[_FRAME:end])
            return json_format.MessageToDict(message, descriptor_pool=self._pool), False
        except (DecodeError, json_format.Error, TypeError, ValueError):
            raise InvalidRequestError("parsed_body", "the body is not the message that its method takes") from None

    def _learn(self, file: str) -> None:
        for service in self._pool.FindFileByName(file).services_by_name.values():
            for method in service.methods:
                if not method.client_streaming:
                    self._types[service.full_name, method.name] = GetMessageClass(method.input_type)
