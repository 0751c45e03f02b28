"""Asks a running process on its `listen.admin`."""

import errno
import os
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from sark_pdp.addresses import Address, TcpAddress
from sark_pdp.errors import SarkError
from sark_pdp.settings import Settings, TlsSettings

_SERVICE = "sark.pdp.v1.Administration"
_TIMEOUT_SECONDS = 5.0

A = TypeVar("A", bound=Message)


def administer(settings: Settings, method: str, request: Message, answer_type: type[A]) -> A:
    """The answer of a method of `Administration`. Raises SarkError where no process answers, or it refuses."""
    address = settings.listen.admin
    with _channel(address, settings.tls) as channel:
        call: Any = channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer_type.FromString,
        )
        try:
            answer: A = call(request, timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise SarkError(f"the process on {address} refuses: {error.details()}") from error
            if os.strerror(errno.EACCES) in (error.details() or ""):
                raise SarkError(f"{address}: no permission to connect; ask as the user who runs the process") from error
            raise SarkError(
                f"no process answers on {address} ({error.code().name}): start one with `sark-pdp serve`, "
                "or name its listen.admin with --set or --config"
            ) from error
    return answer


def _channel(address: Address, tls: TlsSettings) -> grpc.Channel:
    if not isinstance(address, TcpAddress):
        return grpc.insecure_channel(str(address))
    # Administration over TCP is mTLS; the settings have made sure that the files are there.
    files = [file.read_bytes() for file in (tls.client_ca_file, tls.key_file, tls.cert_file) if file is not None]
    return grpc.secure_channel(str(address), grpc.ssl_channel_credentials(*files))
