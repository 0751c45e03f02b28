"""Plots of a run, as SVG: a bar for each server."""

import re
from pathlib import Path

import pygal
from pygal.style import CleanStyle

from bench.figures import Figure, GroupResult
from bench.groups import Group

NAMES: dict[Figure, str] = {
    "rps": "calls/s",
    "cpu_us": "CPU, µs a call",
    "resident_mib": "resident MiB",
    "server_idle": "server's core idle",
    "load_idle": "generator's core idle",
    "50": "p50",
    "90": "p90",
    "99": "p99",
    "99.9": "p99.9",
    "max": "longest",
}
"""What a figure is called."""

_OURS, _OTHERS = "#1f77b4", "#9a9a9a"


def plot(path: Path, group: Group, result: GroupResult, figure: Figure) -> bool:
    """The medians of one figure; False where no server has it."""
    bars = [(name, median) for name, each in result.servers.items() if (median := each.median(figure)) is not None]
    if not bars:
        return False
    unit = ", µs" if figure[0].isdigit() or figure == "max" else ""
    chart = pygal.HorizontalBar(
        # No script: it would be fetched from elsewhere.
        js=(),
        style=CleanStyle(value_font_size=11),
        title=f"{group.title}: {NAMES[figure]}{unit}",
        show_legend=False,
        show_y_guides=False,
        print_values=True,
        print_values_position="top",
        value_formatter=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:,.1f}".removesuffix(".0"),
        width=900,
        height=120 + 45 * len(bars),
        # Bars grow from the bottom.
        x_labels=[name for name, _ in reversed(bars)],
        range=(0, max(median for _, median in bars)),
    )
    chart.uuid = path.stem
    chart.add(
        NAMES[figure],
        [{"value": median, "color": _OURS if name.startswith("SARK") else _OTHERS} for name, median in reversed(bars)],
    )
    # Without the comments, which hold the day.
    path.write_text(re.sub("<!--.*?-->", "", chart.render(is_unicode=True)))
    return True
