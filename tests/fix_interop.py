"""Servers of gRPC's interoperability service, in a process of their own: one for each carrier, and one with TLS."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec import Struct

ROOT = Path(__file__).parent.parent
CERTIFIED = "pdp.test"
"""The name in the certificate of a server with TLS."""


class Peer(Struct, frozen=True):
    """A server that runs."""

    port: int
    pid: int

    @property
    def target(self) -> str:
        """What a client connects to."""
        return f"127.0.0.1:{self.port}"

    def memory(self) -> int:
        """Resident bytes of the process now."""
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def serving(carrier: str, *certificate: Path, port: int = 0, under: Sequence[str] = ()) -> Iterator[Peer]:
    """`certificate` is none, or a certificate and its key; port 0 takes a free one; `under` is a command that runs it.

    The process must end well. Skips where the front is asked for and was not built.
    """
    if carrier == "front":
        pytest.importorskip("sark_pdp._front", reason="the front was not built")
    command = [*under, sys.executable, "-m", "tests.interop.serve", carrier, str(port), *map(str, certificate)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        bound = process.stdout.readline()
        assert bound, f"{command} did not start"
        yield Peer(int(bound), process.pid)
        assert process.poll() is None, "the server ended by itself"
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture(scope="session")
def front_peer() -> Iterator[Peer]:
    """On the front."""
    with serving("front") as peer:
        yield peer


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that signed itself, for `CERTIFIED`, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, CERTIFIED)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(CERTIFIED)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture(scope="session")
def tls_peer(certificate: tuple[Path, Path]) -> Iterator[Peer]:
    """On the front, with TLS."""
    with serving("front", *certificate) as peer:
        yield peer


@pytest.fixture(scope="session", params=["front", "grpcio"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """On each of the carriers."""
    with serving(request.param) as served:
        yield served
