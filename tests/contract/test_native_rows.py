"""What comes in that is no good question, or gets no good answer: what native callers and Envoy are told of it."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from sark_pdp._proto import decision_pb2 as wire
from tests.fix_native import (
    CHECK,
    EXT_AUTHZ,
    Channel,
    asking,
    assert_quiet,
    event,
    events,
    failure,
    http,
    metric,
    wait_until,
)
from tests.fix_serve import Sidecar

pytestmark = pytest.mark.carried

NAN = Struct()
NAN["n"] = float("nan")
INFINITE = Struct()
INFINITE["deep"] = [{"n": float("-inf")}]
KINDLESS = Struct()
KINDLESS.fields["n"].Clear()
CHILD = Struct()
CHILD["id"] = "x"


def nested(levels: int) -> dict[str, Any]:
    """So many objects, one in the other."""
    document: dict[str, Any] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


def struct(document: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(document)
    return made


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as protobuf encodes it."""
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + content


def encoded(levels: int) -> bytes:
    """A Struct of so many levels, of which protobuf would make none itself."""
    made = b""
    for _ in range(levels):
        made = field(1, field(1, b"a") + field(2, field(5, made)))
    return made


def of_json(text: bytes) -> wire.CheckRequest:
    return wire.CheckRequest(input_json=text)


def authorization(**fields: Any) -> wire.CheckRequest:
    return wire.CheckRequest(authorization=wire.Authorization(**fields))


LARGE = "x" * (49 << 10)
INVALID: dict[str, tuple[bytes | wire.CheckRequest, str]] = {
    "no document": (wire.CheckRequest(), "document: one of authorization, input_json and input"),
    "empty JSON": (of_json(b""), "input_json: not valid JSON"),
    "no JSON": (of_json(b"{'a': 1}"), "input_json: not valid JSON"),
    "truncated JSON": (of_json(b'{"a": 1'), "input_json: not valid JSON"),
    "two values": (of_json(b"{} {}"), "input_json: not valid JSON"),
    "no UTF-8": (of_json(b'{"a": "\xff"}'), "input_json: not valid JSON"),
    "half a surrogate pair": (of_json(b'{"a": "\\ud800"}'), "input_json: not valid JSON"),
    "NaN in JSON": (of_json(b'{"a": NaN}'), "input_json: not valid JSON"),
    "infinity in JSON": (of_json(b'{"a": -Infinity}'), "input_json: not valid JSON"),
    "a number beyond all": (of_json(b'{"a": 1e999}'), "input_json: not valid JSON"),
    "an array": (of_json(b"[{}]"), "input_json: not a JSON object"),
    "null": (of_json(b"null"), "input_json: not a JSON object"),
    "NaN in a Struct": (wire.CheckRequest(input=NAN), "input: NaN and infinity are not JSON"),
    "infinity in a Struct": (wire.CheckRequest(input=INFINITE), "input: NaN and infinity are not JSON"),
    "NaN in an Authorization": (authorization(context=NAN), "authorization.context: NaN and infinity are not JSON"),
    "a value of no kind": (wire.CheckRequest(input=KINDLESS), "input: a value has no kind"),
    "JSON too large": (asking("allow", fill=LARGE), "input_json: .* limits.max_input_bytes allows \\(49152\\)"),
    "a Struct too large": (wire.CheckRequest(input=struct({"a": LARGE})), "input: .* limits.max_input_bytes"),
    "an Authorization too large": (authorization(action=LARGE), "authorization: .* limits.max_input_bytes"),
    "JSON too deep": (asking(**nested(31)), "input_json: nested deeper than limits.max_depth allows \\(30\\)"),
    "JSON far too deep": (of_json(b'{"a":' * 8000 + b"1" + b"}" * 8000), "input_json: nested deeper"),
    "arrays too deep": (of_json(b'{"a":' + b"[" * 30 + b"]" * 30 + b"}"), "input_json: nested deeper"),
    "a Struct too deep": (wire.CheckRequest(input=struct(nested(31))), "input: nested deeper than limits.max_depth"),
    "an Authorization too deep": (authorization(user=struct(nested(30))), "authorization.user: nested deeper"),
    "deeper than protobuf goes": (field(5, encoded(90)), "message: the bytes are not a sark.pdp.v1.CheckRequest"),
    "malformed protobuf": (b"\x0a\xff\xff", "message: the bytes are not a sark.pdp.v1.CheckRequest"),
    "text that is no UTF-8": (b"\x0a\x01\xff", "message: the bytes are not a sark.pdp.v1.CheckRequest"),
    "a message too large": (asking("allow", fill="x" * (81 << 10)), "message: .* limits.max_message_bytes"),
    "a negative age": (asking("allow", max_age=-1), "max_age: is negative"),
    "a long request id": (asking("allow", request_id="x" * 513), "request_id: longer than 512"),
    "a long policy": (asking("allow", policy="x" * 513), "policy: longer than 512"),
}
AS_ENVOY = {
    "not the JSON that it says": (http("/allow", b"{'a'}", content_type="application/json"), 400, "parsed_body: "),
    "NaN in the body": (http("/allow", b'{"a": NaN}', content_type="application/json"), 400, "parsed_body: "),
    "a body too deep": (
        http("/allow", json.dumps(nested(30)).encode(), content_type="application/json"),
        400,
        "parsed_body: nested deeper",
    ),
    "a path that cannot be decoded": (http("/allow/%zz"), 400, "parsed_path: "),
    "malformed protobuf": (b"\x0a\xff\xff", 400, "message: "),
    "a request too large": (http("/allow", b"x" * (49 << 10)), 413, "too large"),
    "a message too large": (http("/allow", b"x" * (81 << 10)), 413, "too large"),
}
NO_GOOD_ANSWER = {
    "undefined": ("nothing that it knows", wire.OUTCOME_UNDEFINED, "does not decide on this input", 403),
    "conflict": ("conflict", wire.OUTCOME_ERROR, "the policy aborted: .*conflict", 500),
    "abort": ("abort", wire.OUTCOME_ERROR, "the policy aborted: .*object insert conflict", 500),
    "timeout": ("timeout", wire.OUTCOME_ERROR, "longer than limits.eval_timeout", 500),
    "memory": ("memory", wire.OUTCOME_ERROR, "limits.wasm_memory", 500),
    "failing built-in": ("builtin", wire.OUTCOME_UNDEFINED, "does not decide on this input", 403),
    "unusable result": ("unusable", wire.OUTCOME_ERROR, "allow is not a boolean", 500),
}
NAMES = {wire.OUTCOME_UNDEFINED: "undefined", wire.OUTCOME_ERROR: "error"}


@pytest.fixture(scope="module")
def channel(wired: Sidecar) -> Iterator[Channel]:
    with Channel(wired.grpc) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_surprises(wired: Sidecar) -> Iterator[None]:
    """A bad call is no reason to log an error that nobody foresaw, nor for the process to suffer."""
    yield
    assert_quiet(wired.log)
    with Channel(wired.grpc) as after:
        assert after.check(case="allow").allow


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_question_is_an_invalid_argument_that_names_its_field(channel: Channel, name: str) -> None:
    message, details = INVALID[name]
    refused = failure(lambda: channel.call(CHECK, message))
    assert refused.code == "INVALID_ARGUMENT"
    assert re.match(details, refused.details), refused.details


@pytest.mark.parametrize("name", AS_ENVOY)
def test_envoy_is_told_of_an_invalid_question_as_a_denial(channel: Channel, name: str) -> None:
    """With the status that OPA's plugin has for it: Envoy passes none of it on."""
    message, status, reason = AS_ENVOY[name]
    answer = channel.envoy(message)
    assert answer.WhichOneof("http_response") == "denied_response"
    assert answer.denied_response.status.code == status
    assert answer.status.code == 7
    assert reason in answer.status.message


def test_what_is_just_within_the_limits_is_answered(channel: Channel) -> None:
    whole = asking("allow", fill="")
    fill = "x" * ((48 << 10) - len(whole.input_json))
    assert channel.check(asking("allow", fill=fill)).allow
    assert channel.check(asking("allow", **nested(30))).allow
    assert channel.check(wire.CheckRequest(input=struct({**nested(30), "case": "allow"}))).allow
    assert channel.check(authorization(user=struct(nested(29)))).outcome == wire.OUTCOME_UNDEFINED
    assert channel.check(asking("allow", request_id="x" * 512)).request_id == "x" * 512


def test_an_unknown_entrypoint_is_not_found_and_the_known_ones_are_listed(channel: Channel) -> None:
    refused = failure(lambda: channel.check(case="allow", policy="wire/nope"))
    assert refused.code == "NOT_FOUND"
    assert "'wire/nope'" in refused.details
    assert "wire/clock, wire/decide, wire/listed, wire/other" in refused.details


@pytest.mark.parametrize("name", NO_GOOD_ANSWER)
def test_a_policy_that_does_not_decide_denies_with_a_reason_and_is_audited(
    wired: Sidecar, channel: Channel, name: str
) -> None:
    case, outcome, reason, _ = NO_GOOD_ANSWER[name]
    answer = channel.check(case=case)
    assert answer.outcome == outcome
    assert not answer.allow
    assert re.search(reason, answer.reason), answer.reason
    assert answer.policy_revision == "wire-1"
    recorded = event(wired.spool_dir, answer.decision_id)
    assert recorded.event_type == "authorization_denied"
    assert recorded.decision == NAMES[outcome]
    assert recorded.policy_id == "wire/decide"
    assert recorded.details["reason"] == answer.reason


@pytest.mark.parametrize("name", NO_GOOD_ANSWER)
def test_envoy_gets_the_same_as_a_denial(wired: Sidecar, channel: Channel, name: str) -> None:
    case, outcome, reason, status = NO_GOOD_ANSWER[name]
    answer = channel.envoy(http(f"/{case}"))
    assert answer.WhichOneof("http_response") == "denied_response"
    assert answer.denied_response.status.code == status
    assert answer.status.code == 7
    assert re.search(reason, answer.status.message), answer.status.message
    ids = answer.dynamic_metadata
    assert ids["policy_revision"] == "wire-1"
    assert event(wired.spool_dir, ids["decision_id"]).decision == NAMES[outcome]


class SlowCalls:
    """Calls in flight, each of them for half a second; made anew when all have ended."""

    def __init__(self, channel: Channel, number: int, **document: Any) -> None:
        self._channel = channel
        self._requests = [asking("timeout", salt=salt, **document) for salt in range(number)]
        self._calls: list[Any] = []
        self.refused = 0
        """Those that met the test's own message at the limit, rather than the other way round."""

    def tend(self) -> None:
        if all(call.done() for call in self._calls):
            self.finish()
            self._calls = [self._channel.start(CHECK, request) for request in self._requests]

    def finish(self) -> None:
        """All others are answered all the same."""
        for call in self._calls:
            if call.exception() is None:
                assert "limits.eval_timeout" in wire.CheckResponse.FromString(call.result()).reason
            else:
                assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                self.refused += 1
        self._calls = []


@pytest.mark.parametrize(
    ("limit", "number", "fill"),
    [("limits.max_concurrent", 6, ""), ("limits.in_flight_bytes", 2, "x" * (40 << 10))],
)
def test_over_a_limit_calls_are_refused_at_once_and_counted(
    wired: Sidecar, channel: Channel, limit: str, number: int, fill: str
) -> None:
    slow = SlowCalls(channel, number, fill=fill)
    before = metric(wired, "sark_shed_requests_total")
    refused = partial(metric, wired, "grpc_server_handled_total", grpc_code="ResourceExhausted")
    refused_before = refused()
    native, envoy = [], []

    def both_refused() -> bool:
        slow.tend()
        call = channel.start(CHECK, asking("allow", fill=fill))
        answer = channel.envoy(http("/allow", fill.encode()))
        if call.exception():
            native.append(failure(call.result))
        if answer.WhichOneof("http_response") == "denied_response":
            envoy.append(answer)
        return bool(native and envoy)

    wait_until(both_refused)
    for told in native:
        assert told.code == "RESOURCE_EXHAUSTED"
        assert limit in told.details
        assert told.trailing["grpc-retry-pushback-ms"] == "1000"
    for answer in envoy:
        assert answer.denied_response.status.code == 429
        assert limit in answer.status.message
        assert [header.header.key for header in answer.denied_response.headers] == ["retry-after"]
    slow.finish()
    assert metric(wired, "sark_shed_requests_total") - before == len(native) + len(envoy) + slow.refused
    # To Envoy a refusal is an answer.
    assert refused() - refused_before == len(native) + slow.refused


def test_a_stream_answers_a_message_over_the_byte_limit_and_lives(channel: Channel) -> None:
    fill = "x" * (40 << 10)
    slow = SlowCalls(channel, 2, fill=fill)
    answers: list[wire.CheckResponse] = []

    def messages() -> Iterator[bytes]:
        while not any("limits.in_flight_bytes" in answer.reason for answer in answers):
            slow.tend()
            yield asking("allow", fill=fill).SerializeToString()
        yield asking("allow", request_id="after").SerializeToString()

    for raw in channel.stream(messages()):
        answers += [wire.CheckResponse.FromString(raw)]
    shed = next(answer for answer in answers if "limits.in_flight_bytes" in answer.reason)
    assert (shed.outcome, shed.allow, shed.decision_id) == (wire.OUTCOME_ERROR, False, "")
    assert (answers[-1].request_id, answers[-1].allow) == ("after", True)
    slow.finish()


@pytest.mark.parametrize("method", [CHECK, EXT_AUTHZ])
def test_no_evaluation_is_started_for_a_call_whose_deadline_has_passed(
    wired: Sidecar, channel: Channel, method: str
) -> None:
    slow = [channel.start(CHECK, asking("timeout", salt=salt)) for salt in range(4)]
    # What is kept in a cache would be answered in time.
    message = (
        asking("uncached", request_id="too late") if method == CHECK else http("/uncached", x_request_id="too late")
    )
    waiting = channel.start(method, message, timeout=0.1)
    assert failure(waiting.result).code == "DEADLINE_EXCEEDED"
    for call in slow:
        call.result()
    # The threads took their calls in order, so one that is answered now came after the late one.
    last = channel.check(case="allow", max_age=0)
    event(wired.spool_dir, last.decision_id)
    assert "too late" not in {each.request_id for each in events(wired.spool_dir)}


def test_a_batch_stops_evaluating_when_its_deadline_has_passed(wired: Sidecar, channel: Channel) -> None:
    def evaluations() -> float:
        return metric(wired, "sark_policy_evaluation_duration_seconds_count", policy="wire/other")

    def handled() -> float:
        return metric(wired, "grpc_server_handled_total", grpc_method="CheckBatch")

    evaluated, answered = evaluations(), handled()
    # Each takes half a second, or longer: all of them 2.5 s at least.
    batch = wire.CheckBatchRequest(checks=[asking(policy="wire/other", salt=-salt) for salt in range(5)])
    late = failure(lambda: channel.call("/sark.pdp.v1.PolicyDecision/CheckBatch", batch, timeout=1.4))
    assert late.code == "DEADLINE_EXCEEDED"
    wait_until(lambda: handled() > answered)
    # Fewer than three where the machine stood still before the first one began.
    assert 1 <= evaluations() - evaluated <= 3
