"""`sark-pdp audit`: reads and verifies the audit trail of this machine."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from sark_pdp.audit.event import Event
from sark_pdp.audit.filtered import DECISIONS
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.search import Selection, committed_after, count, newest
from sark_pdp.audit.verify import Report
from sark_pdp.audit.verify import verify as verify_spool
from sark_pdp.cli.options import source_options

_EXIT_DIFFERENCES = 1
_EXIT_UNCHECKED = 2
_POLL_SECONDS = 0.2
_BEFORE = 10
"""Events that `tail` begins with."""


class _Spool(msgspec.Struct, frozen=True):
    """Where a command reads."""

    directory: Path
    key_file: Path | None
    """The chain key of the settings, where the spool is theirs too."""


def _spool_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--spool`, `--config` and `--set`; the command gets a _Spool as its first argument."""

    @wraps(function)
    def with_spool(*args: Any, spool: Path | None, config: Path | None, overrides: tuple[str, ...], **rest: Any) -> Any:
        place = _spool_of_settings(config, overrides) if spool is None else _Spool(spool, None)
        return function(place, *args, **rest)

    option = click.option(
        "--spool",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The spool directory. Default: audit.spool_dir of the settings.",
    )
    return option(source_options(with_spool))


def _spool_of_settings(config: Path | None, overrides: tuple[str, ...]) -> _Spool:
    from sark_pdp.settings import load

    settings = load(config, overrides).settings.audit
    return _Spool(settings.spool_dir, settings.chain_key_file)


def _selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the filters; the command gets a Selection."""

    @wraps(function)
    def with_selection(*args: Any, since: str | None, until: str | None, **rest: Any) -> Any:
        fields = {name: rest.pop(name) for name in ("user", "tool", "server", "decision", "event_type")}
        return function(*args, selection=Selection(**fields, since=since, until=until), **rest)

    for option in reversed(
        (
            click.option("--user", metavar="ID", help="Only of this user id or email address."),
            click.option("--tool", metavar="NAME", help="Only about this tool."),
            click.option("--server", metavar="ID", help="Only about this server."),
            click.option("--decision", type=click.Choice(list(DECISIONS.values())), help="Only with this outcome."),
            click.option("--type", "event_type", metavar="TYPE", help="Only of this type: authorization_denied, …"),
            click.option("--since", callback=_point, metavar="TIME", help="Not before: RFC 3339, or 15m, 2h, 7d ago."),
            click.option("--until", callback=_point, metavar="TIME", help="Before: the same forms."),
        )
    ):
        with_selection = option(with_selection)
    return with_selection


def _point(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A point in time as events write it."""
    from sark_pdp.settings.units import parse_duration

    if value is None:
        return None
    try:
        point = datetime.now(UTC) - timedelta(seconds=parse_duration(value))
    except (ValueError, OverflowError):
        try:
            given = datetime.fromisoformat(value)
            point = given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(
                f"{value!r} is neither RFC 3339, as in 2026-01-31T12:00:00Z, nor a length of time, as in 15m"
            ) from error
    return point.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, one object on each line.")


@click.group()
def audit() -> None:
    """Read and verify the audit trail of this machine.

    Nothing here changes the trail, and each command may run while `sark-pdp serve` writes it.
    """


@audit.command(
    "list",
    epilog="\b\nExamples:\n"
    "  sark-pdp audit list --decision deny --since 1h\n"
    "  sark-pdp audit list --user alice@example.com --tool search --limit 10\n"
    "  sark-pdp audit list --json --limit 0 | jq .details.reason     all of them",
)
@_spool_options
@_selection_options
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many; 0: all.")
@_json_option
def list_(spool: _Spool, selection: Selection, limit: int, *, as_json: bool) -> None:
    """Show events, newest first."""
    with SpoolReader(spool.directory) as reader:
        events = islice(newest(reader, reader.snapshot().position, selection), limit or None)
        if as_json:
            _print_json(events)
        else:
            _print_events(list(events), spool.directory, selection)


@audit.command(
    epilog="\b\nExamples:\n  sark-pdp audit tail -f\n  sark-pdp audit tail -f --decision deny --json | jq -r .user_id"
)
@_spool_options
@_selection_options
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until interrupted.")
@_json_option
def tail(spool: _Spool, selection: Selection, *, follow: bool, as_json: bool) -> None:
    """Show the last events, oldest first."""
    show = _print_json if as_json else _print_lines
    with SpoolReader(spool.directory) as reader:
        position = reader.snapshot().position
        before = list(islice(newest(reader, position, selection), _BEFORE))
        show(reversed(before))
        if not (before or follow or as_json):
            _print_nothing(spool.directory, selection)
        while follow:
            position, events = committed_after(reader, position, selection)
            show(events)
            time.sleep(_POLL_SECONDS)


@audit.command(epilog="\b\nExamples:\n  sark-pdp audit stats\n  sark-pdp audit stats --since 1h --user alice --json")
@_spool_options
@_selection_options
@_json_option
def stats(spool: _Spool, selection: Selection, *, as_json: bool) -> None:
    """Count events by decision, type and tool."""
    from sark_pdp.cli.audit_output import print_counts

    with SpoolReader(spool.directory) as reader:
        counts = count(reader, selection)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(counts)))
    elif not counts.events:
        _print_nothing(spool.directory, selection)
    else:
        print_counts(counts)


@audit.command(
    short_help="Check that nothing was changed, taken out or added.",
    epilog="\b\nExamples:\n"
    "  sark-pdp audit verify\n"
    "  sark-pdp audit verify --spool /backup/audit --key-file chain.key --json\n"
    "  sark-pdp audit verify --dsn postgresql://auditor@db/audit --key-file chain.key\n"
    "\b\n"
    "Exit codes: 0 no difference (the end of a source may be unproven), 1 differences, 2 could not be checked.",
)
@_spool_options
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
    spool: _Spool, key_files: tuple[Path, ...], *, dsn: str | None, dsn_file: Path | None, as_json: bool
) -> None:
    """Check that nothing was changed, taken out or added, and say how far that is proven.

    With --dsn or --dsn-file every event in the database of the audit writer is checked, its columns too. The server
    sorts all of them, for which it takes temporary space of their size.
    """
    from sark_pdp.audit.chain import read_key
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
        _print_nothing("the database" if stored else spool.directory, Selection())
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


def _print_json(events: Iterable[Event]) -> None:
    for event in events:
        # ASCII alone: what callers wrote reaches a terminal as escapes.
        click.echo(json.dumps(msgspec.to_builtins(event)))


def _print_lines(events: Iterable[Event]) -> None:
    from sark_pdp.cli.audit_output import print_lines

    print_lines(events)


def _print_events(events: list[Event], directory: Path, selection: Selection) -> None:
    from sark_pdp.cli.audit_output import print_events

    if events:
        print_events(events)
    else:
        _print_nothing(directory, selection)


def _print_nothing(directory: Path | str, selection: Selection) -> None:
    matching = "" if selection == Selection() else " that match"
    click.echo(f"There are no events{matching} in {directory} yet.")
