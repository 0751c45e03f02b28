"""gRPC server reflection, v1 and v1alpha (their messages are the same): for grpcurl, ghz and the curious."""

from collections.abc import Iterable
from typing import Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from sark_pdp.transport.handler import Kind, Metadata, Method, Status
from sark_pdp.transport.method import NativeMethod, parsed

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class ServerReflectionInfo(NativeMethod):
    """Answers each question about the services and the messages that they use."""

    kind = Kind.STREAM

    def __init__(self, services: Iterable[str]) -> None:
        self._services = tuple(sorted(services))
        self._pool = descriptor_pool.Default()

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        del metadata
        request = parsed(ServerReflectionRequest, message)
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._fill(response, request)
        except KeyError:
            response.error_response.error_code = Status.NOT_FOUND
            response.error_response.error_message = "no such file or symbol is served here"
        return bytes(response.SerializeToString())

    def _fill(self, response: ServerReflectionResponse, request: ServerReflectionRequest) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._add_files(response, self._pool.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                self._add_files(response, self._file_of(request.file_containing_symbol))
            case _:
                # Extensions belong to proto2; nothing here has any.
                response.error_response.error_code = Status.UNIMPLEMENTED
                response.error_response.error_message = "only services, files and symbols can be asked for"

    def _file_of(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            # ghz asks for a method, which this pool does not know by its name.
            service, _, method = symbol.rpartition(".")
            return self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file

    @staticmethod
    def _add_files(response: ServerReflectionResponse, file: FileDescriptor) -> None:
        files: dict[str, FileDescriptor] = {}
        waiting = [file]
        while waiting:
            found = waiting.pop()
            if found.name not in files:
                files[found.name] = found
                waiting.extend(found.dependencies)
        response.file_descriptor_response.file_descriptor_proto.extend(found.serialized_pb for found in files.values())


def methods(services: Iterable[str]) -> dict[str, Method]:
    """The methods of both versions by full name; `services` are those that the listener serves besides."""
    answering = ServerReflectionInfo({*services, SERVICES[1]})
    return {f"/{service}/ServerReflectionInfo": answering for service in SERVICES}
