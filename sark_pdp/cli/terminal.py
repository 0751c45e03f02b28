"""What the commands print tables with: as wide as the terminal, plain and unwrapped in a pipe."""

import sys
from typing import NoReturn

from rich.console import Console
from rich.table import Column, Table

_UNWRAPPED = 1000


class _Console(Console):
    """Leaves a pipe that nobody reads any more to the command line, which knows how to end."""

    def on_broken_pipe(self) -> NoReturn:
        """Raises BrokenPipeError."""
        raise BrokenPipeError


def console() -> Console:
    """On standard output."""
    # What reads a pipe wants each row on one line.
    return _Console(width=None if sys.stdout is not None and sys.stdout.isatty() else _UNWRAPPED, highlight=False)


def table(*columns: Column | str, header: bool = True) -> Table:
    """Without lines, so that `cut` and `awk` find the columns."""
    return Table(*columns, box=None, pad_edge=False, show_header=header, header_style="bold")
