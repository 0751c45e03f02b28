"""`sark-pdp ready`: whether a process here serves, for health checks of containers."""

import http.client
import time
from http import HTTPStatus
from typing import Final

import click

from sark_pdp.addresses import TcpAddress, parse_tcp
from sark_pdp.cli.options import settings_options
from sark_pdp.errors import one_line
from sark_pdp.settings import Loaded
from sark_pdp.settings.units import parse_duration

_PATIENCE: Final = 2.0
"""Seconds for one answer."""
_PAUSE: Final = 0.1
_LONGEST: Final = 1024
"""Characters of an answer that are shown: whoever listens there may be a stranger."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared with, not listened on)
_EXIT_NOT_READY: Final = 1


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp ready\n"
    "  sark-pdp ready --wait 60s\n"
    "  sark-pdp ready --address 127.0.0.1:9012          the audit writer"
)
@click.option("--wait", default="0", metavar="DURATION", help="How long it may take until it is, as in 60s.")
@click.option("--address", metavar="HOST:PORT", help="Its listen.metrics, where it is not that of the same settings.")
@settings_options
def ready(loaded: Loaded, *, wait: str, address: str | None) -> None:
    """Ask whether a process here serves.

    Asks /readyz on listen.metrics, as probes do. Exit code 0: it serves, 1: it does not, and says why.
    """
    try:
        asked = loaded.settings.listen.metrics if address is None else parse_tcp(address)
        deadline = time.monotonic() + parse_duration(wait)
    except ValueError as error:
        raise click.UsageError(f"{address if address is not None else wait} {error}") from None
    while (problem := _problem(asked)) is not None:
        if time.monotonic() >= deadline:
            click.echo(f"not ready: {one_line(problem.strip(), _LONGEST)}", err=True)
            raise SystemExit(_EXIT_NOT_READY)
        time.sleep(_PAUSE)


def _problem(address: TcpAddress) -> str | None:
    """None where it is ready."""
    host = _EVERYWHERE.get(address.host, address.host)
    connection = http.client.HTTPConnection(host, address.port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(_LONGEST).decode(errors="replace")
    except OSError as error:
        return f"{address} does not answer: {error}"
    except http.client.HTTPException as error:
        return f"{address} does not answer in HTTP: {error}"
    finally:
        connection.close()
    return None if answer.status == HTTPStatus.OK else text.removeprefix("not ready: ")
