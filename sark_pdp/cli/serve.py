"""`sark-pdp serve`: the sidecar."""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from sark_pdp.addresses import Address, UnixAddress
from sark_pdp.cli import Failure, signals
from sark_pdp.cli.options import settings_options
from sark_pdp.errors import SarkError
from sark_pdp.observability import logging
from sark_pdp.settings import Loaded, TlsSettings

if TYPE_CHECKING:
    from sark_pdp.app import App

_QUESTION = (
    """{"action": "tool:invoke", "user": {"id": "bob", "roles": ["developer"]}, "tool": {"name": "search_code"}}"""
)


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp serve\n"
    "  sark-pdp serve --set listen.grpc=unix:///run/sark/pdp.sock\n"
    """  sark-pdp serve --set policy.bundles='[{"name": "mine", "path": "bundle.tar.gz"}]'\n"""
    "  SARK_PDP_LOG__LEVEL=warning sark-pdp serve --config sark-pdp.yaml"
)
@settings_options
def serve(loaded: Loaded) -> None:
    """Answer over gRPC until told to stop.

    Serves decisions, Envoy's ext_authz, health and reflection on listen.grpc; metrics and probes on listen.metrics;
    administration on listen.admin. SIGTERM or SIGINT: no longer ready, calls finish within shutdown.grace, the audit
    trail is flushed, exit code 0. SIGHUP: bundles are looked for at once. Logs go to standard error.
    """
    settings = loaded.settings
    # Sockets and the spool are for this user alone until their own modes are set.
    os.umask(0o077)
    logging.configure(settings.log.level, settings.log.format, sys.stderr)
    awaited = signals.END | {signal.SIGHUP}
    signals.hold(awaited)
    # gRPC's own log has another form, and a line for each caller that fails to shake hands. Read as it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from sark_pdp.app import App

    app = App(settings)
    app.start()
    # A word to whoever looks; that nobody does is no reason to end.
    with suppress(OSError):
        _greet(app, settings.tls)
    while signal.sigwait(awaited) == signal.SIGHUP:
        app.reload()
    code = 0
    try:
        app.stop()
    except SarkError as error:
        Failure(str(error)).show()
        code = Failure.exit_code
    # A policy that runs past the grace still has its thread, which an ordinary exit would wait for.
    os._exit(code)


def _greet(app: "App", tls: TlsSettings) -> None:
    lines = [f"{key:<15} {', '.join(map(str, addresses))}" for key, addresses in sorted(app.listening.items())]
    command = shlex.join([sys.argv[0], "check", *_way(app.listening["listen.grpc"], tls), "--input", _QUESTION])
    click.echo(
        "\n".join(
            [*lines, f"{'policy revision':<15} {', '.join(app.revisions) or 'none yet'}", "", "Try:", f"  {command}"]
        )
    )


def _way(addresses: Sequence[Address], tls: TlsSettings) -> list[str]:
    """The settings with which `check` reaches one of these addresses."""
    if tls.cert_file is None:
        return ["--set", f"address={addresses[0]}"]
    # A Unix socket asks for no certificate.
    for address in addresses:
        if isinstance(address, UnixAddress):
            return ["--set", f"address={address}"]
    files = {"tls.cert_file": tls.cert_file, "tls.key_file": tls.key_file, "tls.client_ca_file": tls.client_ca_file}
    settings = {"address": addresses[0], **{key: file for key, file in files.items() if file}}
    return [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
