"""Each way to reach the process answers alike: TCP, a Unix socket, TLS and mTLS."""

import re
import subprocess
import time
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_health.v1 import health_pb2

from sark_pdp.audit.event import Event
from tests.fix_native import (
    CHECK,
    EXT_AUTHZ,
    STATUS,
    STREAM,
    Channel,
    asking,
    assert_quiet,
    event,
    events,
    failure,
    http,
    metric,
    running,
    wait_until,
    wire_policy,
)
from tests.fix_serve import START_TIMEOUT, Serve, Sidecar, free_port

pytestmark = pytest.mark.carried

Connect: TypeAlias = Callable[[], Channel]

SERVER, CLIENT, STRANGER = "pdp.test", "gateway.test", "stranger.test"
LOOPBACK = ip_address("127.0.0.1")
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each authority, `ca` and `other-ca`, and of each name, which `ca` signed: `.pem` and `.key`."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, issuer: Any = None) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signer, signing_key = issuer or (subject, key)
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(LOOPBACK)]), critical=False)
            .sign(signing_key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(pem)
        return subject, key

    authority = make("ca.test")
    make("other-ca.test")
    for name in (SERVER, CLIENT, STRANGER):
        make(name, authority)
    return folder


def credentials(certificates: Path, client: str | None = None, ca: str = "ca.test") -> grpc.ChannelCredentials:
    root = (certificates / f"{ca}.pem").read_bytes()
    if client is None:
        return grpc.ssl_channel_credentials(root)
    key, certificate = ((certificates / f"{client}.{end}").read_bytes() for end in ("key", "pem"))
    return grpc.ssl_channel_credentials(root, key, certificate)


def tls_settings(certificates: Path, *allowed: str, mutual: bool) -> dict[str, object]:
    files = {"tls.cert_file": str(certificates / f"{SERVER}.pem"), "tls.key_file": str(certificates / f"{SERVER}.key")}
    if mutual:
        files["tls.client_ca_file"] = str(certificates / "ca.test.pem")
    return {**files, **({"tls.allowed_sans": list(allowed)} if allowed else {})}


class Listening:
    """A process and the addresses that it listens on."""

    def __init__(self, served: Sidecar) -> None:
        self.served = served
        addresses: Any = served.settings["listen.grpc"]
        self.tcp, self.unix = map(str, addresses)


def listening(sark_pdp: Path, wire_bundle: Path, state: str, tls: dict[str, object]) -> Any:
    addresses = [f"127.0.0.1:{free_port()}", "unix://{folder}/pdp.sock"]
    return running(sark_pdp, {**wire_policy(wire_bundle), "listen.grpc": addresses, "state_dir": state, **tls})


@pytest.fixture(scope="module", params=["plain", "TLS", "mTLS"])
def process(
    request: pytest.FixtureRequest, sark_pdp: Path, wire_bundle: Path, shared_state: str, certificates: Path
) -> Iterator[Listening]:
    tls = {
        "plain": {},
        "TLS": tls_settings(certificates, mutual=False),
        "mTLS": tls_settings(certificates, CLIENT, mutual=True),
    }[request.param]
    with listening(sark_pdp, wire_bundle, shared_state, tls) as served:
        yield Listening(served)
        assert_quiet(served.log)


@pytest.fixture(params=["TCP", "Unix"])
def channel(request: pytest.FixtureRequest, process: Listening, certificates: Path) -> Iterator[Channel]:
    """A good one to each of the addresses."""
    settings = process.served.settings
    with ExitStack() as stack:
        if request.param == "Unix":
            yield stack.enter_context(Channel(process.unix))
        elif "tls.cert_file" not in settings:
            yield stack.enter_context(Channel(process.tcp))
        else:
            client = CLIENT if "tls.client_ca_file" in settings else None
            yield stack.enter_context(Channel(process.tcp, credentials(certificates, client), SERVER))


def run_what_is_greeted_with(served: Sidecar) -> int:
    """The exit code of the command that a person is told to try."""
    deadline = time.monotonic() + START_TIMEOUT
    # It is printed once the process serves, and comes to its end with the line of the command.
    while not (found := re.search(r"Try:\n(.+)\n", served.output)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    command = found[1]
    tried = subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, text=True, timeout=60)
    assert tried.stderr == ""
    return tried.returncode


def test_the_command_that_is_greeted_with_runs_as_it_stands(process: Listening) -> None:
    """The policy has nothing to say to it, which is a denial."""
    assert run_what_is_greeted_with(process.served) == 1


@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mTLS"])
def test_it_runs_over_tls_where_there_is_nothing_else(
    sark_pdp: Path, wire_bundle: Path, shared_state: str, certificates: Path, mutual: bool
) -> None:
    settings = {**wire_policy(wire_bundle), "state_dir": shared_state, **tls_settings(certificates, mutual=mutual)}
    with running(sark_pdp, settings) as served:
        assert run_what_is_greeted_with(served) == 1


def test_every_service_answers(process: Listening, channel: Channel) -> None:
    answer = channel.check(case="allow")
    assert answer.allow
    assert channel.check(case="deny").outcome == 2
    assert [result.response.allow for result in channel.batch(asking("allow"), asking("deny"))] == [True, False]
    assert len(list(channel.stream(iter([asking("allow").SerializeToString()] * 3)))) == 3
    assert channel.envoy(http("/allow")).WhichOneof("http_response") == "ok_response"
    assert channel.envoy(http("/deny")).WhichOneof("http_response") == "denied_response"
    assert (
        channel.call("/grpc.health.v1.Health/Check", b"")
        == health_pb2.HealthCheckResponse(status="SERVING").SerializeToString()
    )
    refused = failure(lambda: channel.call(CHECK, b"\xff"))
    assert refused.code == "INVALID_ARGUMENT"
    event(process.served.spool_dir, answer.decision_id)


def test_who_asked_is_audited(request: pytest.FixtureRequest, process: Listening, channel: Channel) -> None:
    recorded = event(process.served.spool_dir, channel.check(case="allow").decision_id)
    tcp = "TCP" in request.node.name
    mutual = tcp and "tls.client_ca_file" in process.served.settings
    assert recorded.ip_address == ("127.0.0.1" if tcp else None)
    assert recorded.user_agent is not None
    assert recorded.user_agent.startswith("grpc-python")
    assert recorded.details.get("peer") == (CLIENT if mutual else None)


@pytest.mark.parametrize("method", [CHECK, EXT_AUTHZ])
def test_the_trace_of_a_call_is_audited(process: Listening, channel: Channel, method: str) -> None:
    trace, other = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
    told = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
    asked = asking("allow", salt=trace) if method == CHECK else http("/allow")
    known = {each.id for each in events(process.served.spool_dir)}
    channel.channel.unary_unary(method)(asked.SerializeToString(), timeout=60, metadata=told)
    if method == EXT_AUTHZ:
        # What Envoy was asked belongs to a trace too: that one counts.
        asked = http("/allow", traceparent=f"00-{other}-b7ad6b7169203331-01")
        channel.channel.unary_unary(method)(asked.SerializeToString(), timeout=60, metadata=told)
    expected = [trace] if method == CHECK else [trace, other]

    def recorded() -> bool:
        new = [each for each in events(process.served.spool_dir) if each.id not in known]
        return [each.details.get("trace_id") for each in new if "trace_id" in each.details] == expected

    wait_until(recorded)


def test_the_socket_is_for_owner_and_group_and_that_of_administration_for_the_owner(process: Listening) -> None:
    sockets = [Path(address.removeprefix("unix://")) for address in (process.unix, process.served.admin)]
    modes = [socket.stat().st_mode & 0o777 for socket in sockets]
    assert modes == [0o660, 0o600]


def test_administration_answers_on_its_socket_and_only_there(process: Listening, channel: Channel) -> None:
    with Channel(process.served.admin) as admin:
        assert admin.status().serving
        assert failure(lambda: admin.call(CHECK, asking("allow"))).code == "UNIMPLEMENTED"
    assert failure(channel.status).code == "UNIMPLEMENTED"


def test_tls_is_needed_where_it_is_set(process: Listening, certificates: Path) -> None:
    secure = "tls.cert_file" in process.served.settings
    with Channel(process.tcp) as plain:
        assert secure is False or failure(lambda: plain.check(case="allow")).code == "UNAVAILABLE"
    bad = credentials(certificates, CLIENT, ca="other-ca.test")
    with Channel(process.tcp, bad, SERVER) as unverified:
        assert failure(lambda: unverified.check(case="allow")).code == "UNAVAILABLE"


@pytest.fixture(scope="module")
def mutual(sark_pdp: Path, wire_bundle: Path, shared_state: str, certificates: Path) -> Iterator[Listening]:
    """mTLS, administration over TCP too."""
    settings = tls_settings(certificates, "somebody.test", CLIENT, mutual=True)
    admin = {"listen.admin": f"127.0.0.1:{free_port()}"}
    with listening(sark_pdp, wire_bundle, shared_state, {**settings, **admin}) as served:
        yield Listening(served)
        assert_quiet(served.log)


def violations(mutual: Listening, before: Container[str] = ()) -> list[Event]:
    """Refused clients that were recorded, but for those before."""
    found = events(mutual.served.spool_dir)
    return [each for each in found if each.event_type == "security_violation" and each.id not in before]


@pytest.mark.parametrize("client", [None, "other-ca.test"])
def test_a_client_without_a_certificate_of_the_authority_gets_no_connection(
    mutual: Listening, certificates: Path, client: str | None
) -> None:
    before = {each.id for each in violations(mutual)}
    for target in (mutual.tcp, mutual.served.admin):
        with Channel(target, credentials(certificates, client), SERVER) as channel:
            assert failure(lambda: channel.call(STATUS, b"")).code == "UNAVAILABLE"  # called at once
    # grpcio tells nobody of a handshake that failed.
    if "sark_front_" in mutual.served.get("/metrics")[1]:
        wait_until(lambda: any("tls.client_ca_file" in each.details["reason"] for each in violations(mutual, before)))


@pytest.mark.parametrize("method", [CHECK, EXT_AUTHZ, STREAM, WATCH, STATUS])
def test_a_client_whose_certificate_has_another_name_is_refused_on_each_kind_of_call(
    mutual: Listening, certificates: Path, method: str
) -> None:
    before = {each.id for each in violations(mutual)}
    target = mutual.served.admin if method == STATUS else mutual.tcp
    with Channel(target, credentials(certificates, STRANGER), SERVER) as stranger:
        calls: dict[str, Callable[[], Any]] = {
            STREAM: lambda: list(stranger.stream(iter([asking("allow").SerializeToString()]))),
            WATCH: lambda: list(stranger.watch(WATCH)),
        }
        refused = failure(calls.get(method, lambda: stranger.call(method, asking("allow"))))
    assert refused.code == "PERMISSION_DENIED"
    assert "tls.allowed_sans" in refused.details
    counted = metric(mutual.served, "grpc_server_handled_total", grpc_code="PermissionDenied")
    assert counted >= 1
    wait_until(lambda: any(STRANGER in each.details["names"] for each in violations(mutual, before)))
    assert {each.details["ip_address"] for each in violations(mutual)} == {"127.0.0.1"}


def test_administration_over_tcp_answers_a_client_with_an_allowed_name(mutual: Listening, certificates: Path) -> None:
    with Channel(mutual.served.admin, credentials(certificates, CLIENT), SERVER) as admin:
        assert admin.status().serving


def test_a_key_of_another_certificate_stops_the_start(serve: Serve, certificates: Path, shared_state: str) -> None:
    settings = tls_settings(certificates, mutual=False)
    served = serve({**settings, "tls.key_file": str(certificates / f"{CLIENT}.key"), "state_dir": shared_state})
    assert served.wait_exit() == 2
    assert served.log.startswith("sark-pdp: tls.cert_file and tls.key_file: ")
    assert len(served.log.splitlines()) == 1


def test_an_authority_that_is_none_stops_the_start(serve: Serve, certificates: Path, shared_state: str) -> None:
    settings = tls_settings(certificates, mutual=True)
    served = serve({**settings, "tls.client_ca_file": str(certificates / f"{CLIENT}.key"), "state_dir": shared_state})
    assert served.wait_exit() == 2
    assert served.log.startswith("sark-pdp: tls.client_ca_file: ")
    assert len(served.log.splitlines()) == 1
