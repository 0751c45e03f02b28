"""What is asked in the load runs: one set of requests, and how each decision point wants them written.

The rule is a lookup of roles (`policies/ext_authz`): readers may GET, writers may POST too, below `/api`.
"""

import json
import struct
import uuid
from collections.abc import Callable
from typing import Any

import grpc
from envoy.service.auth.v3 import external_auth_pb2 as envoy
from msgspec import Struct

from sark_pdp._proto import decision_pb2 as native
from sark_pdp.model import Json

ENTRYPOINT = "envoy/authz/allow"
ROLES = {"alice": ["reader"], "bob": ["writer"]}

DOCUMENT: dict[str, Json] = {
    "user": {"id": "alice", "email": "alice@example.com", "roles": ["developer"], "teams": ["search", "platform"]},
    "action": "tool:invoke",
    "tool": {"id": "search", "name": "search_documents", "sensitivity_level": "low", "owner": "bob"},
    "server": {"id": "docs", "name": "documents", "environment": "development"},
    "context": {"client_ip": "10.1.2.3"},
}
"""What is asked of the default bundle: about 300 bytes of JSON."""


class Question(Struct, frozen=True):
    """An HTTP request that wants to pass."""

    method: str
    user: str
    path: str
    allowed: bool
    """What every decision point must say."""
    number: int = 0
    """Makes request id, source port and time of their own, which no rule reads."""


COMPARED = (
    Question("GET", "alice", "/api/items?x=1", allowed=True),
    Question("POST", "bob", "/api/items", allowed=True),
    Question("GET", "bob", "/api/items/7?page=2&sort=name", allowed=True),
    Question("GET", "mallory", "/api/items", allowed=False),
    Question("POST", "alice", "/api/items", allowed=False),
    Question("DELETE", "bob", "/api/items/7", allowed=False),
    Question("GET", "alice", "/admin/users", allowed=False),
    Question("GET", "bob", "/", allowed=False),
)
"""All that are timed agree on these before anything is."""

TIMED = COMPARED[:4]
"""Sent at the same time, each by a generator of its own."""


def numbered(question: Question, number: int) -> Question:
    """The same in what the rule reads, of another request id, port and time."""
    return Question(question.method, question.user, question.path, question.allowed, number)


class Api(Struct, frozen=True):
    """How a decision point is asked: a POST of HTTP/2, whose body is a framed message where it is gRPC."""

    path: str
    content_type: str
    write: Callable[[Question], bytes]
    """The message."""
    allows: Callable[[bytes], bool]
    """Reads an answer."""

    @property
    def grpc(self) -> bool:
        """Whether messages are framed."""
        return self.content_type == "application/grpc"

    def body(self, question: Question) -> bytes:
        """What is posted."""
        return framed(self.write(question)) if self.grpc else self.write(question)


def framed(message: bytes) -> bytes:
    """As gRPC sends it: not compressed, its length, the message."""
    return struct.pack(">BI", 0, len(message)) + message


def request_id(number: int) -> str:
    """The same for the same number."""
    return str(uuid.UUID(int=number, version=4))


def check_request(question: Question) -> bytes:
    """As Envoy asks: about 380 bytes."""
    port = 40_000 + question.number % 20_000
    http = {
        "id": str(123_456_789 + question.number),
        "method": question.method,
        "headers": {
            ":authority": "svc.example",
            ":method": question.method,
            ":path": question.path,
            ":scheme": "http",
            "accept": "*/*",
            "authorization": "Bearer abcdefghijklmnop",
            "user-agent": "curl/8.0",
            "x-forwarded-proto": "http",
            "x-request-id": request_id(question.number),
            "x-user": question.user,
        },
        "path": question.path,
        "host": "svc.example",
        "scheme": "http",
        "protocol": "HTTP/1.1",
    }
    attributes = {
        "source": {"address": {"socket_address": {"address": "10.1.2.3", "port_value": port}}},
        "destination": {"address": {"socket_address": {"address": "10.1.2.4", "port_value": 8080}}},
        "request": {"time": {"seconds": 1_700_000_000 + question.number}, "http": http},
    }
    message: bytes = envoy.CheckRequest(attributes=attributes).SerializeToString(deterministic=True)
    return message


def _opa_input(question: Question) -> bytes:
    """What OPA's Envoy plugin makes of the same request, without what no rule reads."""
    headers = {"x-user": question.user, "x-request-id": request_id(question.number)}
    document: dict[str, Any] = {
        "attributes": {"request": {"http": {"method": question.method, "path": question.path, "headers": headers}}},
        "parsed_path": question.path.partition("?")[0].removeprefix("/").split("/"),
    }
    return json.dumps({"input": document}).encode()


def _native(question: Question) -> bytes:
    """About the default bundle, whatever the question; with a request id."""
    encoded = json.dumps(DOCUMENT).encode()
    return native.CheckRequest(request_id=request_id(question.number), input_json=encoded).SerializeToString()


def _envoy_allows(answer: bytes) -> bool:
    response = envoy.CheckResponse.FromString(answer)
    code: int = response.status.code
    return code == grpc.StatusCode.OK.value[0]


EXT_AUTHZ = Api("/envoy.service.auth.v3.Authorization/Check", "application/grpc", check_request, _envoy_allows)
CHECK = Api(
    "/sark.pdp.v1.PolicyDecision/Check",
    "application/grpc",
    _native,
    lambda answer: native.CheckResponse.FromString(answer).allow,
)
OPA_REST = Api(
    f"/v1/data/{ENTRYPOINT}", "application/json", _opa_input, lambda answer: json.loads(answer).get("result") is True
)
