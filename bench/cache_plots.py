"""Plots of the cache simulation, as SVG."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from msgspec import Struct

_STYLE = "text{font:13px sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}"
_L1, _L2, _EVALUATED = "#2a6fb0", "#8fbbe3", "#e0a458"
_PARTS = (("L1", _L1), ("L2", _L2), ("evaluated", _EVALUATED))
_LINES = ("#2a6fb0", "#6aa84f", "#e0a458", "#a3a3a3", "#8e4fb0")

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 1000, 330, 190, 76, 34, 22
"""Pixels: of the whole; left and right of the bars; above the first; from one to the next; of one."""


class Bar(Struct, frozen=True):
    """One way of caching: the shares of the answers from L1, from L2 and from the policy."""

    name: str
    shares: tuple[float, float, float]
    note: str
    group: str = ""
    """Written above the first bar of it."""


def plot_bars(path: Path, title: str, bars: Sequence[Bar]) -> None:
    """Where the answers came from."""
    lines: list[str] = []
    y = _TOP
    for bar in bars:
        if bar.group:
            lines.append(f'<text x="10" y="{y + 14}" font-style="italic">{escape(bar.group)}</text>')
            y += _ROW - 6
        lines += _bar(y, bar)
        y += _ROW
    legend = [
        part
        for at, (name, color) in enumerate(_PARTS)
        for part in (
            f'<rect x="{_LEFT + 110 * at}" y="42" width="14" height="14" fill="{color}"/>',
            f'<text x="{_LEFT + 20 + 110 * at}" y="54">{name}</text>',
        )
    ]
    _write(path, _WIDTH, y + 10, title, [*legend, *lines])


def _bar(y: int, bar: Bar) -> Iterator[str]:
    yield f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(bar.name)}</text>'
    at = float(_LEFT)
    for (_, color), share in zip(_PARTS, bar.shares, strict=True):
        width = share * (_WIDTH - _LEFT - _RIGHT)
        yield f'<rect x="{at:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>'
        at += width
    yield f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 16}">{escape(bar.note)}</text>'


_HEIGHT, _BELOW, _SIDE = 420, 50, 60
"""Pixels: of a plot of lines; below its axis; left of it."""


def plot_lines(path: Path, title: str, step: float, lines: Mapping[str, Sequence[float]]) -> None:
    """Hit rates, each over `step` seconds; the axis goes from 0 to 1."""
    longest = max(len(values) for values in lines.values())
    across = (_WIDTH - _SIDE - 260) / max(1, longest - 1)
    down = _HEIGHT - _BELOW - _TOP
    drawn = list(_axes(longest, step, across, down))
    # The first one is drawn last: it lies above what it coincides with.
    for at, (name, values) in reversed([*enumerate(lines.items())]):
        color = _LINES[at % len(_LINES)]
        points = " ".join(f"{_SIDE + across * x:.1f},{_TOP + down * (1 - y):.1f}" for x, y in enumerate(values))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        drawn.append(f'<rect x="{_WIDTH - 235}" y="{_TOP + 26 * at}" width="14" height="14" fill="{color}"/>')
        drawn.append(f'<text x="{_WIDTH - 215}" y="{_TOP + 12 + 26 * at}">{escape(name)}</text>')
    _write(path, _WIDTH, _HEIGHT, title, drawn)


def _axes(longest: int, step: float, across: float, down: float) -> Iterator[str]:
    right = _SIDE + across * (longest - 1)
    for tenth in range(0, 11, 2):
        y = _TOP + down * (1 - tenth / 10)
        yield f'<path d="M{_SIDE} {y:.1f}H{right:.1f}" stroke="#ddd"/>'
        yield f'<text x="{_SIDE - 8}" y="{y + 5:.1f}" text-anchor="end">{tenth * 10} %</text>'
    for at in range(0, longest, max(1, longest // 8)):
        yield f'<text x="{_SIDE + across * at:.1f}" y="{_HEIGHT - 26}" text-anchor="middle">{at * step:g} s</text>'


def _write(path: Path, width: int, height: int, title: str, lines: Sequence[str]) -> None:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="title" x="{width / 2:g}" y="26" text-anchor="middle">{escape(title)}</text>',
        *lines,
        "</svg>",
    )
    path.write_text("\n".join(svg) + "\n")
