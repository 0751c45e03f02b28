"""A sidecar whose policy does on demand what a policy can do, and a channel to ask it with messages or bare bytes."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as envoy
from google.protobuf.message import Message
from msgspec import Struct

from sark_pdp._proto import admin_pb2 as administration
from sark_pdp._proto import decision_pb2 as wire
from sark_pdp.audit.event import Event, event_of
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.opa import Opa

NATIVE = "/sark.pdp.v1.PolicyDecision/"
CHECK = f"{NATIVE}Check"
STREAM = f"{NATIVE}CheckStream"
EXT_AUTHZ = "/envoy.service.auth.v3.Authorization/Check"
STATUS = "/sark.pdp.v1.Administration/GetStatus"
TIMEOUT = 60.0
"""Seconds for what takes milliseconds on an idle machine."""

SMALL = {
    "limits.eval_timeout": "500ms",
    "limits.wasm_memory": "16MiB",
    "limits.max_input_bytes": "48KiB",
    "limits.max_message_bytes": "80KiB",
    "limits.in_flight_bytes": "100KiB",
    "limits.max_concurrent": 6,
    "limits.max_batch": 5,
}
"""Limits that a test can reach. An endless policy takes half a second, four calls are answered at a time."""


def wire_policy(bundle: Path, entrypoint: str = "wire/decide") -> dict[str, object]:
    """Settings that make an entrypoint of the bundle answer native callers and Envoy."""
    return {
        "policy.bundles": [{"name": "wire", "path": str(bundle)}],
        "policy.entrypoint": entrypoint,
        "policy.ext_authz_entrypoint": entrypoint,
    }


@pytest.fixture(scope="session")
def wire_bundle(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tests/policies/wire`, compiled; its entrypoints are wire/decide, wire/clock, wire/listed and wire/other."""
    file = tmp_path_factory.mktemp("bundles") / "wire.tar.gz"
    folder = Path(__file__).parent / "policies" / "wire"
    build_bundle(folder, file, opa=Opa(str(opa)), entrypoints=(), revision="wire-1", report=lambda _: None)
    return file


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `state_dir` for several processes: what one compiled, the next ones find. The spool must lie elsewhere."""
    return str(tmp_path_factory.mktemp("state"))


@contextmanager
def running(sark_pdp: Path, settings: Mapping[str, object]) -> Iterator[Any]:
    """A `Sidecar` that is ready; `{folder}` in a setting is its folder. It must end with 0."""
    # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
    from tests.fix_serve import Sidecar

    with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as folder:
        filled = {key: json.loads(json.dumps(value).replace("{folder}", folder)) for key, value in settings.items()}
        served = Sidecar(sark_pdp, Path(folder), filled)
        served.start()
        try:
            served.wait_ready()
            yield served
        finally:
            if served.process.poll() is None:
                code = served.stop()
                assert code == 0, served.log


@pytest.fixture(scope="session")
def wired(sark_pdp: Path, wire_bundle: Path, shared_state: str) -> Iterator[Any]:
    """A `Sidecar` with the wire policy and small limits, for tests that leave nothing in flight."""
    with running(sark_pdp, {**wire_policy(wire_bundle), **SMALL, "state_dir": shared_state}) as served:
        yield served


class Failure(Struct, frozen=True):
    """A status that is not OK."""

    code: str
    details: str
    trailing: dict[str, Any]


def _as_is(message: bytes) -> bytes:
    return message


class Channel:
    """One connection; a context manager."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None, name: str = "") -> None:
        """`name` is what the server's certificate is for, where that is not the target's host."""
        options = [("grpc.ssl_target_name_override", name)] if name else []
        # A connection of its own for each: grpcio would share one between equal targets.
        options.append(("grpc.use_local_subchannel_pool", 1))  # type: ignore[arg-type]
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def start(self, method: str, message: bytes | Message, timeout: float = TIMEOUT) -> Any:
        """A unary call as a future of bytes."""
        raw = message.SerializeToString() if isinstance(message, Message) else message
        return self.channel.unary_unary(method, _as_is, _as_is).future(raw, timeout=timeout)

    def call(self, method: str, message: bytes | Message, timeout: float = TIMEOUT) -> bytes:
        """A unary call."""
        answer: bytes = self.start(method, message, timeout).result()
        return answer

    def check(self, request: wire.CheckRequest | None = None, **fields: Any) -> wire.CheckResponse:
        """`Check`; the fields are those of `asking`."""
        return wire.CheckResponse.FromString(self.call(CHECK, request or asking(**fields)))

    def batch(self, *checks: wire.CheckRequest) -> list[wire.CheckBatchResult]:
        """`CheckBatch`."""
        answer = self.call(f"{NATIVE}CheckBatch", wire.CheckBatchRequest(checks=checks))
        return list(wire.CheckBatchResponse.FromString(answer).results)

    def stream(self, messages: Iterator[bytes]) -> Any:
        """`CheckStream`, as a call that yields bytes."""
        return self.channel.stream_stream(STREAM, _as_is, _as_is)(messages, timeout=TIMEOUT)

    def watch(self, method: str, message: bytes = b"") -> Any:
        """A call of one message that yields many, of bytes."""
        return self.channel.unary_stream(method, _as_is, _as_is)(message, timeout=TIMEOUT)

    def filter(self, request: wire.FilterRequest) -> wire.FilterResponse:
        """`Filter`."""
        return wire.FilterResponse.FromString(self.call(f"{NATIVE}Filter", request))

    def envoy(self, request: "envoy.CheckRequest | bytes") -> "envoy.CheckResponse":
        """ext_authz's `Check`; fails on a status that is not OK."""
        return envoy.CheckResponse.FromString(self.call(EXT_AUTHZ, request))

    def status(self) -> administration.GetStatusResponse:
        """`GetStatus`."""
        return administration.GetStatusResponse.FromString(self.call(STATUS, b""))


def asking(case: str | None = None, policy: str = "", max_age: float | None = None, **document: Any) -> Any:
    """A `CheckRequest` with a document of JSON; `case` is what the wire policy shall do."""
    request_id = document.pop("request_id", "")
    if case is not None:
        document["case"] = case
    request = wire.CheckRequest(request_id=request_id, policy=policy, input_json=json.dumps(document).encode())
    if max_age is not None:
        request.max_age.FromNanoseconds(int(max_age * 1e9))
    return request


def http(path: str, body: bytes = b"", **headers: str) -> "envoy.CheckRequest":
    """What Envoy asks about a request; the wire policy does what the path says."""
    request = envoy.CheckRequest()
    request.attributes.request.http.method = "POST"
    request.attributes.request.http.path = path
    request.attributes.request.http.raw_body = body
    for name, value in headers.items():
        request.attributes.request.http.headers[name.replace("_", "-")] = value
    return request


def failure(call: Callable[[], Any]) -> Failure:
    """How a call fails, which it must."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    # What grpcio raises is a Call as well.
    error: Any = caught.value
    trailing = dict(error.trailing_metadata() or ())
    return Failure(error.code().name, error.details() or "", trailing)


def wait_until(what: Callable[[], Any], seconds: float = TIMEOUT) -> Any:
    """The first result that is true; fails after so long."""
    deadline = time.monotonic() + seconds
    while True:
        result = what()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def metric(served: Any, name: str, **labels: str) -> float:
    """The sum over all series of this name that have these labels."""
    total = 0.0
    for line in served.get("/metrics")[1].splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name:
            series = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if labels.items() <= series.items():
                total += float(found[3])
    return total


def events(spool: Path) -> list[Event]:
    """All that is committed, in order."""
    with SpoolReader(spool) as reader:
        segments = reader.forward(0, reader.snapshot().position)
        return [event_of(event.payload) for segment in segments for event in segment.events() or ()]


def event(spool: Path, id_: str) -> Event:
    """The event of a decision, as soon as it is committed."""
    found: list[Event] = wait_until(lambda: [each for each in events(spool) if each.id == id_])
    assert len(found) == 1
    return found[0]


def assert_quiet(log: str) -> None:
    """Nothing but log lines was printed, none of which tells of an error that nobody foresaw."""
    for line in log.splitlines():
        assert line.startswith("{"), line
        logged = json.loads(line)
        assert "exc_info" not in logged, logged
