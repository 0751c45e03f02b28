"""The injector as a process: its certificate, what it makes of odd questions, and how it ends."""

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509

from sark_pdp.cli import main
from sark_pdp.settings.injector import InjectorSettings
from sark_pdp.settings.keys import all_keys
from tests.fix_authority import Authority
from tests.fix_injector import PATIENCE, Injector, StartInjector, answer_of, review_of

POD = {
    "metadata": {"name": "app", "annotations": {"sark.io/inject": "true"}},
    "spec": {"containers": [{"name": "app", "image": "app:1"}]},
}
RELOADS = "sark_injector_certificate_reloads_total"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shown(injector: Injector) -> int:
    """The serial number of the certificate that a new connection is shown."""
    with contextlib.closing(injector.connect()) as connection:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        raw = connection.sock.getpeercert(binary_form=True)
    assert raw is not None
    return x509.load_der_x509_certificate(raw).serial_number


def serial(file: Path) -> int:
    return x509.load_pem_x509_certificate(file.read_bytes()).serial_number


@pytest.fixture(scope="module")
def injector_process(sark_pdp: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    """One for tests that leave it as it is."""
    injector = Injector(sark_pdp, tmp_path_factory.mktemp("injector"), {"limits.max_review_bytes": "64KiB"})
    injector.start()
    yield injector
    assert injector.stop() == 0


def test_another_certificate_counts_from_the_next_connection_on(start_injector: StartInjector) -> None:
    """And a connection that is there goes on."""
    injector = start_injector()
    before = shown(injector)
    with contextlib.closing(injector.connect()) as connection:
        connection.request("POST", "/inject", review_of(POD))
        connection.getresponse().read()
        opened = connection.sock

        certificate, _ = injector.authority.issue("injector", timedelta(minutes=30))
        wait_until(lambda: shown(injector) == serial(certificate) != before)
        connection.request("POST", "/inject", review_of(POD))
        answer = connection.getresponse()

        assert answer_of(answer.read())["allowed"]
        assert connection.sock is opened
    wait_until(lambda: injector.metric(RELOADS) == 1)
    ends = injector.metric("sark_injector_certificate_expiry_timestamp_seconds")
    assert ends == x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()


@pytest.mark.parametrize("broken", ["half of each", "no PEM", "gone"])
def test_a_certificate_that_cannot_be_used_leaves_the_old_one(
    broken: str, tmp_path: Path, start_injector: StartInjector
) -> None:
    injector = start_injector()
    certificate, key = (Path(str(injector.settings[f"tls.{each}_file"])) for each in ("cert", "key"))
    before = serial(certificate)
    if broken == "gone":
        key.unlink()
    elif broken == "no PEM":
        certificate.write_text("no certificate")
    else:
        key.write_bytes(Authority(tmp_path).issue("other")[1].read_bytes())
    wait_until(lambda: "cannot be used" in injector.log)

    assert shown(injector) == before
    assert answer_of(injector.ask(review_of(POD))[1])["allowed"]
    # Once it can be used, it is.
    injector.authority.issue("injector")
    wait_until(lambda: shown(injector) == serial(certificate))


def test_an_expired_certificate_is_no_readiness(start_injector: StartInjector) -> None:
    injector = start_injector()

    injector.authority.issue("injector", timedelta(seconds=-5))
    wait_until(lambda: injector.probe("/readyz")[0] == HTTPStatus.SERVICE_UNAVAILABLE)

    assert "the certificate in tls.cert_file has expired" in injector.probe("/readyz")[1]
    assert injector.probe("/healthz")[0] == HTTPStatus.OK


def test_only_who_has_a_certificate_may_ask_where_clients_need_one(
    tmp_path: Path, start_injector: StartInjector
) -> None:
    clients = Authority(tmp_path, "clients")
    injector = start_injector({"tls.client_ca_file": str(clients.file)})

    with contextlib.closing(injector.connect(clients.issue("apiserver"))) as known:
        known.request("POST", "/inject", review_of(POD))
        answer = known.getresponse()
        assert answer_of(answer.read())["allowed"]
    for stranger in (None, Authority(tmp_path, "others").issue("stranger")):
        with contextlib.closing(injector.connect(stranger)) as connection, pytest.raises(OSError):  # noqa: PT011, PT012 (TLS 1.3 says so when it is read)
            connection.request("POST", "/inject", review_of(POD))
            connection.getresponse()


ODD = {
    b"": "the body is no AdmissionReview",
    b"{}": "the body is no AdmissionReview",
    b"\xff\xfe": "the body is no AdmissionReview",
    b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}': "admissionReviewVersions of the webhook",
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}': "has no request with a uid",
    review_of(POD, uid=""): "has no request with a uid",
    review_of({"spec": {"containers": 7}}): "request.object is no pod",
    review_of({"spec": {}}): "request.object is no pod",
}


@pytest.mark.parametrize("body", ODD)
def test_what_is_no_review_is_refused_with_what_is_wrong(body: bytes, injector_process: Injector) -> None:
    reviews = 'sark_injector_reviews_total{outcome="invalid"}'
    before = injector_process.metric(reviews)

    status, said = injector_process.ask(body)

    assert status == HTTPStatus.BAD_REQUEST
    assert ODD[body] in said.decode()
    assert injector_process.metric(reviews) == before + 1


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"operation": "CONNECT", "subResource": "exec"},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "", "version": "v1", "kind": "Service"}},
        {"namespace": "kube-system"},
    ],
    ids=str,
)
def test_what_is_no_new_pod_stays_as_it_is(request_: dict[str, Any], injector_process: Injector) -> None:
    status, body = injector_process.ask(review_of(POD, **request_), "/inject-all")

    assert (status, answer_of(body)) == (HTTPStatus.OK, {"uid": "1", "allowed": True})


def test_a_volume_of_the_sidecars_is_mounted_by_nobody_else(injector_process: Injector) -> None:
    """Where its socket could be replaced, say. Without a sidecar the API server would know no such volume."""
    app = {"name": "app", "image": "app:1", "volumeMounts": [{"name": "sark-pdp-socket", "mountPath": "/mine"}]}

    answer = answer_of(injector_process.ask(review_of({**POD, "spec": {"containers": [app]}}))[1])

    assert not answer["allowed"]
    assert "container app mounts the volume sark-pdp-socket, which is the sidecar's" in answer["status"]["message"]


def test_a_review_that_is_too_large_is_refused_before_it_is_kept(injector_process: Injector) -> None:
    status, said = injector_process.ask(b"x" * 70_000)

    assert status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert b"limits.max_review_bytes" in said


def held(stack: contextlib.ExitStack, injector: Injector, said: bytes) -> ssl.SSLSocket:
    """A connection on which nothing follows."""
    connection = injector.connect()
    stack.callback(connection.close)
    connection.connect()
    assert isinstance(connection.sock, ssl.SSLSocket)
    connection.sock.sendall(said)
    return connection.sock


def test_connections_on_which_nobody_asks_keep_nobody_from_asking(start_injector: StartInjector) -> None:
    injector = start_injector({})
    with contextlib.ExitStack() as stack, contextlib.closing(injector.connect()) as api_server:
        first = held(stack, injector, b"")
        for _ in range(255):
            held(stack, injector, b"POST /inject HTTP/1.1\r\n")
        for _ in range(2):
            api_server.request("POST", "/inject", review_of(POD))
            assert answer_of(api_server.getresponse().read())["allowed"]
        first.settimeout(PATIENCE)
        assert _is_closed(first)
        for _ in range(100):
            held(stack, injector, b"")
        # It has been asked on since the others were opened, so they make room.
        api_server.request("POST", "/inject", review_of(POD))
        assert answer_of(api_server.getresponse().read())["allowed"]
    assert injector.metric('sark_injector_crowded_out_total{what="connection"}') == 101


def _is_closed(connection: ssl.SSLSocket) -> bool:
    try:
        return connection.recv(1) == b""
    except OSError:
        return True


def test_reviews_that_never_end_take_no_more_than_their_share(start_injector: StartInjector) -> None:
    injector = start_injector({})
    size = 7 * 2**20
    head = b"POST /inject HTTP/1.1\r\nHost: injector\r\nContent-Length: %d\r\n\r\n" % size
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            held(stack, injector, head + (size - 1) * b" ")
        wait_until(lambda: injector.metric('sark_injector_crowded_out_total{what="review"}') == 2)
        assert answer_of(injector.ask(review_of(POD))[1])["allowed"]
        wait_until(lambda: injector.metric('sark_injector_reviews_total{outcome="unread"}') == 2)


def test_a_warning_is_never_longer_than_clients_are_shown(start_injector: StartInjector) -> None:
    injector = start_injector({"inject.on_failure": "admit"})
    annotations = {"sark.io/inject": "true", f"sark.io/{'x' * 5000}": "\n" * 5000}

    response = answer_of(injector.ask(review_of({**POD, "metadata": {"annotations": annotations}}))[1])

    assert response["allowed"]
    assert [len(warning) <= 250 and "\n" not in warning for warning in response["warnings"]] == [True]


def test_ready_waits_until_a_process_serves(sark_pdp: Path, injector_process: Injector) -> None:
    address = str(injector_process.settings["listen.metrics"])
    runner = CliRunner()

    serving = runner.invoke(main, ["ready", "--address", address], env={})
    nobody = runner.invoke(main, ["ready", "--address", "127.0.0.1:1", "--wait", "150ms"], env={})

    assert (serving.exit_code, serving.output) == (0, "")
    assert nobody.exit_code == 1
    assert "not ready: 127.0.0.1:1 does not answer" in nobody.stderr
    assert runner.invoke(main, ["ready", "--wait", "soon"], env={}).exit_code == 2


def refused(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Settings, and what is said of them."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("injector")
    sidecar, broken = tmp_path / "sidecar.yaml", tmp_path / "broken.yaml"
    sidecar.write_text("listen: {metrics: '127.0.0.1:1'}\n")
    broken.write_text("cache: {l1: {size: many}}\n")
    told, shared = tmp_path / "told.yaml", tmp_path / "shared.yaml"
    told.write_text("attributes: {postgres_dsn: 'postgresql://a@db/b?password=hunter2'}\n")
    shared.write_text("cache: {l2: {url: 'redis://:hunter2@redis:6379'}}\n")
    tls = [f"tls.cert_file={certificate}", f"tls.key_file={key}"]
    good = ["sidecar.image=image:1", "inject.events=false", *tls]
    return {
        "no image": ([], "sidecar.image: is not set; name the image"),
        "no certificate": (
            ["sidecar.image=image:1"],
            "tls.cert_file: is not set; the API server asks over HTTPS alone",
        ),
        "no file": ([*good, "tls.key_file=/nonexistent"], "tls.key_file: '/nonexistent' (flag) cannot be read"),
        "no cluster": ([good[0], *tls], "where there is no cluster to tell, set inject.events to false"),
        "no pair": ([*good, f"tls.key_file={certificate}"], "must be a certificate and its key"),
        "no quantity": ([*good, "sidecar.memory_limit=128MB"], "sidecar.memory_limit: '128MB' (flag) is no size"),
        "limit": ([*good, "sidecar.cpu_limit=50m"], "sidecar.cpu_limit: '50m' (flag) is below sidecar.cpu_request"),
        "spool": ([*good, "sidecar.spool_size=1Ki"], "sidecar.spool_size: '1Ki' (flag) is too small"),
        "port": ([*good, "sidecar.metrics=0.0.0.0:80"], "has a port below 1024"),
        "secret": ([*good, "sidecar.secret=A b"], "sidecar.secret: 'A b' (flag) is no name of a Secret"),
        "namespace": ([*good, 'inject.excluded_namespaces=["A"]'], "'A' (flag) is no name of a namespace"),
        "url": ([*good, "kubernetes.url=http://x"], "kubernetes.url: 'http://x' (flag) is no place of an API"),
        "own": ([*good, f"sidecar.settings_file={sidecar}"], "sets listen.metrics, which the injector decides about"),
        "password": ([*good, f"sidecar.settings_file={told}"], "attributes.postgres_dsn has a password in it"),
        "another": ([*good, f"sidecar.settings_file={shared}"], "cache.l2.url has a password in it"),
        "theirs": ([*good, f"sidecar.settings_file={broken}"], "cache.l1.size: 'many'"),
        "slip": (
            [*good, "sidecar.imag=x"],
            "sidecar.imag: there is no such setting (flag); did you mean sidecar.image?",
        ),
    }


def test_what_cannot_be_used_stops_the_start_in_one_line(tmp_path: Path) -> None:
    for name, (overrides, says) in refused(tmp_path).items():
        result = CliRunner().invoke(main, ["injector", *(f"--set={override}" for override in overrides)], env={})

        assert result.exit_code == 2, name
        assert says in result.stderr, name
        assert "hunter2" not in result.stderr, name
        assert result.stderr.count("\n") == 1, name


def test_the_documentation_names_every_setting() -> None:
    text = (Path(__file__).parents[2] / "docs" / "injector.md").read_text()

    assert [key for key in all_keys(InjectorSettings) if f"`{key}`" not in text] == []


def test_it_tells_where_it_listens_and_logs_as_json(injector_process: Injector) -> None:
    lines = injector_process.log.splitlines()

    assert f"listen.webhook  {injector_process.settings['listen.webhook']}" in lines
    assert all(json.loads(line)["level"] for line in lines if line.startswith("{"))
