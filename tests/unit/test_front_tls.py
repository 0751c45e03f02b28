"""Certificates that change while the front serves."""

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sark_pdp.addresses import TcpAddress
from sark_pdp.transport.tls import Tls
from tests.fix_front import TIMEOUT, Carried, until

pytest.importorskip("sark_pdp._front", reason="the front was not built")


def write(folder: Path, number: int) -> None:
    """A certificate with this serial number, and its key; each file is replaced in one step."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pdp.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    replace(folder / "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    replace(folder / "cert.pem", certificate.public_bytes(Encoding.PEM))


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Carried]:
    write(tmp_path, 1)
    made = Carried(TcpAddress("localhost", 0), tls=Tls(tmp_path / "cert.pem", tmp_path / "key.pem"))
    yield made
    made.close()


@pytest.fixture
def serial(served: Carried) -> Callable[[], int]:
    """The serial number of the certificate that a new connection sees."""
    assert isinstance(served.address, TcpAddress)
    where = (served.address.host, served.address.port)

    def ask() -> int:
        pem = ssl.get_server_certificate(where, timeout=TIMEOUT)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    return ask


def test_new_connections_see_new_certificates_and_old_ones_go_on(
    served: Carried, serial: Callable[[], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert serial() == 1
    assert isinstance(served.address, TcpAddress)
    credentials = grpc.ssl_channel_credentials((tmp_path / "cert.pem").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{served.address.port}", credentials) as channel:
        call = channel.unary_unary("/a.B/Unary")  # type: ignore[var-annotated]
        assert call(b"before", timeout=TIMEOUT) == b"before"
        write(tmp_path, 2)
        until(lambda: serial() == 2)
        assert call(b"after", timeout=TIMEOUT) == b"after"
    assert served.told().connections_accepted >= 3
    assert [record.message for record in caplog.records][-1] == "new certificates are in use"


LOOKS_SECONDS = 2.5
"""The front looks at the files at most once a second."""


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_broken_certificate_is_told_once_and_the_one_before_it_stays(
    serial: Callable[[], int], tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: bytes
) -> None:
    caplog.set_level("INFO")
    replace(tmp_path / "cert.pem", broken)

    def told() -> list[str]:
        # The files are looked at when a peer connects.
        assert serial() == 1
        return [record.message for record in caplog.records]

    until(told)
    end = time.monotonic() + LOOKS_SECONDS
    while time.monotonic() < end:
        assert told() == ["new certificates cannot be used; those from before stay"]
        time.sleep(0.1)
    caplog.clear()
    write(tmp_path, 3)
    until(lambda: serial() == 3)
    assert caplog.records[-1].message == "new certificates are in use"
