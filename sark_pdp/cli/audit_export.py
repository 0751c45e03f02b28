"""Writes events for other programs: JSON Lines, each the exact bytes that are stored, or CSV for spreadsheets."""

import csv
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from sark_pdp.audit.event import Event
from sark_pdp.audit.search import Found
from sark_pdp.errors import AuditError

FORMATS: Final = ("jsonl", "csv")
_SUFFIXES: Final = {".csv": "csv"}
_COLUMNS: Final = tuple(name for name in Event.__struct_fields__ if name != "details")
_TOLD: Final = ("action", "reason", "tier", "latency_ns", "peer", "trace_id")
"""Of the details: those that have a column of their own."""
_FORMULA: Final = re.compile(
    r"(^|;)(?=[\s'\"]*[=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    r"\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}])"
)
"""Where a spreadsheet begins to calculate: at the start of a cell, or of what it takes for one where `;` parts them."""
_EVERY: Final = 200
"""Events between two looks of the progress bar."""

Encode = Callable[[Found], bytes]


def format_of(path: Path | None, given: str | None) -> str:
    """The form that is asked for, or that the name of the file tells."""
    return given or (_SUFFIXES.get(path.suffix.lower(), FORMATS[0]) if path else FORMATS[0])


def export(found: Iterable[Found], form: str, path: Path | None, since: str) -> int:
    """Writes all of them to a file, or to standard output, and returns their number.

    The file is there when all is written, and stays as it was if something fails before. `since` is the time of the
    earliest event, as far as it is known: events come newest first. Raises AuditError where it cannot be written.
    """
    encode = _ENCODERS[form]
    number = 0
    try:
        with _opened(path) as file, _Progress(since, shown=sys.stderr.isatty()) as progress:
            if form == "csv":
                file.write(_csv_head())
            for number, event in enumerate(found, 1):
                file.write(encode(event))
                if number % _EVERY == 0:
                    progress.update(number, event)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever reads has enough.
            raise
        raise AuditError(f"{path or 'standard output'}: cannot be written: {error.strerror}") from error
    return number


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        output = sys.stdout.buffer
        yield output
        output.flush()
        return
    if _is_special(path):
        with path.open("wb") as file:
            yield file
        return
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, a device or a name for an open file: there is nothing to take the place of."""
    return (path.exists() and not path.is_file()) or path.absolute().is_relative_to("/dev")


def _json_line(found: Found) -> bytes:
    payload = found.payload
    if b"\n" in payload or b"\r" in payload:
        # Only between two tokens can these be, and a line must be one event.
        payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return payload + b"\n"


def _csv_head() -> bytes:
    return _row([*_COLUMNS, *_TOLD, "details"])


def _csv_row(found: Found) -> bytes:
    event = found.event
    details = event.details
    cells = [*(getattr(event, name) for name in _COLUMNS), *(details.get(name) for name in _TOLD)]
    return _row([*map(_cell, cells), _cell(msgspec.json.encode(details).decode())])


def _cell(value: object) -> str:
    """A text that no spreadsheet calculates and no terminal obeys, on one line. An altered one is never taken back."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not text.isprintable():
        text = "".join(_shown(each) for each in text)
    return _FORMULA.sub(r"\1'", text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character in "\t\r\n" else "\N{REPLACEMENT CHARACTER}"


def _row(cells: list[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return line.getvalue().encode("utf-8", "replace")


_ENCODERS: Final[dict[str, Encode]] = {"jsonl": _json_line, "csv": _csv_row}


class _Progress:
    """A bar on a terminal: how far back the export has come, where it is known how far it goes."""

    def __init__(self, since: str, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._since = _seconds(since)
        self._first: float | None = None
        self._bar = Progress(
            TextColumn("{task.fields[events]:>12,} events"),
            BarColumn(),
            TextColumn("back to {task.fields[time]}", markup=False),
            console=Console(stderr=True),
            disable=not shown,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, events=0, time="…")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, number: int, found: Found) -> None:
        """So many are written, this one last."""
        if (now := _seconds(found.event.timestamp)) is None:
            return
        self._first = now if self._first is None else self._first
        total = None if self._since is None else self._first - self._since
        time = datetime.fromtimestamp(now, UTC).isoformat(" ", "seconds")
        self._bar.update(self._task, total=total, completed=self._first - now, events=number, time=time)


def _seconds(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return None
