"""The audit writer's certificate is taken anew while streams are open."""

import socket
import ssl

import grpc

from tests.fix_authority import Authority
from tests.fix_writer_process import AuditWriter, StartWriter
from tests.fix_writer_streams import TIMEOUT, Stream, event


def test_another_certificate_is_shown_without_a_restart(
    store: str, start_writer: StartWriter, authority: Authority
) -> None:
    """Whoever is connected stays; who comes next sees it, also after a half of a pair was there."""
    shown, key = authority.issue("shown")
    writer = start_writer(store, tls__cert_file=str(shown), tls__key_file=str(key))
    trusted = grpc.ssl_channel_credentials(authority.file.read_bytes())
    with grpc.secure_channel(writer.address, trusted) as before:
        stream = Stream(before)
        stream.send(event(1))
        stream.wait_acknowledged(1)
        first = _certificate_of(writer, authority)
        other, other_key = authority.issue("other")
        shown.write_bytes(other.read_bytes())
        assert _certificate_of(writer, authority) == first
        key.write_bytes(other_key.read_bytes())
        assert _certificate_of(writer, authority) == ssl.PEM_cert_to_DER_cert(other.read_text())
        stream.send(event(2))
        stream.wait_acknowledged(2)
        stream.finish()


def _certificate_of(writer: AuditWriter, authority: Authority) -> bytes | None:
    host, _, port = writer.address.rpartition(":")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        return secure.getpeercert(binary_form=True)
