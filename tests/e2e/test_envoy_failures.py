"""Ways between Envoy and the real process, and what becomes of requests where the process is dead, slow or full."""

import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import pytest

from tests.fix_envoy import Envoy, Response, StartEnvoy
from tests.fix_serve import Serve, Sidecar, free_port

PATIENCE = 30
STATED = {"x-result": "true"}

POLICY = """
package envoy.authz

headers := input.attributes.request.http.headers

stated := json.unmarshal(headers["x-result"])

allow := object.union(stated, {"dynamic_metadata": {"input": input}}) if is_object(stated)

allow := {"allowed": stated, "dynamic_metadata": {"input": input}} if is_boolean(stated)

# Does not end before it is stopped.
allow if {
	headers["x-loop"]
	some i in numbers.range(1, 30000)
	some j in numbers.range(1, 30000)
	i * j == -1
}
"""

ServeStated: TypeAlias = Callable[..., Sidecar]


@pytest.fixture(scope="module")
def bundle(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decides what the request says."""
    folder = tmp_path_factory.mktemp("stated")
    (folder / "stated.rego").write_text(POLICY)
    command: list[str | Path] = [opa, "build", "--target=wasm", "--entrypoint=envoy/authz/allow", "stated.rego"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "bundle.tar.gz"


@pytest.fixture
def serve_stated(bundle: Path, serve: Serve) -> ServeStated:
    """Starts one with this bundle and other settings, and waits for it."""

    def start(settings: Mapping[str, object] | None = None) -> Sidecar:
        policies = {
            "policy.bundles": [{"name": "stated", "path": str(bundle)}],
            "policy.entrypoint": "envoy/authz/allow",
        }
        served = serve({**policies, **(settings or {})})
        served.wait_ready()
        return served

    return start


def went_through(proxy: Envoy, response: Response) -> bool:
    """Whether it reached the server; status and server must agree."""
    through = proxy.upstream.reached == 1
    assert (response.header("x-upstream") == ["echo"]) is through
    proxy.upstream.reached = 0
    return through


# Ways ----------------------------------------------------------------------------------------------------------------


def mutual_tls(certificates: Path) -> Callable[[dict[str, Any]], None]:
    """Lets Envoy prove who it is to the decision point, and find out who that is."""

    def change(config: dict[str, Any]) -> None:
        [cluster] = [each for each in config["static_resources"]["clusters"] if each["name"] == "decision_point"]
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "server.test",
                "common_tls_context": common_tls(certificates, "client"),
            },
        }

    return change


def common_tls(certificates: Path, name: str) -> dict[str, Any]:
    """A certificate of its own, and that of the peer verified."""
    return {
        "alpn_protocols": ["h2"] if name == "client" else ["http/1.1"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(certificates / f"{name}.pem")},
                "private_key": {"filename": str(certificates / f"{name}.key")},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(certificates / "ca.pem")}},
    }


def with_mutual_tls(certificates: Path) -> dict[str, object]:
    """Settings of a process that serves nobody else."""
    return {
        "tls.cert_file": str(certificates / "server.pem"),
        "tls.key_file": str(certificates / "server.key"),
        "tls.client_ca_file": str(certificates / "ca.pem"),
        "tls.allowed_sans": ["client.test"],
    }


def test_over_mutual_tls(certificates: Path, serve_stated: ServeStated, start_envoy: StartEnvoy) -> None:
    """Between Envoy and the decision point."""
    served = serve_stated(with_mutual_tls(certificates))
    proxy = start_envoy(served.grpc, {"failure_mode_allow": True}, change=mutual_tls(certificates))
    assert went_through(proxy, proxy.request("GET", "/", STATED))
    refused = proxy.request("GET", "/", {"x-result": "false"})
    assert not went_through(proxy, refused)
    assert refused.status == 403


def test_an_envoy_without_a_certificate_gets_no_answer(
    certificates: Path, serve_stated: ServeStated, start_envoy: StartEnvoy
) -> None:
    """Which is a failure, so Envoy refuses by itself."""
    served = serve_stated(with_mutual_tls(certificates))
    proxy = start_envoy(served.grpc)
    response = proxy.request("GET", "/", STATED)
    assert (response.status, went_through(proxy, response)) == (403, False)


def test_over_a_unix_socket(serve_stated: ServeStated, start_envoy: StartEnvoy, short_dir: Path) -> None:
    """No port, and permissions of the file system."""
    served = serve_stated({"listen.grpc": f"unix://{short_dir}/pdp.sock"})
    proxy = start_envoy(served.grpc, {"failure_mode_allow": True})
    assert went_through(proxy, proxy.request("GET", "/", STATED))
    assert not went_through(proxy, proxy.request("GET", "/", {"x-result": "false"}))


def test_the_certificate_of_the_client(certificates: Path, serve_stated: ServeStated, start_envoy: StartEnvoy) -> None:
    """Envoy tells who the client is, by its principal and its certificate, and which server it asked for."""
    served = serve_stated()
    port = free_port()

    def change(config: dict[str, Any]) -> None:
        listeners = config["static_resources"]["listeners"]
        secured = json.loads(json.dumps(listeners[0]))
        secured["name"] = "secured"
        secured["address"]["socket_address"]["port_value"] = port
        secured["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": common_tls(certificates, "server"),
            },
        }
        listeners.append(secured)

    proxy = start_envoy(served.grpc, {"include_peer_certificate": True, "include_tls_session": True}, change=change)
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname="server.test") as secured,
    ):
        secured.sendall(
            b"GET / HTTP/1.1\r\nhost: shop\r\nx-result: true\r\nx-request-id: tls-1\r\nconnection: close\r\n\r\n"
        )
        assert received(secured).startswith(b"HTTP/1.1 200")
    given = proxy.wait_logged("tls-1")["metadata"]["input"]
    assert given["source_principal"] == given["attributes"]["source"]["principal"] == "client.test"
    assert given["attributes"]["tlsSession"] == {"sni": "server.test"}
    sent = unquote(given["attributes"]["source"]["certificate"])
    assert sent.split() == (certificates / "client.pem").read_text().split()


def received(connection: socket.socket) -> bytes:
    """All until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


# Upgrades ------------------------------------------------------------------------------------------------------------


class WebSocketServer:
    """Switches protocols, then sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.reached = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.reached += 1
            with connection:
                seen = b""
                while b"\r\n\r\n" not in seen:
                    seen += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 101 Switching\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
                while part := connection.recv(65536):
                    connection.sendall(part)

    def close(self) -> None:
        """Ends it."""
        self._listener.close()


@pytest.fixture
def sockets() -> Iterator[WebSocketServer]:
    """One, ended after the test."""
    with closing(WebSocketServer()) as made:
        yield made


def allow_upgrades(config: dict[str, Any]) -> None:
    """To web sockets, which Envoy refuses by default."""
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    chain["filters"][0]["typed_config"]["upgrade_configs"] = [{"upgrade_type": "websocket"}]


@pytest.mark.parametrize("allowed", [True, False])
def test_an_upgrade_to_a_web_socket(
    allowed: bool, serve_stated: ServeStated, start_envoy: StartEnvoy, sockets: WebSocketServer
) -> None:
    """Is decided once, before anything is sent either way; Envoy keeps no body back for it."""
    served = serve_stated()
    proxy = start_envoy(served.grpc, forwards_to=sockets.port, change=allow_upgrades)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        upgrade = (
            b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
        )
        result = b"true" if allowed else b"false"
        client.sendall(b"GET /ws HTTP/1.1\r\nhost: shop\r\nx-request-id: ws-1\r\nx-result: " + result + b"\r\n")
        client.sendall(upgrade + b"\r\n")
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += client.recv(65536)
        assert seen.startswith(b"HTTP/1.1 101 " if allowed else b"HTTP/1.1 403 ")
        if allowed:
            client.sendall(b"\x81\x02hi")
            echoed = b""
            while len(echoed) < 4:
                echoed += client.recv(4)
            assert echoed == b"\x81\x02hi"
    assert sockets.reached == int(allowed)
    given = proxy.wait_logged("ws-1")["metadata"]["input"]
    assert given["attributes"]["request"]["http"]["headers"]["upgrade"] == "websocket"
    assert (given["parsed_path"], given["parsed_body"]) == (["ws"], None)


# Failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure_mode_allow", [True, False])
def test_a_process_that_died(failure_mode_allow: bool, serve_stated: ServeStated, start_envoy: StartEnvoy) -> None:
    """It is for the operator to say; when it is back, it decides again."""
    served = serve_stated()
    proxy = start_envoy(served.grpc, {"failure_mode_allow": failure_mode_allow, "status_on_error": {"code": 503}})
    assert went_through(proxy, proxy.request("GET", "/", STATED))
    served.kill()
    response = proxy.request("GET", "/", {"x-result": "false"})
    assert response.status == (200 if failure_mode_allow else 503)
    assert went_through(proxy, response) is failure_mode_allow
    served.start()
    served.wait_ready()
    deadline = time.monotonic() + PATIENCE
    while proxy.request("GET", "/", {"x-result": "false"}).status != 403:
        # Envoy waits a moment before it connects again.
        assert time.monotonic() < deadline, proxy.log
        time.sleep(0.05)
    proxy.upstream.reached = 0
    assert not went_through(proxy, proxy.request("GET", "/", {"x-result": "false"}))


@pytest.mark.parametrize("failure_mode_allow", [True, False])
def test_a_process_that_does_not_answer(
    failure_mode_allow: bool, serve_stated: ServeStated, start_envoy: StartEnvoy
) -> None:
    """Envoy gives up after its own timeout."""
    served = serve_stated()
    grpc_service = {"envoy_grpc": {"cluster_name": "decision_point"}, "timeout": "0.2s"}
    proxy = start_envoy(served.grpc, {"failure_mode_allow": failure_mode_allow, "grpc_service": grpc_service})
    served.process.send_signal(signal.SIGSTOP)
    try:
        response = proxy.request("GET", "/", {"x-result": "false"})
    finally:
        served.process.send_signal(signal.SIGCONT)
    assert response.status == (200 if failure_mode_allow else 403)
    assert went_through(proxy, response) is failure_mode_allow


def traced(config: dict[str, Any]) -> None:
    """By a tracer that copies `tracestate` of the client into each question. Nobody collects what it tells."""
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    chain["filters"][0]["typed_config"]["tracing"] = {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "decision_point"}, "timeout": "0.25s"},
                "service_name": "envoy",
            },
        }
    }


@pytest.mark.parametrize("transport", ["auto", "grpcio"])
def test_a_client_cannot_make_the_question_about_it_fail(
    transport: str, serve_stated: ServeStated, start_envoy: StartEnvoy
) -> None:
    """Not by headers that Envoy copies into the metadata of the question, as many as it takes."""
    served = serve_stated({"transport": transport})
    proxy = start_envoy(served.grpc, {"failure_mode_allow": True}, change=traced)
    parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    for size in (12_000, 40_000, 60_000):
        headers = {**parent, "tracestate": "a=" + "x" * size}
        response = proxy.request("GET", "/", {**headers, "x-result": "false"})
        assert (response.status, went_through(proxy, response)) == (403, False)
    # Envoy did ask in each case, and its question says what the client did.
    assert went_through(proxy, proxy.request("GET", "/", {**headers, **STATED}))


def test_a_policy_that_does_not_end_lets_nobody_through(serve_stated: ServeStated, start_envoy: StartEnvoy) -> None:
    """It is cut off here, in time to deny."""
    served = serve_stated({"limits.eval_timeout": "100ms"})
    proxy = start_envoy(served.grpc, {"failure_mode_allow": True})
    response = proxy.request("GET", "/", {"x-loop": "1"})
    assert (response.status, went_through(proxy, response)) == (500, False)


@pytest.mark.parametrize(
    ("on_failure", "failure_mode_allow", "status"),
    [("deny", True, 429), ("deny", False, 429), ("error", False, 429), ("error", True, 200)],
)
def test_a_process_that_sheds(
    on_failure: str, failure_mode_allow: bool, status: int, serve_stated: ServeStated, start_envoy: StartEnvoy
) -> None:
    """Refuses, and says when to come back; where both operators want it so, the request passes."""
    served = serve_stated(
        {
            "limits.max_concurrent": 1,
            # As long as the test needs to see it; it is over when the process ends.
            "limits.eval_timeout": "20s",
            "shutdown.grace": "100ms",
            "policy.ext_authz_on_failure": on_failure,
        }
    )
    proxy = start_envoy(served.grpc, {"failure_mode_allow": failure_mode_allow})
    done = threading.Event()
    slow = threading.Thread(target=ask_slowly, args=(proxy, done), daemon=True)
    slow.start()
    deadline = time.monotonic() + PATIENCE
    while (response := proxy.request("GET", "/", {"x-result": "false"})).status == 403:
        assert time.monotonic() < deadline, "nothing was shed"
    assert response.status == status
    assert response.header("x-upstream") == (["echo"] if status == 200 else [])
    if status == 429:
        assert response.header("retry-after") == ["1"]
        assert b"try again" in response.body
    done.set()
    served.kill()
    slow.join(PATIENCE)
    assert not slow.is_alive()


def ask_slowly(proxy: Envoy, done: threading.Event) -> None:
    """One request at a time: the first may be the one that is shed."""
    while not done.is_set():
        with suppress(OSError):
            proxy.request("GET", "/", {"x-loop": "1"})


# Dry run -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_lets_everything_through_and_records_what_would_have_been(
    sark_pdp: Path, serve_stated: ServeStated, start_envoy: StartEnvoy
) -> None:
    """Denials, failed and undefined evaluations, and what cannot even be judged."""
    served = serve_stated({"policy.ext_authz_dry_run": True, "limits.eval_timeout": "100ms"})
    assert "policy.ext_authz_dry_run is on" in served.log
    proxy = start_envoy(served.grpc)
    asked = {
        "deny": ("/", {"x-result": '{"allowed": false, "http_status": 401}'}),
        "undefined": ("/", {}),
        "error": ("/", {"x-loop": "1"}),
        "no decision: parsed_path: a '%' must be followed by two hexadecimal digits": ("/%", STATED),
    }
    told = {}
    for number, (told_as, (path, headers)) in enumerate(asked.items()):
        assert went_through(proxy, proxy.request("GET", path, {**headers, "x-request-id": f"dry-{number}"}))
        metadata = proxy.wait_logged(f"dry-{number}")["metadata"]
        assert metadata["dry_run"] == told_as
        if "decision_id" in metadata:
            told[metadata["decision_id"]] = told_as
    assert went_through(proxy, proxy.request("GET", "/", {"x-result": '{"allowed": true, "headers": {"x-a": "1"}}'}))
    assert served.stop() == 0
    command: list[str | Path] = [sark_pdp, "audit", "list", "--spool", served.spool_dir, "--limit", "0", "--json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    recorded = {event["id"]: event["decision"] for event in map(json.loads, listed.splitlines())}
    assert {decision_id: recorded[decision_id] for decision_id in told} == told
