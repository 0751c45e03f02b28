"""`grpc.health.v1.Health`, the probes beside it, and reflection."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from tests.fix_native import STATUS, Channel, failure, wait_until
from tests.fix_serve import Serve, Sidecar

pytestmark = pytest.mark.carried

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
DECISIONS = ["sark.pdp.v1.PolicyDecision", "envoy.service.auth.v3.Authorization", "grpc.health.v1.Health"]
REFLECTIONS = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.fixture(scope="module")
def channel(wired: Sidecar) -> Iterator[Channel]:
    with Channel(wired.grpc) as opened:
        yield opened


@pytest.mark.parametrize("service", ["", *DECISIONS[:2]])
def test_what_is_served_is_serving(wired: Sidecar, channel: Channel, service: str) -> None:
    request = HealthCheckRequest(service=service)
    assert HealthCheckResponse.FromString(channel.call(CHECK, request)).status == HealthCheckResponse.SERVING
    watched = channel.watch(WATCH, request.SerializeToString())
    assert HealthCheckResponse.FromString(next(watched)).status == HealthCheckResponse.SERVING
    watched.cancel()
    assert wired.get("/readyz") == (200, "ready\n")


def test_an_unknown_service_is_not_found_and_watched_as_unknown(channel: Channel) -> None:
    request = HealthCheckRequest(service="sark.pdp.v1.Nothing")
    assert failure(lambda: channel.call(CHECK, request)).code == "NOT_FOUND"
    watched = channel.watch(WATCH, request.SerializeToString())
    assert HealthCheckResponse.FromString(next(watched)).status == HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def test_a_malformed_request_is_an_invalid_argument(channel: Channel) -> None:
    assert failure(lambda: channel.call(CHECK, b"\xff")).code == "INVALID_ARGUMENT"
    assert failure(lambda: list(channel.watch(WATCH, b"\xff"))).code == "INVALID_ARGUMENT"


def test_watches_that_were_given_up_make_room_for_others(serve: Serve, shared_state: str) -> None:
    """Some are open at a time; as many come and go without a word, and as many again."""
    served = serve({"state_dir": shared_state, "limits.max_concurrent": 3})
    served.wait_ready()

    def another(channel: Channel, watched: list[Any]) -> bool:
        call = channel.watch(WATCH)
        # Refused as long as those that were given up have their places.
        with suppress(grpc.RpcError):
            assert next(call)
            watched.append(call)
        return len(watched) == 3

    for _ in range(2):
        watched: list[Any] = []
        with Channel(served.grpc) as channel:
            wait_until(partial(another, channel, watched))
            refused = failure(partial(next, channel.watch(WATCH)))
            assert refused.code == "RESOURCE_EXHAUSTED"
            assert refused.trailing["grpc-retry-pushback-ms"] == "1000"
            # They take no place among the calls that come and go.
            assert channel.check(action="nothing known").reason


def test_a_method_that_is_not_there_is_unimplemented(channel: Channel) -> None:
    assert failure(lambda: channel.call("/sark.pdp.v1.PolicyDecision/Nothing", b"")).code == "UNIMPLEMENTED"
    assert failure(lambda: channel.call(STATUS, b"")).code == "UNIMPLEMENTED"


def test_reflection_tells_services_methods_and_messages(channel: Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel.channel)
    assert set(database.get_services()) >= {*DECISIONS, REFLECTIONS[1]}
    pool = DescriptorPool(database)
    for name in DECISIONS:
        assert pool.FindServiceByName(name).methods
    check = pool.FindMessageTypeByName("sark.pdp.v1.CheckRequest")
    max_age = check.fields_by_name["max_age"].message_type
    assert max_age is not None
    assert max_age.full_name == "google.protobuf.Duration"


@pytest.mark.parametrize("service", REFLECTIONS)
def test_both_versions_of_reflection_answer_each_question(channel: Channel, service: str) -> None:
    questions = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol="sark.pdp.v1.PolicyDecision"),
        ServerReflectionRequest(file_containing_symbol="sark.pdp.v1.PolicyDecision.Check"),
        ServerReflectionRequest(file_containing_symbol="sark.pdp.v1.Nothing"),
        ServerReflectionRequest(file_containing_symbol=""),
        ServerReflectionRequest(file_by_filename="google/protobuf/struct.proto"),
        ServerReflectionRequest(file_by_filename="nothing.proto"),
        ServerReflectionRequest(all_extension_numbers_of_type="sark.pdp.v1.CheckRequest"),
        ServerReflectionRequest(),
    ]
    call = channel.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        ServerReflectionRequest.SerializeToString,
        ServerReflectionResponse.FromString,
    )
    answers = list(call(iter(questions), timeout=20))
    assert [answer.original_request for answer in answers] == questions
    kinds = [answer.WhichOneof("message_response").partition("_")[0] for answer in answers]
    assert kinds == ["list", "file", "file", "error", "error", "file", "error", "error", "error"]
    assert [answer.error_response.error_code for answer in answers] == [0, 0, 0, 5, 5, 0, 5, 12, 12]
