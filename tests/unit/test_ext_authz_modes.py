"""What an operator can have otherwise: other entrypoints, a dry run, errors for failures, bodies unread, gRPC read."""

from pathlib import Path
from typing import Any

import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.struct_pb2 import Struct

from sark_pdp.errors import (
    DeadlineExceededError,
    EntrypointNotAllowedError,
    NotReadyError,
    OverloadedError,
    RequestError,
    StartError,
    UnauthenticatedError,
    UnknownEntrypointError,
)
from sark_pdp.model import Entrypoint, Outcome, Verdict
from sark_pdp.transport.ext_authz import Answers, ExtAuthz, Refusals, ReviewedDecider
from sark_pdp.transport.ext_authz.grpc_bodies import MessageTypes
from sark_pdp.transport.handler import Metadata, Refusal, Reply, Status
from tests.fix_ext_authz import ALLOW, DENY, ENTRYPOINT, IDS, Asked, Decisions, message, returned

LIMITS: dict[str, Any] = {"max_input_bytes": 2**16, "max_depth": 10, "max_values": 100}
OTHER = "envoy/other/allow"


def response(reply: Reply | None) -> CheckResponse:
    assert reply is not None
    assert reply.status is Status.OK
    return CheckResponse.FromString(reply.message)


# Entrypoints that a route names --------------------------------------------------------------------------------------


class Several(Decisions):
    """Has two entrypoints, which read different things."""

    def __init__(self) -> None:
        super().__init__(ALLOW)
        self.entrypoints = {
            ENTRYPOINT: Asked([("attributes", "request", "http", "method")]),
            OTHER: Asked([("attributes", "request", "http", "host")]),
        }

    def entrypoint(self, name: str) -> Entrypoint:
        """As `PolicySource`."""
        return self.entrypoints[name]


def named(entrypoint: str | None) -> bytes:
    extensions = {} if entrypoint is None else {"sark_entrypoint": entrypoint}
    return message({"request": {"http": {"method": "GET", "host": "shop"}}, "contextExtensions": extensions})


def test_a_route_may_name_an_entrypoint_that_is_allowed() -> None:
    """Each is read by its own projection, in turns."""
    decisions = Several()
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS, allowed=[OTHER])
    for name, part in [(OTHER, {"host": "shop"}), (None, {"method": "GET"}), (ENTRYPOINT, {"method": "GET"})] * 2:
        for answer in (method.answer, method.answer_nowait):
            assert response(answer(Metadata(), named(name))).HasField("ok_response")
            asked = decisions.requests[-1]
            assert asked.document["attributes"] == {"request": {"http": part}}
            assert asked.entrypoint is decisions.entrypoints[name or ENTRYPOINT]


@pytest.mark.parametrize("name", [OTHER, "", "envoy/authz/allow/", "x" * 10_000])
def test_another_entrypoint_is_not_asked_nor_the_default_one(name: str) -> None:
    """A route that wants another policy must not get a laxer one."""
    decisions = Several()
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS)
    check = response(method.answer(Metadata(), named(name)))
    assert check.denied_response.status.code == 503
    assert "policy.ext_authz_allowed" in check.status.message
    assert len(check.status.message) < 1200
    assert decisions.requests == []


# Dry run -------------------------------------------------------------------------------------------------------------


def dry(answer: Verdict | Exception) -> ExtAuthz:
    return ExtAuthz(Decisions(answer), Answers(dry_run=True), ENTRYPOINT, **LIMITS, refusals=Refusals(dry_run=True))


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (DENY, "deny"),
        (returned({"allowed": False, "http_status": 401, "headers": {"x": "y"}, "body": "no"}), "deny"),
        (returned({"allowed": False, "json_rpc_error": {"code": -1}}), "deny"),
        (Verdict(Outcome.UNDEFINED, "undefined"), "undefined"),
        (Verdict(Outcome.ERROR, "two rules conflict"), "error"),
        (returned({"allowed": True, "headers": {"x": "\r\n"}}), "error"),
    ],
)
def test_in_a_dry_run_every_decision_lets_the_request_through(verdict: Verdict, told: str) -> None:
    """Unchanged, and the metadata tells what would have been; failed evaluations, too."""
    for answer in (dry(verdict).answer, dry(verdict).answer_nowait):
        check = response(answer(Metadata(), b""))
        assert (check.WhichOneof("http_response"), check.status.code) == ("ok_response", 0)
        assert check.ok_response.ByteSize() == 0
        assert json_format.MessageToDict(check.dynamic_metadata) == {**IDS, "dry_run": told}


def test_in_a_dry_run_an_allowance_is_carried_out() -> None:
    """As it will be when the policy is in force."""
    verdict = returned({"allowed": True, "headers": {"x-user": "bob"}, "dynamic_metadata": {"tier": "gold"}})
    check = response(dry(verdict).answer(Metadata(), b""))
    assert check.ok_response.headers[0].header.value == "bob"
    assert json_format.MessageToDict(check.dynamic_metadata) == {**IDS, "tier": "gold"}


def test_in_a_dry_run_denials_keep_their_metadata() -> None:
    """For the access log."""
    check = response(dry(returned({"allowed": False, "dynamic_metadata": {"why": "role"}})).answer(Metadata(), b""))
    assert json_format.MessageToDict(check.dynamic_metadata) == {**IDS, "why": "role", "dry_run": "deny"}


@pytest.mark.parametrize(
    "error",
    [NotReadyError("no bundle"), OverloadedError("full"), DeadlineExceededError("late"), ZeroDivisionError("a defect")],
)
def test_in_a_dry_run_what_gets_no_decision_passes(error: Exception) -> None:
    """Nobody's traffic depends on it."""
    check = response(dry(error).answer(Metadata(), b""))
    assert (check.WhichOneof("http_response"), check.status.code) == ("ok_response", 0)
    assert check.dynamic_metadata["dry_run"].startswith("no decision: ")


@pytest.mark.parametrize("asked", [b"\xff", message({"request": {"http": {"path": "/%"}}}), b"x" * (2**16 + 1)])
def test_in_a_dry_run_what_cannot_be_judged_passes(asked: bytes) -> None:
    assert response(dry(DENY).answer(Metadata(), asked)).HasField("ok_response")


@pytest.mark.parametrize("reason", list(Refusal))
def test_in_a_dry_run_what_is_shed_passes(reason: Refusal) -> None:
    assert response(dry(DENY).refusal(reason)).HasField("ok_response")


def test_in_a_dry_run_the_decision_is_recorded_as_it_is() -> None:
    """Below the answers everything is as ever: an unusable result is an error, a denial a denial."""
    unusable = Decisions(returned({"allowed": True, "headers": {"x": "\r\n"}}))
    reviewed = ReviewedDecider(unusable, Answers(dry_run=True))
    method = ExtAuthz(unusable, Answers(dry_run=True), ENTRYPOINT, **LIMITS, refusals=Refusals(dry_run=True))
    method.answer(Metadata(), b"")
    assert reviewed.decide(unusable.requests[-1]).verdict.outcome is Outcome.ERROR


# Errors for failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "is_failure"),
    [
        (NotReadyError("no bundle"), 503, True),
        (OverloadedError("full"), 429, True),
        (DeadlineExceededError("late"), 504, True),
        (RequestError("anything else"), 500, True),
        (ZeroDivisionError("a defect"), 500, True),
        (UnauthenticatedError("the token has expired"), 401, False),
        (UnknownEntrypointError(ENTRYPOINT, ()), 503, False),
        (EntrypointNotAllowedError("not/listed"), 503, False),
    ],
)
def test_failures_are_errors_where_the_operator_says_so(error: Exception, status: int, is_failure: bool) -> None:
    """Envoy counts them as such. What the client did wrong stays a denial."""
    method = ExtAuthz(Decisions(error), Answers(), ENTRYPOINT, **LIMITS, refusals=Refusals("error"))
    check = response(method.answer(Metadata(), b""))
    told = check.error_response if is_failure else check.denied_response
    assert check.WhichOneof("http_response") == ("error_response" if is_failure else "denied_response")
    assert told.status.code == status
    assert told.body
    assert check.status.code != 0


@pytest.mark.parametrize("verdict", [DENY, Verdict(Outcome.ERROR, "failed"), Verdict(Outcome.UNDEFINED, "undefined")])
def test_a_decision_is_never_an_error(verdict: Verdict) -> None:
    """It is recorded as one that refuses, so it must."""
    method = ExtAuthz(Decisions(verdict), Answers(), ENTRYPOINT, **LIMITS, refusals=Refusals("error"))
    assert response(method.answer(Metadata(), b"")).HasField("denied_response")


@pytest.mark.parametrize("asked", [b"\xff", message({"request": {"http": {"path": "/%"}}}), b"x" * (2**16 + 1)])
def test_nobody_gets_past_by_sending_nonsense(asked: bytes) -> None:
    """That is no failure of this process."""
    method = ExtAuthz(Decisions(ALLOW), Answers(), ENTRYPOINT, **LIMITS, refusals=Refusals("error"))
    assert response(method.answer(Metadata(), asked)).HasField("denied_response")
    assert response(method.refusal(Refusal.TOO_LARGE)).HasField("denied_response")


# Bodies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paths", [[()], [("parsed_body",), ("truncated_body",)]])
def test_bodies_are_left_alone_where_nobody_wants_them(paths: list[tuple[str, ...]]) -> None:
    """A malformed one is the server's to refuse."""
    decisions = Decisions(ALLOW, paths=paths)
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS, parse_body=False)
    http = {"headers": {"content-type": "application/json", "content-length": "x"}, "body": "{"}
    assert response(method.answer(Metadata(), message({"request": {"http": http}}))).HasField("ok_response")
    assert not {"parsed_body", "truncated_body"} & decisions.requests[-1].document.keys()


def form(parts: int) -> dict[str, Any]:
    part = '--c\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    return {"headers": {"content-type": "multipart/form-data; boundary=c"}, "body": part * parts + "--c--"}


@pytest.mark.parametrize(("parts", "at_once"), [(3, True), (50, False)])
def test_a_long_form_is_not_parsed_where_nobody_may_wait(parts: int, at_once: bool) -> None:
    """It takes longer than JSON of that size."""
    decisions = Decisions(ALLOW)
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS)
    asked = message({"request": {"http": form(parts)}})
    assert (method.answer_nowait(Metadata(), asked) is not None) is at_once
    assert response(method.answer(Metadata(), asked)).HasField("ok_response")
    assert decisions.requests[-1].document["parsed_body"] == {"a": ["1"] * parts}


def test_a_form_of_too_many_parts_is_refused() -> None:
    method = ExtAuthz(Decisions(ALLOW), Answers(), ENTRYPOINT, **LIMITS)
    check = response(method.answer(Metadata(), message({"request": {"http": form(101)}})))
    assert "max_values" in check.denied_response.body


def test_parts_of_json_count_together() -> None:
    """Not each by itself."""
    part = '--c\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: application/json\r\n\r\n'
    body = f"{part}[{','.join('1' * 60)}]\r\n" * 2 + "--c--"
    http = {"headers": {"content-type": "multipart/form-data; boundary=c"}, "body": body}
    method = ExtAuthz(Decisions(ALLOW), Answers(), ENTRYPOINT, **LIMITS)
    assert "max_values" in response(method.answer(Metadata(), message({"request": {"http": http}}))).status.message


# gRPC ----------------------------------------------------------------------------------------------------------------


def descriptors(*, imports: bool = True) -> bytes:
    file = FileDescriptorProto(
        name="shop.proto", package="shop", syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    order = file.message_type.add(name="Order")
    order.field.add(name="item_id", number=1, type=FieldDescriptorProto.TYPE_INT64, json_name="itemId")
    order.field.add(
        name="notes", number=2, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_REPEATED
    )
    order.field.add(name="extra", number=3, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=".google.protobuf.Struct")
    service = file.service.add(name="Shop")
    service.method.add(name="Buy", input_type=".shop.Order", output_type=".shop.Order")
    service.method.add(name="Feed", input_type=".shop.Order", output_type=".shop.Order", client_streaming=True)
    files = FileDescriptorSet(file=[file])
    if imports:
        needed = FileDescriptorProto()
        Struct.DESCRIPTOR.file.CopyToProto(needed)
        files.file.insert(0, needed)
    encoded: bytes = files.SerializeToString()
    return encoded


@pytest.fixture
def messages(tmp_path: Path) -> MessageTypes:
    """Those of a shop."""
    (tmp_path / "shop.pb").write_bytes(descriptors())
    return MessageTypes(tmp_path / "shop.pb")


ORDER = b"\x08\x07\x12\x01a\x12\x01b"
"""`item_id` 7, `notes` a and b."""
WHOLE = b"\0\0\0\0\x08" + ORDER


@pytest.mark.parametrize(
    ("path", "raw_body", "parsed", "truncated"),
    [
        ("/shop.Shop/Buy", WHOLE, {"itemId": "7", "notes": ["a", "b"]}, False),
        ("/shop.Shop/Buy", WHOLE + WHOLE, {"itemId": "7", "notes": ["a", "b"]}, False),
        ("/shop.Shop/Buy", b"\0\0\0\0\0", {}, False),
        ("/shop.Shop/Buy", WHOLE[:-1], None, True),
        ("/shop.Shop/Buy", b"\x01" + WHOLE[1:], None, False),
        ("/shop.Shop/Feed", WHOLE, None, False),
        ("/shop.Shop/Sell", WHOLE, None, False),
        ("/other.Shop/Buy", WHOLE, None, False),
        ("/shop.Shop/Buy", b"", None, False),
    ],
    ids=["whole", "first", "empty message", "truncated", "compressed", "streamed", "method", "service", "no body"],
)
def test_a_grpc_message_is_parsed_where_its_type_is_known(
    path: str, raw_body: bytes, parsed: Any, truncated: bool, messages: MessageTypes
) -> None:
    """As protobuf's JSON has it: integers of 64 bits are strings, unset fields absent."""
    decisions = Decisions(ALLOW)
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS, messages=messages)
    assert response(method.answer(Metadata(), grpc(path, raw_body))).HasField("ok_response")
    document = decisions.requests[-1].document
    assert (document["parsed_body"], document["truncated_body"]) == (parsed, truncated)


def test_a_grpc_message_that_came_as_a_text_is_not_parsed(messages: MessageTypes) -> None:
    """Envoy has replaced in it what is no UTF-8; the upstream gets the message as it was."""
    decisions = Decisions(ALLOW)
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS, messages=messages)
    check = CheckRequest.FromString(grpc("/shop.Shop/Buy", b""))
    check.attributes.request.http.body = WHOLE.decode()
    assert response(method.answer(Metadata(), check.SerializeToString())).HasField("ok_response")
    document = decisions.requests[-1].document
    assert (document["parsed_body"], document["truncated_body"]) == (None, False)


def grpc(path: str, raw_body: bytes) -> bytes:
    check = CheckRequest()
    http = check.attributes.request.http
    http.path, http.raw_body = path, raw_body
    http.headers["content-type"] = "application/grpc"
    encoded: bytes = check.SerializeToString()
    return encoded


def framed(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4) + content


@pytest.mark.parametrize(
    ("path", "raw_body"),
    [
        ("/shop.Shop/Buy", b"\0\0\0"),
        ("/shop.Shop/Buy", framed(b"\xff\xff")),
        ("/shop.Shop/Buy", framed(b"\x12\x01\xff")),
        ("/shop.Shop", WHOLE),
        ("/shop.Shop/Buy/now", WHOLE),
        ("/shop.Shop/Buy", framed(b"\x12\x00" * 200)),
        ("/shop.Shop/Buy", framed(b"\x1a\x0b\n\t\n\x01n\x12\x04\x11" + b"\0" * 7)),
    ],
    ids=["frame", "nonsense", "no UTF-8", "no method", "too long a path", "too many values", "nonsense within"],
)
def test_a_grpc_message_that_does_not_decode_is_refused(path: str, raw_body: bytes, messages: MessageTypes) -> None:
    decisions = Decisions(ALLOW)
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, **LIMITS, messages=messages)
    assert response(method.answer(Metadata(), grpc(path, raw_body))).denied_response.status.code == 400
    assert decisions.requests == []


def test_a_deep_grpc_message_is_refused(messages: MessageTypes) -> None:
    nested: Any = 1
    for _ in range(12):
        nested = {"a": nested}
    extra = Struct()
    extra.update(nested)
    content = extra.SerializeToString()
    asked = grpc("/shop.Shop/Buy", framed(b"\x1a" + bytes([len(content)]) + content))
    assert len(content) < 128
    method = ExtAuthz(Decisions(ALLOW), Answers(), ENTRYPOINT, **LIMITS, messages=messages)
    assert "max_depth" in response(method.answer(Metadata(), asked)).denied_response.body


def test_a_long_grpc_message_is_not_parsed_where_nobody_may_wait(messages: MessageTypes) -> None:
    method = ExtAuthz(Decisions(ALLOW), Answers(), ENTRYPOINT, **LIMITS, messages=messages)
    asked = grpc("/shop.Shop/Buy", framed(b"\x12\x7f" + b"x" * 127 + b"\x12\x7f" + b"x" * 127) * 8)
    assert method.answer_nowait(Metadata(), asked) is None
    assert response(method.answer(Metadata(), asked)).HasField("ok_response")


@pytest.mark.parametrize("content", [b"\xff", descriptors(imports=False)], ids=["nonsense", "without its imports"])
def test_descriptors_that_are_not_usable_stop_the_start(content: bytes, tmp_path: Path) -> None:
    """With how to make them."""
    (tmp_path / "shop.pb").write_bytes(content)
    with pytest.raises(StartError, match="--include_imports"):
        MessageTypes(tmp_path / "shop.pb")
