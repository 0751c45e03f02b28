"""The certificate that callers are shown: read again when its files change, without a connection less."""

import logging
import os
import ssl
from pathlib import Path

from msgspec import Struct

from sark_pdp.errors import StartError

_log = logging.getLogger(__name__)


class Files(Struct, frozen=True):
    """PEM; with `client_ca_file` a caller needs a certificate."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class Certificate:
    """One pair of files. `context` stays the same: what is loaded into it counts from the next handshake on."""

    def __init__(self, files: Files) -> None:
        """Raises StartError."""
        self._files = files
        self._pair = b""
        self.problem = ""
        """Why what is in the files now is not in use; empty where it is."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._load(self._read())
            if files.client_ca_file is not None:
                self.context.load_verify_locations(files.client_ca_file)
                self.context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise StartError(
                f"tls.cert_file, tls.key_file and tls.client_ca_file: {files.cert_file} and {files.key_file} must be a "
                f"certificate and its key, and authorities be certificates, in PEM and without a password ({error})"
            ) from error

    def expires(self) -> float:
        """When the loaded one ends, in seconds since 1970."""
        # It takes some megabytes, which not everybody who has a certificate wants to pay.
        from cryptography import x509

        return x509.load_pem_x509_certificate(self._pair).not_valid_after_utc.timestamp()

    def refresh(self) -> bool:
        """Takes what is in the files now; whether it is another one than before. What cannot be used is left alone.

        A kubelet changes both files of a Secret at once; others may not, and a half of each is no pair.
        """
        try:
            pair = self._read()
            if pair == self._pair:
                self.problem = ""
                return False
            self._load(pair)
        except (OSError, ValueError) as error:
            if not self.problem:
                _log.warning("the certificate in %s cannot be used: %s", self._files.cert_file, error)
            self.problem = f"{self._files.cert_file} cannot be used: {error}"
            return False
        self.problem = ""
        _log.info("another certificate is in use")
        return True

    def _read(self) -> bytes:
        return self._files.cert_file.read_bytes() + b"\n" + self._files.key_file.read_bytes()

    def _load(self, pair: bytes) -> None:
        """Into another context first: one that failed would be left with half of it. Raises OSError."""
        # OpenSSL reads files only, and those of the certificate may have changed since they were read.
        handle = os.memfd_create("certificate")
        try:
            path = f"/proc/self/fd/{handle}"
            Path(path).write_bytes(pair)
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
                # With an empty password OpenSSL asks nobody for one.
                context.load_cert_chain(path, password="")
        finally:
            os.close(handle)
        self._pair = pair
