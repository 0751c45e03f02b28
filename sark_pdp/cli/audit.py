"""`sark-pdp audit`: reads and verifies the audit trail, of this machine or of an audit writer."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sark_pdp.audit.search import Counts, Found, Selection
from sark_pdp.audit.verify import Report
from sark_pdp.cli.audit_options import SpoolPlace, WriterPlace, place_options, selection_options, spool_options

if TYPE_CHECKING:
    from sark_pdp.cli.audit_trails import Trail

_EXIT_DIFFERENCES = 1
_EXIT_UNCHECKED = 2
_BEFORE = 10
"""Events that `tail` begins with."""

_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, one object on each line.")


@click.group()
def audit() -> None:
    """Read, verify and export the audit trail: of this machine, or, with --writer, of all sidecars.

    Nothing here changes the trail, and each command may run while `sark-pdp serve` writes it. A sidecar that ships
    its events keeps none that a writer has: ask the writer for those.
    """


@audit.command(
    "list",
    epilog="\b\nExamples:\n"
    "  sark-pdp audit list --decision deny --since 1h\n"
    "  sark-pdp audit list --user alice@example.com --tool search --limit 10\n"
    "  sark-pdp audit list --json --limit 0 | jq .details.reason     all of them\n"
    "  sark-pdp audit list --writer audit.example:9010 --ca-file ca.crt --cert-file me.crt --key-file me.key",
)
@place_options
@selection_options
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many; 0: all.")
@_json_option
def list_(place: SpoolPlace | WriterPlace, selection: Selection, limit: int, *, as_json: bool) -> None:
    """Show events, newest first."""
    with place.opened() as trail:
        events = trail.newest(selection, limit)
        if as_json:
            _print_json(events)
        else:
            _print_events(list(events), trail, selection)


@audit.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp audit tail -f\n"
    "  sark-pdp audit tail -f --decision deny --json | jq -r .user_id\n"
    "  sark-pdp audit tail -f --writer 127.0.0.1:9010 --type security_violation"
)
@place_options
@selection_options
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until interrupted.")
@_json_option
def tail(place: SpoolPlace | WriterPlace, selection: Selection, *, follow: bool, as_json: bool) -> None:
    """Show the last events, oldest first.

    With --follow an audit writer that goes away is waited for, and what was stored meanwhile is shown first. Ctrl-C
    ends it with exit code 0.
    """
    show = _print_json if as_json else _print_lines
    with place.opened() as trail:
        if follow:
            try:
                for events in trail.follow(selection, _BEFORE):
                    show(events)
            except KeyboardInterrupt:
                return
        before = list(trail.newest(selection, _BEFORE))
        show(reversed(before))
        if not (before or as_json):
            _print_nothing(trail.title, selection)


@audit.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp audit stats\n"
    "  sark-pdp audit stats --since 1h --user alice --json\n"
    "  sark-pdp audit stats --writer 127.0.0.1:9010 --since 7d --type authorization_denied"
)
@place_options
@selection_options
@_json_option
def stats(place: SpoolPlace | WriterPlace, selection: Selection, *, as_json: bool) -> None:
    """Count events by decision, type and tool; at an audit writer by type, user and hour.

    A writer counts whole hours, without --since the last 24, and knows no other filters than --user and --type.
    """
    from sark_pdp.cli.audit_output import print_counts, print_hours

    with place.opened() as trail:
        counts = trail.counts(selection)
        title = trail.title
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(counts)))
    elif not counts.events:
        _print_nothing(title, selection)
    elif isinstance(counts, Counts):
        print_counts(counts)
    else:
        print_hours(counts)


@audit.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp audit export --output trail.jsonl\n"
    "  sark-pdp audit export --writer 127.0.0.1:9010 --since 30d --decision deny --output denials.csv\n"
    "  sark-pdp audit export --since 1h | jq -r .user_id | sort | uniq -c\n"
    "\b\n"
    "Exit codes: 0 all is written, 2 it is not, 130 interrupted. A file is there when all is written; one that was "
    "there before stays until then."
)
@place_options
@selection_options
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Default: standard output."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("jsonl", "csv")),
    help="jsonl: the exact bytes of each event on a line. csv: for spreadsheets; what one would calculate gets a '"
    " before it. Default: csv where FILE ends in .csv, else jsonl.",
)
@click.option("--limit", type=click.IntRange(min=0), default=0, help="At most so many. Default: all.")
def export(
    place: SpoolPlace | WriterPlace, selection: Selection, output: Path | None, form: str | None, limit: int
) -> None:
    """Write events to a file, newest first."""
    from sark_pdp.cli.audit_export import export as write
    from sark_pdp.cli.audit_export import format_of

    path = None if output in {None, Path("-")} else output
    if path is None and sys.stdout.isatty():
        raise click.UsageError(
            "what callers wrote may do harm to a terminal; name a file with --output, use a pipe, or `audit list`"
        )
    with place.opened() as trail:
        number = write(trail.newest(selection, limit), format_of(path, form), path, selection.since or trail.earliest())
    if path is not None:
        click.echo(f"{number:,} events written to {path}", err=True)


@audit.command(
    short_help="Check that nothing was changed, taken out or added.",
    epilog="\b\nExamples:\n"
    "  sark-pdp audit verify\n"
    "  sark-pdp audit verify --spool /backup/audit --key-file chain.key --json\n"
    "  sark-pdp audit verify --dsn postgresql://auditor@db/audit --key-file chain.key\n"
    "\b\n"
    "Exit codes: 0 no difference (the end of a source may be unproven), 1 differences, 2 could not be checked.",
)
@spool_options
@click.option(
    "--key-file",
    "key_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A chain key. Repeatable, for keys that were replaced. Default: audit.chain_key_file of the settings.",
)
@click.option("--dsn", metavar="DSN", help="Not a spool, but the database of the audit writer. Without a password.")
@click.option("--dsn-file", type=click.Path(path_type=Path), metavar="FILE", help="A file that holds it.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def verify(
    spool: SpoolPlace, key_files: tuple[Path, ...], *, dsn: str | None, dsn_file: Path | None, as_json: bool
) -> None:
    """Check that nothing was changed, taken out or added, and say how far that is proven.

    With --dsn or --dsn-file every event in the database of the audit writer is checked, its columns too. The server
    sorts all of them, for which it takes temporary space of their size.
    """
    from sark_pdp.audit.chain import read_key
    from sark_pdp.audit.reader import SpoolReader
    from sark_pdp.audit.verify import verify as verify_spool
    from sark_pdp.cli.audit_output import print_report

    files = key_files or ((spool.key_file,) if spool.key_file else ())
    keys = [read_key(file) for file in files]
    stored = dsn is not None or dsn_file is not None
    if stored:
        report = _verify_stored(dsn, dsn_file, keys)
    else:
        with SpoolReader(spool.directory) as reader:
            report = verify_spool(reader, keys)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(report)))
    elif not report.sources:
        _print_nothing("the database" if stored else str(spool.directory), Selection())
    else:
        print_report(report)
    if report.differences:
        sys.exit(_EXIT_DIFFERENCES)
    if report.unchecked:
        sys.exit(_EXIT_UNCHECKED)


def _verify_stored(dsn: str | None, dsn_file: Path | None, keys: list[bytes]) -> Report:
    from sark_pdp.audit_writer.verify import verify as verify_stored
    from sark_pdp.cli.db import named_dsn
    from sark_pdp.postgres.connections import connect

    with connect(named_dsn(dsn, dsn_file), "sark-pdp audit verify") as connection:
        return verify_stored(connection, keys)


def _print_json(events: Iterable[Found]) -> None:
    for found in events:
        # ASCII alone: what callers wrote reaches a terminal as escapes.
        click.echo(json.dumps(msgspec.to_builtins(found.event)))


def _print_lines(events: Iterable[Found]) -> None:
    from sark_pdp.cli.audit_output import print_lines

    print_lines(found.event for found in events)


def _print_events(events: list[Found], trail: "Trail", selection: Selection) -> None:
    from sark_pdp.cli.audit_output import print_events

    if events:
        print_events((found.event for found in events), sources=trail.many_sources)
    else:
        _print_nothing(trail.title, selection)


def _print_nothing(title: str, selection: Selection) -> None:
    matching = "" if selection == Selection() else " that match"
    click.echo(f"There are no events{matching} in {title} yet.")
