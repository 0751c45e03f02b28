"""Asks an audit writer for what the `sark-pdp audit` commands show."""

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import click
import msgspec
from msgspec.structs import replace

from sark_pdp._proto import audit_pb2
from sark_pdp.audit.event import Event, event_of
from sark_pdp.audit.search import Found, Selection
from sark_pdp.audit_writer.columns import UnstorableError, columns_of
from sark_pdp.cli.audit_asking import Asking, BrokenError, TooMuchError
from sark_pdp.cli.audit_trails import HourCounts
from sark_pdp.errors import AuditError

_LARGEST_PAGE: Final = 1000
_REMEMBERED: Final = 20_000
"""Events that `follow` knows to be shown already, when it has to look for what it missed."""
_MOST_MISSED: Final = 10_000
"""Events that it shows of those."""
_MARGIN: Final = 60
"""Seconds by which an event may be committed later than it says, and still is found after an interruption."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts to follow again."""
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_KNOWN: Final = ("event_type", "user", "since", "until")
"""What hourly counts can be asked by."""


class WriterTrail:
    """The trail of all sidecars, as an audit writer tells of it."""

    many_sources = True

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    @property
    def title(self) -> str:
        """Which one is asked."""
        return f"the audit writer on {self._asking.target}"

    def newest(self, selection: Selection, limit: int = 0) -> Iterator[Found]:
        """Pages, one after the other; what is stored meanwhile moves nothing."""
        wanted = _filter(selection)
        request = audit_pb2.SearchRequest(filter=wanted, page_size=min(limit or _LARGEST_PAGE, _LARGEST_PAGE))
        left = limit or None
        while True:
            page = self._asking.search(request)
            yield from map(_found, islice(page.events, left))
            left = None if left is None else max(0, left - len(page.events))
            if not page.next_page_token or left == 0:
                return
            request.page_token = page.next_page_token

    def follow(self, selection: Selection, before: int) -> Iterator[list[Found]]:
        """Goes on after an interruption, with what was stored meanwhile first."""
        shown, wanted = _Shown(), _filter(selection)
        since: float | None = None
        pause, told = _FIRST_PAUSE, False
        while True:
            try:
                with self._asking.tail(wanted) as events:
                    # From now on nothing is missed; so what was stored up to now comes of a search.
                    if since is None:
                        yield self._before(selection, before, shown)
                        # Here the waiting is done.
                        self._asking.patience = 0.0
                    else:
                        yield shown.new(self._missed(selection, since))
                        click.echo(f"sark-pdp: following {self.title} again", err=True)
                    since, pause, told = time.time(), _FIRST_PAUSE, False
                    for stored in events:
                        yield shown.new([_found(stored)])
                        since = time.time()
            except BrokenError as error:
                if since is None:
                    raise
                if not told:
                    click.echo(f"sark-pdp: {error}; trying again until interrupted", err=True)
                told = True
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def counts(self, selection: Selection) -> HourCounts:
        """Of the whole hours that the time touches; of the last 24 where no time is given."""
        for name in selection.__struct_fields__:
            if name not in _KNOWN and getattr(selection, name) is not None:
                raise AuditError(
                    f"{self.title} counts by hour, user and type alone: leave out --{name}, or count what"
                    " `sark-pdp audit export` gives"
                )
        until = _whole_hour(_point(selection.until) or datetime.now(UTC), up=True)
        since = _whole_hour(_point(selection.since) or until - _DAY, up=False)
        counts = HourCounts(0, _text(since), _text(until), Counter(), Counter(), Counter())
        wanted = audit_pb2.Filter(event_type=selection.event_type or "", user_id=selection.user or "")
        while since < until:
            end = min(since + _DAY, until)
            for count in self._hours(wanted, since, end):
                _add(counts, count)
            since = end
        return counts

    def earliest(self) -> str:
        """To ask for it would have the database read what nobody wants."""
        return ""

    def close(self) -> None:
        """Ends the connection."""
        self._asking.close()

    def _before(self, selection: Selection, most: int, shown: "_Shown") -> list[Found]:
        """The last events; those of a while before count as shown, so that no interruption brings them up."""
        shown.new(self._stored_since(selection, time.time(), _MOST_MISSED))
        last = list(self.newest(selection, most))[::-1]
        shown.new(last)
        return last

    def _missed(self, selection: Selection, since: float) -> list[Found]:
        """What was stored since then, oldest first."""
        found = self._stored_since(selection, since, _MOST_MISSED + 1)
        if len(found) > _MOST_MISSED:
            click.echo(
                f"sark-pdp: more than {_MOST_MISSED:,} events were stored meanwhile; the last ones follow, and"
                f" `sark-pdp audit export --since {_start(since)}` has all of them",
                err=True,
            )
        return found[_MOST_MISSED - 1 :: -1]

    def _stored_since(self, selection: Selection, since: float, most: int) -> list[Found]:
        start = _start(since)
        return list(self.newest(replace(selection, since=max(start, selection.since or start)), most))

    def _hours(self, wanted: Any, since: datetime, until: datetime) -> Iterator[Any]:
        """The counts of these hours, asked for in parts where they are too many for one answer."""
        part = audit_pb2.Filter()
        part.CopyFrom(wanted)
        part.since, part.until = _text(since), _text(until)
        try:
            yield from self._asking.hourly_counts(part).counts
        except TooMuchError as error:
            if until - since <= _HOUR:
                raise AuditError(f"{error}; ask for one user or type, with --user or --type") from error
            middle = _whole_hour(since + (until - since) / 2, up=False)
            yield from self._hours(wanted, since, middle)
            yield from self._hours(wanted, middle, until)


class _Shown:
    """Tells what is new. It forgets the oldest."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[str, int], None] = OrderedDict()

    def new(self, events: Iterable[Found]) -> list[Found]:
        """Those that were not given before."""
        fresh = []
        for found in events:
            key = (found.event.source, found.event.sequence)
            if key in self._keys:
                continue
            self._keys[key] = None
            fresh.append(found)
        while len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)
        return fresh


def _filter(selection: Selection) -> "audit_pb2.Filter":
    return audit_pb2.Filter(
        since=selection.since or "",
        until=selection.until or "",
        event_type=selection.event_type or "",
        user_id=selection.user or "",
        server_id=selection.server or "",
        tool_name=selection.tool or "",
        decision=selection.decision or "",
        source=selection.source or "",
    )


def _found(stored: "audit_pb2.Event") -> Found:
    """Whatever a writer stores: programs of others may have sent less than a sidecar does."""
    try:
        return Found(event_of(stored.payload), stored.payload)
    except AuditError:
        return Found(_odd_event(stored), stored.payload)


def _odd_event(stored: "audit_pb2.Event") -> Event:
    try:
        columns = columns_of(stored.payload)
    except UnstorableError:
        return Event("", "", stored.source, stored.sequence, "(unreadable)", "high", *(None,) * 10, {})
    texts = {name: getattr(columns, name) for name in Event.__struct_fields__ if name not in {"id", "timestamp"}}
    details = {} if (made := _details(columns.details)) is None else made
    time_text = _text(columns.timestamp)
    return Event(**{**texts, "id": str(columns.id), "timestamp": time_text, "details": details})


def _details(raw: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _add(counts: HourCounts, count: "audit_pb2.HourlyCount") -> None:
    counts.events += count.count
    counts.types[count.event_type] += count.count
    counts.hours[count.hour] += count.count
    if count.user_id:
        counts.users[count.user_id] += count.count


def _point(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _whole_hour(point: datetime, *, up: bool) -> datetime:
    start = point.replace(minute=0, second=0, microsecond=0)
    return start + _HOUR if up and start < point else start


def _start(since: float) -> str:
    """Somewhat before a point in time, seconds since the epoch: clocks differ, and events wait to be stored."""
    return _text(datetime.fromtimestamp(max(0.0, since - _MARGIN), UTC))


def _text(point: datetime) -> str:
    """As events write it."""
    aware = point if point.tzinfo else point.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
