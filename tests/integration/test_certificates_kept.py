"""What `sark-pdp certificates` does with Secrets into which somebody put something else, on a real API server."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sark_pdp.injector.api import Api
from sark_pdp.injector.authority import Plan, keep_valid
from tests.fix_kubernetes import Cluster

NAME = "web.test.svc"
Secrets = dict[str, dict[str, str]]


def another_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def nameless() -> str:
    """A certificate of somebody's own, for no DNS name."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=90))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


SPOILT: dict[str, tuple[str, str, Callable[[], str]]] = {
    "a certificate for no name": ("web-tls", "tls.crt", nameless),
    "the key of another certificate": ("web-tls", "tls.key", another_key),
    "no key at all": ("web-tls", "tls.key", lambda: "nonsense"),
    "the key of another authority": ("authority", "ca.key", another_key),
    "no key of the authority": ("authority", "ca.key", lambda: "nonsense"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_does_not_belong_together_is_made_anew(cluster: Cluster, tmp_path: Path, spoilt: str) -> None:
    namespace = cluster.namespace()
    for name in ("authority", "web-tls"):
        cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}})
    token = tmp_path / "token"
    token.write_text("token-of-the-tests")
    api = Api(cluster.url, token, cluster.ca_file)

    def kept() -> dict[str, bytes]:
        keep_valid(api, Plan(namespace, "authority", {"web-tls": (NAME,)}, None, 90), datetime.now(UTC), print)
        data = cluster.get("secret", "web-tls", namespace)["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    first = kept()
    secret, key, content = SPOILT[spoilt]
    patch = {"data": {key: base64.b64encode(content().encode()).decode()}}
    cluster.kubectl("patch", "secret", secret, f"--namespace={namespace}", f"--patch={json.dumps(patch)}")
    mended = kept()
    authorities = x509.load_pem_x509_certificates(mended["ca.crt"])
    certificate = x509.load_pem_x509_certificate(mended["tls.crt"])
    certificate.verify_directly_issued_by(authorities[0])
    assert mended["ca.crt"].endswith(first["ca.crt"])
    assert kept() == mended
