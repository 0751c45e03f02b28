"""`sark-pdp status`: what a running process does."""

from typing import Any

import click

from sark_pdp._proto.admin_pb2 import GetStatusRequest, GetStatusResponse
from sark_pdp.cli.administration import administer
from sark_pdp.cli.options import settings_options
from sark_pdp.settings import Loaded

_EXIT_PROBLEMS = 1


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp status\n"
    "  sark-pdp status --json | jq .audit\n"
    "  sark-pdp status --set listen.admin=unix:///run/sark/admin.sock"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@settings_options
def status(loaded: Loaded, *, as_json: bool) -> None:
    """Show what a running process does, and what is wrong.

    Asks the process on listen.admin of the same settings. Exit code 0: serving without a problem, 1: there are
    problems, 2: it cannot be asked.
    """
    answer = administer(loaded.settings, "GetStatus", GetStatusRequest(), GetStatusResponse)
    if as_json:
        from google.protobuf.json_format import MessageToJson

        click.echo(MessageToJson(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        _show(answer)
    if not answer.serving or answer.problems:
        raise SystemExit(_EXIT_PROBLEMS)


def _show(answer: GetStatusResponse) -> None:
    from rich.markup import escape

    from sark_pdp.cli.terminal import console as make_console
    from sark_pdp.cli.terminal import table

    console = make_console()
    console.print("[green]serving[/]" if answer.serving else "[red]not serving[/]")
    bundles = table("Bundle", "Revision", "Digest", "Last error")
    for bundle in answer.bundles:
        bundles.add_row(*map(escape, (bundle.name, bundle.revision or "-", bundle.digest[:12], bundle.error or "-")))
    caches = table("Cache", "Entries", "Capacity", "Hits", "Misses", "Hit rate")
    for cache in answer.caches:
        asked = cache.hits + cache.misses
        rate = f"{cache.hits / asked:.1%}" if asked else "-"
        held = map(_count, (cache.entries, cache.capacity)) if cache.capacity else ("-", "-")
        caches.add_row(cache.name, *held, *map(_count, (cache.hits, cache.misses)), rate)
    trail = answer.audit
    shipping = ("Shipped", "Lag") if trail.ships else ()
    audit = table("Audit source", "Committed", "Queued", "Spool", "Dropped", *shipping)
    audit.add_row(
        escape(trail.source) or "off",
        *map(_count, (trail.sequence, trail.queued)),
        f"{trail.spool_bytes / 1024:,.0f} KiB",
        _count(trail.dropped),
        *((_count(trail.shipped), f"{trail.lag_seconds:,.1f} s") if trail.ships else ()),
    )
    for section in (bundles, caches, audit):
        console.print()
        console.print(section)
    for cache in answer.caches:
        for note in cache.notes:
            console.print(f"\n{cache.name}: {escape(note)}", soft_wrap=True)
    for problem in answer.problems:
        console.print(f"\n[red]{escape(problem)}[/]", soft_wrap=True)


def _count(number: Any) -> str:
    return f"{number:,}"
