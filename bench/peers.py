"""Other decision points, which a caller names: each with the rule of `policies/ext_authz`, on one core, on loopback.

- OPA's Envoy plugin, plain and with its decision log on the console, which goes to a file as a container's does;
- OPA's REST API over HTTP/2 without TLS;
- Cerbos, whose API is read from its own reflection service; it keeps no audit log here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from bench.loads import Target
from bench.machine import ROOT, SERVER_CORE, free_port, running, wait_ready
from bench.questions import ENTRYPOINT, EXT_AUTHZ, OPA_REST, ROLES, Api, Question, request_id
from bench.servers import POLICY, Server, Start, answers

if TYPE_CHECKING:
    from google.protobuf.message import Message

CERBOS_POLICY = ROOT / "bench" / "policies" / "cerbos"
_CERBOS_SERVICE = "cerbos.svc.v1.CerbosService"


def opa_envoy(binary: Path, *, log: bool = False, unix: bool = False) -> Start:
    """OPA's Envoy plugin."""

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        output = folder / "output"
        address = f"unix:{folder}/grpc.sock" if unix else f"127.0.0.1:{free_port()}"
        settings = {
            "plugins.envoy_ext_authz_grpc.addr": address.replace("unix:", "unix://"),
            "plugins.envoy_ext_authz_grpc.path": ENTRYPOINT,
            "decision_logs.console": str(log).lower(),
        }
        with running([*_opa(binary), *_sets(settings), POLICY], SERVER_CORE, output) as process:
            target = Target(address, EXT_AUTHZ)
            wait_ready(process, lambda: answers(target), output)
            yield Server(process.pid, target, counters=(lambda: {"logged": _lines(output)}) if log else dict)

    return start


def opa_rest(binary: Path) -> Start:
    """OPA itself, asked for the same rule."""

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        output, address = folder / "output", f"127.0.0.1:{free_port()}"
        with running([*_opa(binary, address), "--h2c", POLICY], SERVER_CORE, output) as process:
            target = Target(address, OPA_REST)
            wait_ready(process, lambda: answers(target), output)
            yield Server(process.pid, target)

    return start


def cerbos(binary: Path) -> Start:
    """Cerbos, asked for the action that is the method, on a resource that holds the path."""

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        output, address = folder / "output", f"127.0.0.1:{free_port()}"
        settings = {
            "server.grpcListenAddr": address,
            "server.httpListenAddr": f"127.0.0.1:{free_port()}",
            "storage.driver": "disk",
            "storage.disk.directory": str(CERBOS_POLICY),
            "telemetry.disabled": "true",
        }
        command = [binary, "server", "--log-level", "error", *_sets(settings)]
        with running(command, SERVER_CORE, output) as process:
            wait_ready(process, lambda: _reachable(address), output)
            yield Server(process.pid, Target(address, _cerbos_api(address)))

    return start


def _opa(binary: Path, address: str | None = None) -> list[str | Path]:
    address = address or f"127.0.0.1:{free_port()}"
    quiet = ("--log-level", "error", "--skip-version-check")
    return [binary, "run", "--server", "--addr", address, *quiet]


def _sets(settings: dict[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def _lines(output: Path) -> float:
    with output.open("rb") as file:
        return float(sum(chunk.count(b'"decision_id"') for chunk in file))


def _reachable(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(1)
        except grpc.FutureTimeoutError:
            return False
        return True


def _cerbos_api(address: str) -> Api:
    with grpc.insecure_channel(address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(_CERBOS_SERVICE).FindMethodByName("CheckResources")
        request: type[Message] = message_factory.GetMessageClass(method.input_type)
        response: type[Message] = message_factory.GetMessageClass(method.output_type)

    def write(question: Question) -> bytes:
        path = question.path.partition("?")[0]
        resource = {"kind": "http", "id": path, "attr": {"root": path.removeprefix("/").partition("/")[0]}}
        document: dict[str, Any] = {
            "requestId": request_id(question.number),
            "principal": {"id": question.user, "roles": ROLES.get(question.user, ["stranger"])},
            "resources": [{"actions": [question.method], "resource": resource}],
        }
        return json_format.ParseDict(document, request()).SerializeToString(deterministic=True)

    def allows(answer: bytes) -> bool:
        (result,) = json_format.MessageToDict(response.FromString(answer))["results"]
        return set(result["actions"].values()) == {"EFFECT_ALLOW"}

    return Api(f"/{_CERBOS_SERVICE}/CheckResources", "application/grpc", write, allows)
