"""TLS and mTLS of the listeners: the files, and who the peer proved to be."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sark_pdp.errors import StartError
from sark_pdp.transport.handler import Reply, Status

if TYPE_CHECKING:
    import grpc

FOREIGN_PEER: Final = Reply(
    status=Status.PERMISSION_DENIED, details="the client's certificate has none of the names in tls.allowed_sans"
)


class Tls(Struct, frozen=True):
    """Files of PEM; with `client_ca_file` a client needs a certificate, and with `allowed_sans` one of these names."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    allowed_sans: tuple[str, ...] = ()
    on_refusal: Callable[[str, Sequence[str], str], None] | None = None
    """Told the address of a client that is refused, the names in its certificate, and why; must not wait."""

    def credentials(self) -> "grpc.ServerCredentials":
        """Raises StartError where a file cannot be read, or does not hold what it should."""
        import grpc

        self.require_usable()
        return grpc.ssl_server_credentials(
            [(_read(self.key_file), _read(self.cert_file))],
            root_certificates=None if self.client_ca_file is None else _read(self.client_ca_file),
            require_client_auth=self.client_ca_file is not None,
        )

    def require_usable(self) -> None:
        """Raises StartError; gRPC itself would say no more than that it cannot listen."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        wanted = (
            f"tls.cert_file and tls.key_file: {self.cert_file} and {self.key_file} must be a certificate and its key"
        )
        try:
            # With an empty password OpenSSL asks nobody for one.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
            if self.client_ca_file is not None:
                wanted = f"tls.client_ca_file: {self.client_ca_file} must be certificates"
                context.load_verify_locations(self.client_ca_file)
        except OSError as error:
            raise StartError(f"{wanted}, in PEM and without a password") from error


def peer_identity(names: Sequence[str], tls: Tls, address: str) -> str | None:
    """The SAN that names the peer, an allowed one where any are stated; None where it has no allowed one."""
    if not tls.allowed_sans:
        return names[0] if names else ""
    found = next((name for name in names if name in tls.allowed_sans), None)
    if found is None and tls.on_refusal is not None:
        tls.on_refusal(address, names, FOREIGN_PEER.details)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
