"""What the writer shows its clients, and what it asks of theirs: files that are looked at for each handshake."""

import logging
from typing import Any

import grpc

from sark_pdp.certificates import Files
from sark_pdp.errors import StartError

_log = logging.getLogger(__name__)


def credentials(tls: Files) -> grpc.ServerCredentials:
    """Another certificate, key or authority counts from the next connection on. Raises StartError."""
    reloaded = _Reloaded(tls)
    # None is what gRPC takes for "as before", whatever its stubs say.
    changed: Any = reloaded.changed
    return grpc.dynamic_ssl_server_credentials(
        reloaded.configuration(), changed, require_client_authentication=tls.client_ca_file is not None
    )


class _Reloaded:
    """The files as they were last taken."""

    def __init__(self, tls: Files) -> None:
        self._tls = tls
        try:
            self._content = self._read()
        except OSError as error:
            raise StartError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Of the present content."""
        key, chain, roots = self._content
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None where nothing did. gRPC asks before each handshake, and keeps the old ones where these are no pair."""
        try:
            content = self._read()
        except OSError as error:
            _log.warning("%s cannot be read: %s; the certificate before it stays", error.filename, error.strerror)
            return None
        if content == self._content:
            return None
        self._content = content
        _log.info("another certificate is shown from now on")
        return self.configuration()

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        tls = self._tls
        roots = None if tls.client_ca_file is None else tls.client_ca_file.read_bytes()
        return tls.key_file.read_bytes(), tls.cert_file.read_bytes(), roots
