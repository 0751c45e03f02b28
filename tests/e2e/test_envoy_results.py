"""What the real Envoy makes of the answers, for every result that a policy can return.

Envoy is told to let requests through where the call for an answer fails: no answer here may be such a failure.
"""

import http.client
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from sark_pdp.errors import DeadlineExceededError, NotReadyError, OverloadedError
from sark_pdp.transport.ext_authz import CHECK, Answers, ExtAuthz
from sark_pdp.transport.handler import Metadata
from tests.fix_envoy import Envoy, Response, running_envoy
from tests.fix_ext_authz import ALLOW, DENY, ENTRYPOINT, IDS, Decisions, returned

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "ext_authz" / "envoy.yaml").read_text())


class DecisionPoint(grpc.GenericRpcHandler):
    """`ExtAuthz` behind grpcio, with answers that a test chooses."""

    def __init__(self) -> None:
        self.decisions = Decisions(DENY)
        self._method = ExtAuthz(
            self.decisions, Answers(), ENTRYPOINT, max_input_bytes=2**20, max_depth=30, max_values=1000
        )
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """As grpcio's server asks for it."""
        assert details.method == CHECK
        return grpc.unary_unary_rpc_method_handler(
            lambda message, context: self._method.answer(Metadata(), message).message
        )

    def stop(self) -> None:
        """Ends it."""
        self._server.stop(None).wait()


@pytest.fixture(scope="module")
def point() -> Iterator[DecisionPoint]:
    """One for all tests of this module."""
    started = DecisionPoint()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def proxy(envoy: Path, point: DecisionPoint) -> Iterator[Envoy]:
    """An Envoy that asks it."""
    with running_envoy(envoy, f"127.0.0.1:{point.port}", {"failure_mode_allow": True}) as started:
        yield started


@pytest.fixture(scope="module")
def raw_proxy(envoy: Path, point: DecisionPoint) -> Iterator[Envoy]:
    """One that sends headers and bodies as bytes."""
    body = {"max_request_bytes": 32, "allow_partial_message": True, "pack_as_bytes": True}
    filter_ = {"failure_mode_allow": True, "encode_raw_headers": True, "with_request_body": body}
    with running_envoy(envoy, f"127.0.0.1:{point.port}", filter_) as started:
        yield started


def refused(proxy: Envoy, response: Response) -> bool:
    """Whether the request went no further than Envoy."""
    return response.header("x-upstream") == [] and proxy.upstream.reached == 0


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_envoy_carries_out_what_the_policy_returned(case: dict[str, Any], point: DecisionPoint, proxy: Envoy) -> None:
    """On the request, on the response, and on nothing else."""
    point.decisions.answer = returned(case["result"])
    proxy.upstream.reached = 0
    response = proxy.request("GET", "/a?b=c&g=h", {"x-mine": "1", "x-other": "9"})
    client = case["client"]
    assert response.status == client["status"], response
    for name, values in client.get("headers", {}).items():
        assert response.header(name) == (values or [])
    if "body" in client:
        assert response.body.decode() == client["body"]
    if "upstream" not in case:
        assert refused(proxy, response)
        return
    assert proxy.upstream.reached == 1
    seen = response.json()
    if "path" in case["upstream"]:
        assert seen["path"] == case["upstream"]["path"]
    for name, value in case["upstream"].get("headers", {}).items():
        values = [text.encode("latin-1").decode() for key, text in seen["headers"] if key == name]
        assert values == ([] if value is None else [value])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotReadyError("no bundle"), 503),
        (OverloadedError("limits.max_concurrent"), 429),
        (DeadlineExceededError("late"), 504),
        (ZeroDivisionError("a defect"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_fails_here_is_not_let_through_there(
    error: Exception, status: int, point: DecisionPoint, proxy: Envoy
) -> None:
    """Though `failure_mode_allow` is on."""
    point.decisions.answer = error
    proxy.upstream.reached = 0
    response = proxy.request("GET", "/")
    assert response.status == status
    assert refused(proxy, response)


@pytest.mark.parametrize("target", ["/%zz", "/?a=%", "/?a=1;b=2"])
def test_a_path_that_can_be_read_in_two_ways_is_refused(target: str, point: DecisionPoint, proxy: Envoy) -> None:
    """Before the policy is asked."""
    point.decisions.answer = ALLOW
    proxy.upstream.reached = 0
    response = proxy.request("GET", target)
    assert response.status == 400
    assert refused(proxy, response)


@pytest.mark.parametrize(
    ("result", "added"),
    [(True, {}), (False, {}), ({"allow": False, "dynamic_metadata": {"why": [1, "x"]}}, {"why": [1, "x"]})],
)
def test_the_access_log_names_the_decision(
    result: Any, added: dict[str, Any], point: DecisionPoint, proxy: Envoy
) -> None:
    """By the id of its audit event, beside what the policy adds."""
    point.decisions.answer = returned(result)
    request_id = str(uuid.uuid4())
    proxy.request("GET", "/", {"x-request-id": request_id})
    line = proxy.wait_logged(request_id)
    # Envoy adds its own measure of the call to an allowance.
    line["metadata"].pop("ext_authz_duration", None)
    assert line["metadata"] == {**IDS, **added}
    assert line["decision_id"] == IDS["decision_id"]
    assert point.decisions.requests[-1].request_id == request_id


def test_the_policy_sees_the_request_as_envoy_does(point: DecisionPoint, proxy: Envoy) -> None:
    """Headers, body, both ends of the connection."""
    point.decisions.answer = ALLOW
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    sent = json.dumps(call).encode()
    response = proxy.request(
        "POST", "//mcp/x%20y?z=%C3%A9&z=2", {"content-type": "application/json", "user-agent": "probe/1"}, sent
    )
    assert response.json()["body"] == sent.decode()
    request = point.decisions.requests[-1]
    document = request.document
    assert document["parsed_path"] == ["mcp", "x y"]
    assert document["parsed_query"] == {"z": ["é", "2"]}
    assert document["parsed_body"] == call
    assert document["truncated_body"] is False
    http = document["attributes"]["request"]["http"]
    assert http["method"] == "POST"
    assert http["path"] == "//mcp/x%20y?z=%C3%A9&z=2"
    assert http["headers"]["content-type"] == "application/json"
    assert document["attributes"]["destination"]["address"]["socketAddress"]["portValue"] == proxy.port
    assert (request.origin.ip_address, request.origin.user_agent) == ("127.0.0.1", "probe/1")


def test_raw_headers_and_bodies_make_the_same_document(point: DecisionPoint, proxy: Envoy, raw_proxy: Envoy) -> None:
    """A policy does not have to know how the operator configured Envoy."""
    point.decisions.answer = ALLOW
    documents = []
    for through in (proxy, raw_proxy):
        through.request(
            "POST", "/a", {"content-type": "application/json", "x-mine": "é".encode().decode("latin-1")}, b'{"a": 1}'
        )
        documents.append(point.decisions.requests[-1].document)
    plain, raw = documents
    assert raw["parsed_body"] == plain["parsed_body"] == {"a": 1}
    ours = ("content-type", "x-mine", ":method", ":path", "content-length")
    headers = [document["attributes"]["request"]["http"]["headers"] for document in documents]
    assert [headers[0][name] for name in ours] == [headers[1][name] for name in ours]
    assert headers[0]["x-mine"] == "é"
    assert "headerMap" in raw["attributes"]["request"]["http"]


def test_a_body_that_envoy_cut_off_is_not_taken_for_the_body(point: DecisionPoint, raw_proxy: Envoy) -> None:
    """Nor is one whose client claims that it is whole, or partial."""
    point.decisions.answer = ALLOW
    headers = {"content-type": "application/json", "x-envoy-auth-partial-body": "false"}
    raw_proxy.request("POST", "/a", headers, b"[" + b"1," * 20 + b"1]")
    document = point.decisions.requests[-1].document
    assert (document["parsed_body"], document["truncated_body"]) == (None, True)
    raw_proxy.request("POST", "/a", {**headers, "x-envoy-auth-partial-body": "true"}, b"[1]")
    document = point.decisions.requests[-1].document
    assert (document["parsed_body"], document["truncated_body"]) == ([1], False)


def test_a_chunked_body_is_read_whole(point: DecisionPoint, proxy: Envoy) -> None:
    """It has no content-length to compare with."""
    point.decisions.answer = ALLOW
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)) as connection:
        chunks = iter([b'{"a"', b": 1}"])
        connection.request("POST", "/a", chunks, {"content-type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 200
    assert point.decisions.requests[-1].document["parsed_body"] == {"a": 1}
