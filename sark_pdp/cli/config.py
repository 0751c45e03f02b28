"""`sark-pdp config`: what the settings are, where each came from, and what there is to set."""

from pathlib import Path

import click
import msgspec

from sark_pdp.cli.options import source_options
from sark_pdp.settings import DEFAULT, Loaded, load
from sark_pdp.settings.describe import json_schema, markdown, shown_values


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp config --config sark-pdp.yaml\n"
    "  SARK_PDP_CACHE__L1__SIZE=5000 sark-pdp config --json\n"
    "  sark-pdp config --schema > sark-pdp.schema.json     for the editor that completes the file"
)
@source_options
@click.option("--json", "form", flag_value="json", help="As JSON, each key with its value and origin.")
@click.option("--schema", "form", flag_value="schema", help="The JSON schema of a settings file.")
@click.option("--docs", "form", flag_value="docs", help="The reference of all settings, Markdown.")
def config(config: Path | None, overrides: tuple[str, ...], form: str | None) -> None:
    """Show the effective settings and where each came from.

    Later sources win: defaults, the file, the environment, --set.
    """
    if form == "schema":
        click.echo(_pretty(json_schema()))
    elif form == "docs":
        click.echo(markdown(), nl=False)
    elif form == "json":
        loaded = load(config, overrides)
        origins = loaded.origins
        shown = shown_values(loaded)
        click.echo(_pretty({key: {"value": value, "origin": origins[key]} for key, value in shown.items()}))
    else:
        _print_table(load(config, overrides))


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _print_table(loaded: Loaded) -> None:
    from rich.text import Text

    from sark_pdp.cli import terminal

    table = terminal.table("Setting", "Value", "From")
    for key, value in shown_values(loaded).items():
        style = "dim" if loaded.origins[key] == DEFAULT else ""
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        table.add_row(*(Text(cell, style, overflow="fold") for cell in (key, text, loaded.origins[key])))
    terminal.console().print(table)
