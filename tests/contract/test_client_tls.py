"""The client over TLS and mTLS."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sark_pdp.client import Tls
from sark_pdp.errors import SettingsError
from tests.fix_client import Connect, ask, assert_denied, fake_pdp, serving


@pytest.fixture(params=["tcp", "unix"])
def tls_pdp(request: pytest.FixtureRequest, certificates: Path, short_dir: Path) -> Iterator[str]:
    """A decision point that accepts clients with a certificate only."""
    credentials = grpc.ssl_server_credentials(
        [((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())],
        (certificates / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix://{short_dir}/pdp.sock"
    with serving(fake_pdp, address, credentials) as bound:
        yield bound


@pytest.mark.parametrize(
    ("ca", "pair", "name", "allowed"),
    [
        ("ca", "client", "server.test", True),
        ("ca", None, "server.test", False),
        ("ca", "other-ca", "server.test", False),
        ("other-ca", "client", "server.test", False),
        ("ca", "client", "another.test", False),
        ("ca", "client", "", False),
    ],
)
def test_mtls(
    connect_client: Connect, tls_pdp: str, certificates: Path, ca: str, pair: str | None, name: str, allowed: bool
) -> None:
    tls = Tls(
        ca_file=certificates / f"{ca}.pem",
        cert_file=certificates / f"{pair}.pem" if pair else None,
        key_file=str(certificates / f"{pair}.key") if pair else None,
        server_name=name,
    )
    answer = ask(connect_client(tls_pdp, tls=tls, timeout=30))
    assert answer.allow is allowed
    assert (answer.error is None) is allowed


def test_plaintext_to_tls_denies(connect_client: Connect, tls_pdp: str) -> None:
    assert_denied(connect_client(tls_pdp, timeout=30), "UNAVAILABLE: ")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"ca_file": "missing.pem"}, "ca_file .*missing.pem"),
        ({"cert_file": "client.pem"}, "cert_file and key_file go together"),
        ({"key_file": "client.key"}, "cert_file and key_file go together"),
        ({"cert_file": "client.pem", "key_file": "missing.key"}, "key_file .*missing.key"),
    ],
)
def test_tls_files_that_cannot_be_used_raise(
    connect_client: Connect, certificates: Path, files: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        connect_client(tls=Tls(**{name: str(certificates / file) for name, file in files.items()}))
