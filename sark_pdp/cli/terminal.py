"""What the commands print tables with: as wide as the terminal, plain and unwrapped in a pipe."""

import sys

from rich.console import Console
from rich.table import Column, Table

_UNWRAPPED = 1000


def console() -> Console:
    """On standard output."""
    # What reads a pipe wants each row on one line.
    return Console(width=None if sys.stdout.isatty() else _UNWRAPPED, highlight=False)


def table(*columns: Column | str, header: bool = True) -> Table:
    """Without lines, so that `cut` and `awk` find the columns."""
    return Table(*columns, box=None, pad_edge=False, show_header=header, header_style="bold")
