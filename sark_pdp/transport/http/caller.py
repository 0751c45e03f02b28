"""Who sends a request, and what its headers say of it."""

import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct

from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import NO_DEADLINE, Deadline, Origin
from sark_pdp.transport.handler import Metadata, Pairs
from sark_pdp.transport.http.endpoint import Call, Headers, header
from sark_pdp.transport.http.errors import Problem, Refused
from sark_pdp.transport.questions import Questions
from sark_pdp.transport.tls import FOREIGN_PEER
from sark_pdp.transport.trace import HEADER

_TIMEOUT: Final = b"grpc-timeout"
"""As gRPC writes it, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>."""
_ENVOY_TIMEOUT: Final = b"x-envoy-expected-rq-timeout-ms"
"""What Envoy tells who is behind it."""
_TRACE: Final = HEADER.encode()
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_STATED: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,10}")
_HOST: Final = re.compile(r"[A-Za-z0-9._~:\[\]%-]+")

FOREIGN_CALLER: Final = Refused(HTTPStatus.FORBIDDEN, Problem("permission_denied", FOREIGN_PEER.details))


class Peer(Struct, frozen=True):
    """The other end of a connection."""

    address: str
    """Empty at a Unix socket."""
    identity: str | None
    """The name in its certificate that lets it in; empty where none is asked for; None where it has no allowed one."""
    uid: int | None = None
    """Of the process, at a Unix socket."""


def call_of(scope: Mapping[str, Any], peer: Peer, questions: Questions) -> Call:
    """Raises InvalidRequestError for a timeout that is none, and UnauthenticatedError."""
    headers: Headers = scope["headers"]
    pairs: Pairs = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if questions.wants_pairs or name == _TRACE
    )
    origin = Origin(peer.address, header(headers, b"user-agent"), peer.identity or "", peer.uid)
    metadata = Metadata(_deadline(headers), origin, pairs)
    return Call(
        metadata,
        questions.caller(metadata),
        scope.get("path_params", {}).get("path", ""),
        header(headers, b"x-request-id"),
        _base(scope, headers),
    )


def _deadline(headers: Headers) -> Deadline:
    """The earlier one where there are two."""
    seconds = float("inf")
    if stated := header(headers, _TIMEOUT):
        found = _STATED.fullmatch(stated)
        if found is None:
            raise InvalidRequestError("grpc-timeout", "must be digits and a unit, as in 100m")
        seconds = int(found[1]) * _UNITS[found[2]]
    if stated := header(headers, _ENVOY_TIMEOUT):
        if _MILLISECONDS.fullmatch(stated) is None:
            raise InvalidRequestError(_ENVOY_TIMEOUT.decode(), "must be milliseconds, as in 100")
        # Envoy says 0 where there is no timeout.
        seconds = min(seconds, int(stated) / 1e3 or float("inf"))
    return NO_DEADLINE if seconds == float("inf") else Deadline(time.monotonic() + seconds)


def _base(scope: Mapping[str, Any], headers: Headers) -> str:
    """By the name that the caller used; a name that cannot be one is not repeated."""
    host = header(headers, b"host")
    if _HOST.fullmatch(host) is None:
        server = scope.get("server") or ("localhost", None)
        host = str(server[0]) if server[1] is None else f"{server[0]}:{server[1]}"
    return f"{scope['scheme']}://{host}"
