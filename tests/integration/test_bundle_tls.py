"""Bundles over TLS: whom a sidecar trusts, whom it shows its certificate, and that files may rotate."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sark_pdp.engine.bundles.http_source import HttpLocation, HttpSource
from sark_pdp.engine.bundles.server import BundleServer
from sark_pdp.engine.wasm.policy import Runtime
from tests.fix_bundles import MakeBundle, kept, options, served, until, write

LIMIT = 1 << 26


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, `ca` and `foreign`, with what they signed for `localhost`: NAME.pem and NAME.key."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority, name in (("ca", "localhost"), ("foreign", "stranger")):
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _signed(authority, root_key, None, None)
        (folder / f"{authority}.pem").write_bytes(root.public_bytes(Encoding.PEM))
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _signed("localhost", key, root, root_key)
        (folder / f"{name}.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(pem)
    return folder


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey | None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(issuer_key or key, hashes.SHA256())


@pytest.fixture
def server(tmp_path: Path, make_bundle: MakeBundle, certificates: Path) -> Iterator[BundleServer]:
    """Wants a certificate of `ca` from its clients."""
    write(tmp_path / "b.tar.gz", make_bundle(1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "localhost.pem", certificates / "localhost.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with served(tmp_path) as started:
        # The handshake is the business of the thread that answers.
        started.socket = context.wrap_socket(started.socket, server_side=True, do_handshake_on_connect=False)
        yield started


def location(server: BundleServer, ca: Path, client: Path, host: str = "localhost") -> HttpLocation:
    return HttpLocation(
        f"https://{host}:{server.address.port}/b.tar.gz",
        ca_file=ca,
        client_cert_file=client.with_suffix(".pem"),
        client_key_file=client.with_suffix(".key"),
    )


def test_a_client_with_a_certificate_gets_the_bundle(
    patient_runtime: Runtime, server: BundleServer, certificates: Path, make_bundle: MakeBundle
) -> None:
    trusted = location(server, certificates / "ca.pem", certificates / "localhost")
    with kept(patient_runtime, (options(), HttpSource(trusted, LIMIT))) as running:
        until(lambda: running.seen.activated_ == ["r1"])
        write(server.folder / "b.tar.gz", make_bundle(2))
        until(lambda: running.mark() == 2)


WRONG: dict[str, tuple[str, str, str, str]] = {
    "a server that nobody vouches for": ("foreign", "localhost", "localhost", "self-signed certificate"),
    "a server of another name": ("ca", "localhost", "127.0.0.1", "IP address mismatch"),
    "a client that the server does not know": ("ca", "stranger", "localhost", "server"),
}


@pytest.mark.parametrize("case", WRONG)
def test_whoever_is_not_trusted_gets_nothing_and_the_status_says_why(
    patient_runtime: Runtime, server: BundleServer, certificates: Path, case: str
) -> None:
    ca, client, host, message = WRONG[case]
    wrong = location(server, certificates / f"{ca}.pem", certificates / client, host)
    with kept(patient_runtime, (options(), HttpSource(wrong, LIMIT))) as running:
        until(lambda: message in running.error())
        assert running.seen.activated_ == []


def test_an_authority_that_is_replaced_counts_at_the_next_look(
    patient_runtime: Runtime, server: BundleServer, certificates: Path, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes((certificates / "foreign.pem").read_bytes())
    with kept(
        patient_runtime, (options(), HttpSource(location(server, ca, certificates / "localhost"), LIMIT))
    ) as running:
        until(lambda: "self-signed certificate" in running.error())
        ca.write_bytes((certificates / "ca.pem").read_bytes())
        until(lambda: running.seen.activated_ == ["r1"])
