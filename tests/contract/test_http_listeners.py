"""Each way to reach the HTTP API answers alike, and the audit trail says who came by it."""

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_http import EVALUATE, HttpClient, evaluate, serving_http
from tests.fix_native import assert_quiet, event, events, wait_until, wire_policy
from tests.fix_serve import Serve, Sidecar, free_port

NAME = "server.test"


def context(certificates: Path, client: str | None = None, ca: str = "ca") -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(certificates / f"{ca}.pem"))
    # The certificates are for names, the listeners on addresses.
    made.check_hostname = False
    if client is not None:
        made.load_cert_chain(certificates / f"{client}.pem", certificates / f"{client}.key")
    return made


def tls(certificates: Path, *allowed: str, mutual: bool) -> dict[str, object]:
    files = {"tls.cert_file": str(certificates / "server.pem"), "tls.key_file": str(certificates / "server.key")}
    if mutual:
        files["tls.client_ca_file"] = str(certificates / "ca.pem")
    return {**files, **({"tls.allowed_sans": list(allowed)} if allowed else {})}


@pytest.fixture(scope="module", params=["plain", "TLS", "mTLS"])
def served(
    request: pytest.FixtureRequest, sark_pdp: Path, wire_bundle: Path, shared_state: str, certificates: Path
) -> Iterator[Sidecar]:
    secure = {
        "plain": {},
        "TLS": tls(certificates, mutual=False),
        "mTLS": tls(certificates, "client.test", mutual=True),
    }[request.param]
    addresses = [f"127.0.0.1:{free_port()}", "unix://{folder}/http.sock"]
    spool = {"audit.spool_dir": "{folder}/audit", "state_dir": shared_state}
    with serving_http(sark_pdp, {**wire_policy(wire_bundle), "listen.http": addresses, **spool, **secure}) as running:
        yield running
        assert_quiet(running.log)


def addresses(served: Sidecar) -> tuple[str, str]:
    found: Any = served.settings["listen.http"]
    tcp, unix = map(str, found)
    return tcp, unix


@pytest.fixture(params=["TCP", "Unix"])
def client(request: pytest.FixtureRequest, served: Sidecar, certificates: Path) -> Iterator[HttpClient]:
    tcp, unix = addresses(served)
    secure = None
    if request.param == "TCP" and "tls.cert_file" in served.settings:
        secure = context(certificates, "client" if "tls.client_ca_file" in served.settings else None)
    with HttpClient(tcp if request.param == "TCP" else unix, secure) as made:
        yield made


def test_every_way_in_is_answered_and_audited_with_who_came(
    request: pytest.FixtureRequest, served: Sidecar, client: HttpClient
) -> None:
    answer = client.post(EVALUATE, {"case": "allow"}, user_agent="k6/1.8").json
    recorded = event(served.spool_dir, answer["decision_id"])
    tcp = "TCP" in request.node.name
    mutual = tcp and "tls.client_ca_file" in served.settings
    assert (recorded.user_agent, recorded.ip_address) == ("k6/1.8", "127.0.0.1" if tcp else None)
    assert recorded.details.get("peer") == ("client.test" if mutual else None)
    assert recorded.details.get("peer_uid") == (None if tcp else os.getuid())


def test_what_a_proxy_says_of_the_peer_is_not_believed(served: Sidecar, client: HttpClient) -> None:
    told = {"x_forwarded_for": "10.9.8.7", "forwarded": "for=10.9.8.7", "x_forwarded_proto": "https"}
    answer = client.post(EVALUATE, {"case": "allow"}, **told).json
    assert event(served.spool_dir, answer["decision_id"]).ip_address in {"127.0.0.1", None}


def test_the_trace_of_a_request_is_audited(served: Sidecar, client: HttpClient) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = client.post(EVALUATE, {"case": "allow"}, traceparent=f"00-{trace}-b7ad6b7169203331-01").json
    assert event(served.spool_dir, answer["decision_id"]).details["trace_id"] == trace
    answer = client.post(EVALUATE, {"case": "allow"}, traceparent="nonsense").json
    assert "trace_id" not in event(served.spool_dir, answer["decision_id"]).details


def test_one_connection_is_used_again_and_again(client: HttpClient) -> None:
    assert {evaluate(client, "allow", salt=salt)["allow"] for salt in range(20)} == {True}
    assert client.connection.sock is not None


def test_the_socket_is_for_owner_and_group(served: Sidecar) -> None:
    _, unix = addresses(served)
    assert Path(unix.removeprefix("unix://")).stat().st_mode & 0o777 == 0o660


def test_tls_is_needed_where_it_is_set(served: Sidecar, certificates: Path) -> None:
    tcp, _ = addresses(served)
    if "tls.cert_file" not in served.settings:
        with HttpClient(tcp) as plain:
            assert evaluate(plain, "allow")["allow"]
        return
    with HttpClient(tcp) as plain, pytest.raises(OSError):  # noqa: PT011 (a reset, or a closed connection)
        plain.post(EVALUATE, {})
    with HttpClient(tcp, context(certificates, "client", ca="other-ca")) as other, pytest.raises(ssl.SSLError):
        other.post(EVALUATE, {})


@pytest.fixture(scope="module")
def mutual(sark_pdp: Path, wire_bundle: Path, shared_state: str, certificates: Path) -> Iterator[Sidecar]:
    settings = {**wire_policy(wire_bundle), **tls(certificates, "somebody.test", mutual=True)}
    spool = {"audit.spool_dir": "{folder}/audit", "state_dir": shared_state}
    with serving_http(sark_pdp, {**settings, **spool}) as running:
        yield running
        assert_quiet(running.log)


def test_a_client_whose_certificate_has_another_name_is_refused_and_recorded(
    mutual: Sidecar, certificates: Path
) -> None:
    with HttpClient(str(mutual.settings["listen.http"]), context(certificates, "client")) as stranger:
        status, message = stranger.post(EVALUATE, {"case": "allow"}).problem
    assert (status, "tls.allowed_sans" in message) == (403, True)

    def recorded() -> bool:
        found = [each for each in events(mutual.spool_dir) if each.event_type == "security_violation"]
        return any(each.details.get("names") == ["client.test"] for each in found)

    wait_until(recorded)


@pytest.mark.parametrize("ca", [None, "other-ca"])
def test_a_client_without_a_certificate_of_the_authority_gets_no_answer(
    mutual: Sidecar, certificates: Path, ca: str | None
) -> None:
    with (
        HttpClient(str(mutual.settings["listen.http"]), context(certificates, ca)) as unknown,
        pytest.raises(OSError),  # noqa: PT011 (an alert, or a reset)
    ):
        unknown.post(EVALUATE, {"case": "allow"})


def test_where_it_listens_is_printed(served: Sidecar) -> None:
    tcp, unix = addresses(served)
    assert f"listen.http     {tcp}, {unix}\n" in served.output


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("192.0.2.1:9002", "listen.http: cannot listen on 192.0.2.1:9002"),
        ("unix:///no/such/folder/h.sock", "listen.http: the folder /no/such/folder of the socket does not exist"),
    ],
)
def test_an_address_that_cannot_be_had_stops_the_start(
    serve: Serve, shared_state: str, address: str, problem: str
) -> None:
    started = serve({"listen.http": address, "listen.insecure": True, "state_dir": shared_state})
    assert started.wait_exit() == 2
    assert started.log.startswith(f"sark-pdp: {problem}")
    assert len(started.log.splitlines()) == 1


def test_a_port_of_another_process_stops_the_start(serve: Serve, served: Sidecar, shared_state: str) -> None:
    tcp, _ = addresses(served)
    started = serve({"listen.http": tcp, "state_dir": shared_state})
    assert started.wait_exit() == 2
    assert started.log.startswith(f"sark-pdp: listen.http: cannot listen on {tcp}")


def test_a_renewed_certificate_is_shown_without_a_restart(
    sark_pdp: Path, wire_bundle: Path, certificates: Path, tmp_path: Path
) -> None:
    """And what was connected before goes on."""
    renewed = {"tls.cert_file": tmp_path / "tls.crt", "tls.key_file": tmp_path / "tls.key"}

    def put(name: str) -> None:
        (tmp_path / "tls.crt").write_bytes((certificates / f"{name}.pem").read_bytes())
        (tmp_path / "tls.key").write_bytes((certificates / f"{name}.key").read_bytes())

    def shown(listener: str) -> str:
        host, _, port = listener.rpartition(":")
        with socket.create_connection((host, int(port)), 30) as plain, trusting.wrap_socket(plain) as secure:
            names = (secure.getpeercert() or {})["subjectAltName"]
            return str(names[0][1])

    trusting = context(certificates)
    put("server")
    listener = f"127.0.0.1:{free_port()}"
    files = {key: str(file) for key, file in renewed.items()}
    with (
        serving_http(sark_pdp, {**wire_policy(wire_bundle), **files, "listen.http": listener}),
        HttpClient(listener, trusting) as before,
    ):
        assert before.get("/openapi.json").status == 200
        assert shown(listener) == "server.test"
        put("client")
        wait_until(lambda: shown(listener) == "client.test")
        assert before.get("/openapi.json").status == 200
