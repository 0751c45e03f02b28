"""`sark-pdp check`: one decision from the shell."""

import sys
from pathlib import Path

import click
import msgspec

from sark_pdp.addresses import UnixAddress
from sark_pdp.cli.options import settings_options
from sark_pdp.client import Answer, Client, Tls
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Document, Outcome
from sark_pdp.settings import Loaded, Settings

_TIMEOUT_SECONDS = 5.0
_EXIT_DENIED = 1
_EXIT_ERROR = 2
_STYLES = {Outcome.ALLOW: "green", Outcome.DENY: "red", Outcome.UNDEFINED: "yellow", Outcome.ERROR: "red"}


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp check --input request.json\n"
    "  jq .details.input event.json | sark-pdp check --input - --json\n"
    """  sark-pdp check --input '{"action": "tool:list", "user": {"id": "dev-1", "roles": ["developer"]}}'\n"""
    "  sark-pdp check --policy sark/mcp/decision --input request.json && deploy"
)
@click.option("--policy", default="", metavar="ENTRYPOINT", help="The entrypoint to ask, where not the default one.")
@click.option(
    "--input",
    "source",
    default="-",
    metavar="FILE|-|JSON",
    help="What the policy sees as input: a file, standard input, or the JSON object itself. Default: standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@settings_options
def check(loaded: Loaded, *, policy: str, source: str, as_json: bool) -> None:
    """Ask a running process for one decision.

    Asks the process on the setting `address`. Exit code 0: allowed, 1: denied, 2: no decision, or an error in it.
    """
    settings = loaded.settings
    document = _document(source)
    with Client(str(settings.address), timeout=_TIMEOUT_SECONDS, tls=_tls(settings)) as client:
        answer = client.check_input(document, policy=policy)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(_shown(answer)), indent=2))
    else:
        _show(answer)
    if answer.error is not None or answer.outcome is Outcome.ERROR:
        sys.exit(_EXIT_ERROR)
    if not answer.allow:
        sys.exit(_EXIT_DENIED)


def _document(source: str) -> Document:
    if not source:
        raise InvalidRequestError("--input", "is empty; expected a file, - or a JSON object")
    if source.lstrip()[:1] in {"{", "["}:
        text = source.encode()
    elif source == "-":
        if sys.stdin.isatty():
            click.echo("reading the input document; end it with Ctrl-D", err=True)
        text = sys.stdin.buffer.read()
    else:
        try:
            text = Path(source).read_bytes()
        except OSError as error:
            raise InvalidRequestError("--input", f"{source}: {error.strerror}") from error
    try:
        document: Document = msgspec.json.decode(text, type=dict)
    except msgspec.DecodeError as error:
        raise InvalidRequestError("--input", f"expected a JSON object: {error}") from error
    return document


def _tls(settings: Settings) -> Tls | None:
    """What the client of this machine needs where the process has TLS: the process's own files."""
    tls = settings.tls
    if tls.cert_file is None or isinstance(settings.address, UnixAddress):
        return None
    if tls.client_ca_file is None:
        return Tls(ca_file=tls.cert_file)
    return Tls(ca_file=tls.client_ca_file, cert_file=tls.cert_file, key_file=tls.key_file)


def _shown(answer: Answer) -> dict[str, object]:
    shown = msgspec.to_builtins(answer)
    shown["outcome"] = answer.outcome.name.lower()
    shown["tier"] = None if answer.tier is None else answer.tier.name.lower()
    return dict(shown)


def _show(answer: Answer) -> None:
    from rich.text import Text

    from sark_pdp.cli import terminal

    table = terminal.table(header=False)
    table.add_row("decision", Text(answer.outcome.name.lower(), f"bold {_STYLES[answer.outcome]}"))
    shown = {
        "reason": answer.reason,
        "no decision": answer.error,
        "parameters": _json(answer.filtered_parameters),
        "result": _json(answer.result),
        "from": answer.tier and answer.tier.name.lower(),
        "reusable for": f"{answer.cache_ttl:.1f} s" if answer.cache_ttl else None,
        "policy revision": answer.policy_revision,
        "decision id": answer.decision_id,
    }
    for name, value in shown.items():
        if value:
            table.add_row(name, Text(value, overflow="fold"))
    terminal.console().print(table)


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
