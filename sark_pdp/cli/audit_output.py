"""How events, counts and what `verify` found look on a terminal. What callers wrote is made harmless first."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from rich.table import Column
from rich.text import Text

from sark_pdp.audit.event import Event
from sark_pdp.audit.search import Counts
from sark_pdp.audit.verify import Report, SourceReport
from sark_pdp.cli import terminal
from sark_pdp.cli.audit_trails import HourCounts
from sark_pdp.model import Json

_STYLES = {"allow": "green", "deny": "yellow", "undefined": "yellow", "error": "red"}
_MOST_SHOWN = 10
_TIME_WIDTH = 19
_MINUTE_WIDTH = 16
_COLUMNS = ("Time (UTC)", "Event", "User", "Action", "Server", "Tool", "Policy", "Reason")
_SOURCE = "Source"
_UNBROKEN = 2
"""So many columns are never wrapped."""
_WIDE = 100
_WIDEST = 140
_LONGEST_DETAIL = 20
_CHAINS = {"keyed": "keyed", "keyless": "keyless", "unchecked": "not checked"}
_ENDS = {
    "stopped": "proven: stopped in order",
    "succeeded": "proven by its successor",
    "shipped": "shipped, nothing left here",
    "expired": "expired, nothing left here",
    "unproven": "unproven",
}


def print_events(events: Iterable[Event], *, sources: bool = False) -> None:
    """A table; `sources` adds where each event is from."""
    console = terminal.console()
    # A narrow terminal has no room for these; a pipe, `tail` and `--json` show them.
    left_out = {"Action", "Server", "Policy"} if console.width < _WIDE else set()
    shown = [index for index, name in enumerate(_COLUMNS) if name not in left_out]
    columns = [Column(_COLUMNS[index], no_wrap=index < _UNBROKEN) for index in shown]
    sources = sources and console.width >= _WIDEST
    table = terminal.table(*columns, *((_SOURCE,) if sources else ()))
    for event in events:
        cells = _cells(event)
        table.add_row(*(cells[index] for index in shown), *((_plain(event.source),) if sources else ()))
    console.print(table)


def print_lines(events: Iterable[Event]) -> None:
    """A line each, for what goes on."""
    console = terminal.console()
    for event in events:
        cells = [cell for cell in _cells(event) if cell.plain]
        console.print(Text("  ").join(cells), soft_wrap=True)


def print_counts(counts: Counts) -> None:
    """The span and the rate, then a table."""
    seconds = (datetime.fromisoformat(counts.until) - datetime.fromisoformat(counts.since)).total_seconds()
    rate = f", {counts.events / seconds:,.1f} events/s" if seconds else ""
    console = terminal.console()
    console.print(Text(f"{counts.events:,} events from {counts.since} to {counts.until}{rate}"), soft_wrap=True)
    if counts.dropped:
        console.print(Text(f"{counts.dropped:,} more were dropped, as audit_gap events say", "red"))
    _print_numbers(
        ("Decision", counts.decisions, None), ("Type", counts.types, None), ("Tool", counts.tools, _MOST_SHOWN)
    )


def print_hours(counts: HourCounts) -> None:
    """The hours that were counted, then a table."""
    span = f"{counts.since[:_MINUTE_WIDTH]}Z to {counts.until[:_MINUTE_WIDTH]}Z"
    console = terminal.console()
    console.print(Text(f"{counts.events:,} events in the whole hours from {span}"), soft_wrap=True)
    _print_numbers(
        ("Type", counts.types, None), ("User", counts.users, _MOST_SHOWN), ("Hour", counts.hours, _MOST_SHOWN)
    )


def _print_numbers(*sections: tuple[str, Counter[str], int | None]) -> None:
    """The largest numbers of each section: its title, what it counts, and how many are shown."""
    table = terminal.table("", "", Column("Events", justify="right"))
    for title, counter, most in sections:
        for index, (name, number) in enumerate(counter.most_common(most)):
            table.add_row(Text(title if index == 0 else "", "bold"), _plain(name), f"{number:,}")
        left = len(counter) - most if most else 0
        if left > 0:
            table.add_row("", Text(f"and {left:,} more", "dim"), "")
    terminal.console().print(table)


def print_report(report: Report) -> None:
    """A table of the sources, the differences, and what was proven in words."""
    console = terminal.console()
    # As in a list of events.
    times = ("From (UTC)", "To (UTC)") if console.width >= _WIDE else ()
    shipped = ("Shipped",) if any(source.shipped for source in report.sources) else ()
    table = terminal.table(
        "Source", *shipped, "Events", *times, "Chain", "End", "Dropped", Column("Differences", no_wrap=True)
    )
    for source in report.sources:
        table.add_row(
            _plain(source.source),
            *(f"{source.shipped:,}" for _ in shipped),
            f"{source.events:,}",
            *(_plain(time[:_TIME_WIDTH].replace("T", " ")) for time in (source.since, source.until) if times),
            _CHAINS[source.chain],
            _ENDS[source.end],
            f"{source.dropped:,}",
            Text(f"{source.differences:,}", "red" if source.differences else ""),
        )
    console.print(table)
    for source in report.sources:
        for finding in source.findings:
            console.print(Text.assemble(_plain(source.source), ": ", _plain(finding), style="red"), soft_wrap=True)
        if source.differences > len(source.findings):
            console.print(Text(f"  and {source.differences - len(source.findings):,} more differences", "red"))
    for sentence in _sentences(report):
        console.print(Text(sentence), soft_wrap=True)


def _sentences(report: Report) -> list[str]:
    """What the result means."""
    chains = {source.chain for source in report.sources if source.events}
    killed = [source for source in report.sources if source.end == "succeeded"]
    ends = [source for source in report.sources if source.end == "unproven"]
    sentences = [
        f"{report.events:,} events, {report.differences:,} differences."
        if report.differences
        else f"{report.events:,} events: no gap, no duplicate, no change found."
    ]
    if "keyed" in chains:
        sentences.append("Keyed chain: nobody without the key can have changed, added or taken out what it covers.")
    if "keyless" in chains:
        sentences.append("Keyless chain: accidents would show; a forger who recomputed the whole chain would not.")
    if "unchecked" in chains:
        sentences.append("A chain was made with a key: give it with --key-file, without it no change can be found.")
    if killed:
        sentences.append(f"{_names(killed)} did not stop in order: its last answers, of some 20 ms, may be missing.")
    if any(source.shipped for source in report.sources):
        sentences.append("Events that were shipped are no longer here: ask the database of the audit writer for them.")
    if expired := sum(source.expired for source in report.sources):
        sentences.append(f"{expired:,} events went with days that are no longer there: nothing is proven of them.")
    if rejected := sum(source.rejected for source in report.sources):
        sentences.append(f"{rejected:,} of the events were refused by the database, and are in audit_rejected.")
    if ends:
        sentences.append(f"The end of {_names(ends)} is unproven: it still runs, or was killed, or was cut off.")
    return sentences


def _names(sources: list[SourceReport]) -> str:
    return ", ".join(_plain(source.source).plain for source in sources)


def _cells(event: Event) -> list[Text]:
    """In the order of _COLUMNS."""
    kind = event.decision or event.event_type
    details = event.details
    reason = details.get("reason", "") if event.decision else _summary(details)
    return [
        Text(event.timestamp[:_TIME_WIDTH].replace("T", " "), "dim"),
        Text(_plain(kind).plain, _STYLES.get(kind, "bold")),
        _plain(event.user_id or event.user_email or ""),
        _plain(str(details.get("action", ""))),
        _plain(event.server_id or ""),
        _plain(event.tool_name or ""),
        _plain(event.policy_id or ""),
        _plain(str(reason)),
    ]


def _summary(details: dict[str, Json]) -> str:
    """What an event without a decision says: why, and what is short; `--json` has all of it."""
    texts = (
        (key, value if type(value) is str else json.dumps(value)) for key, value in details.items() if value is not None
    )
    return ", ".join(f"{key} {text}" for key, text in texts if key == "reason" or len(text) <= _LONGEST_DETAIL)


def _plain(text: str) -> Text:
    """The text without what a terminal would act upon: control, direction and other invisible characters."""
    return Text("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text), overflow="fold")
