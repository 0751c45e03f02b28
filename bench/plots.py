"""Plots of a run, as SVG: a bar for each server, up to the median of its rounds, with a line from least to most."""

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from bench.figures import Figure, GroupResult, spread
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

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 900, 240, 120, 50, 36, 22
"""Pixels: of the whole; left and right of the longest bar; above the first; from one to the next; of one."""
_OURS, _OTHERS = "#2a6fb0", "#a3a3a3"
_STYLE = "text{font:13px sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}"


def plot(path: Path, group: Group, result: GroupResult, figure: Figure) -> bool:
    """One figure of all servers that have it; False where none has."""
    bars = [(name, *spread(values)) for name, each in result.servers.items() if (values := each.values(figure))]
    if not bars:
        return False
    unit = ", µs" if figure[0].isdigit() or figure == "max" else ""
    title = escape(f"{group.title}: {NAMES[figure]}{unit}".replace("`", ""))
    height = _TOP + _ROW * len(bars)
    scale = (_WIDTH - _LEFT - _RIGHT) / (max(most for *_, most in bars) or 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="title" x="{_WIDTH / 2:g}" y="26" text-anchor="middle">{title}</text>',
        *(line for at, bar in enumerate(bars) for line in _bar(_TOP + _ROW * at, scale, *bar)),
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n")
    return True


def _bar(y: int, scale: float, name: str, median: float, least: float, most: float) -> Iterator[str]:
    middle, color = y + _BAR / 2, _OURS if name.startswith("SARK") else _OTHERS
    value = f"{median:,.0f}" if median >= 100 else f"{median:,.1f}"
    yield f'<text x="{_LEFT - 10}" y="{middle + 5:g}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{_LEFT}" y="{y}" width="{median * scale:.1f}" height="{_BAR}" fill="{color}"/>'
    yield f'<path d="M{_LEFT + least * scale:.1f} {middle:g}H{_LEFT + most * scale:.1f}" stroke="#222"/>'
    yield f'<text x="{_LEFT + most * scale + 8:.1f}" y="{middle + 5:g}">{value}</text>'
