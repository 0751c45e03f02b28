"""Draws the panels of a dashboard into one picture, in the look of Grafana's dark theme."""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from msgspec import Struct
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.panels import Answers, Heading, Line, Panel, Place, Span, lines

_WIDTH: Final = 1560
_MARGIN: Final = 12
_CELL: Final = 32
"""Pixels: of the picture, around it, and the height of a cell of the grid."""
_GAP: Final = 8
_HEADER: Final = 96
_AXIS, _TITLE, _TIMES, _LEGEND, _SIDE = 84, 36, 24, 19, 14
"""Pixels within a panel: left of the plot, above it, for the times below, for each line of the legend, at the right."""
_LEGEND_LINES: Final = 2
_DPI: Final = 100

_CANVAS, _PANEL, _BORDER = "#111217", "#181b1f", "#2a2d33"
_TEXT, _MUTED, _GRID = "#d5d6dd", "#9a9ba5", "#2b2e34"
_PROMISED, _EVENT = "#f2495c", "#6e9fff"
_LINES: Final = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#3ebfb0", "#ffb357", "#c8f2c2"),
    *("#ca95e5", "#fade2a", "#1f60c4", "#e02f44"),
)
"""Those of Grafana's classic palette, as far as they can be told apart here."""
_NAMED: Final = {"green": "#73bf69", "orange": "#ff780a", "red": "#f2495c", "purple": "#b877d9"}
"""What Grafana means by these words."""
_COLORS: Final = 255

UNITS: Final[dict[str, Sequence[tuple[float, float, str]]]] = {
    "s": ((0, 1e-6, " µs"), (1e-3, 1e-3, " ms"), (1, 1, " s"), (120, 60, " min")),
    "bytes": ((0, 1, " B"), (2**10, 2**10, " KiB"), (2**20, 2**20, " MiB"), (2**30, 2**30, " GiB")),
    "percentunit": ((0, 0.01, " %"),),
    "reqps": ((0, 1, " req/s"), (5e3, 1e3, "K req/s")),
    "ops": ((0, 1, " ops/s"), (5e3, 1e3, "K ops/s")),
    "short": ((0, 1, ""), (5e3, 1e3, " K")),
}
"""Of Grafana's units: from which value on it is divided by what, and what follows it."""


class Event(Struct, frozen=True):
    """Something that was done while the data came, marked in every panel."""

    at: float
    """Seconds since the epoch."""
    what: str


def draw(parts: Sequence[Panel | Heading], answers: Answers, span: Span, title: str, events: Sequence[Event]) -> Figure:
    """The whole picture. Raises ValueError, with their titles, where panels have nothing to show."""
    drawn = {part.title: lines(part, answers, span) for part in parts if isinstance(part, Panel)}
    if empty := [name for name, found in drawn.items() if not found]:
        raise ValueError(f"nothing to show in {', '.join(empty)}")
    bottom = max(part.place.y + part.place.height for part in parts)
    height = _HEADER + bottom * _CELL + _MARGIN
    figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor=_CANVAS)
    FigureCanvasAgg(figure)
    with rc_context({"font.family": "DejaVu Sans", "text.parse_math": False, "axes.unicode_minus": False}):
        sheet = _Sheet(figure, height)
        _header(sheet, span, title, events)
        for part in parts:
            if isinstance(part, Panel):
                _panel(sheet, part, drawn[part.title], span, events)
            else:
                box = sheet.box(part.place)
                sheet.text(box.left + 4, box.top + box.height * 0.62, f"▾  {part.title}", 16, weight="bold")
    return figure


def save(figure: Figure, path: Path, parts: Sequence[Panel | Heading]) -> None:
    """As PNG with a palette, a third of the bytes; the titles of what is drawn are its description."""
    told = PngInfo()
    told.add_text("Description", titles(parts))
    raw = BytesIO()
    figure.savefig(raw, format="png", facecolor=_CANVAS)
    with Image.open(raw) as image:
        colors = image.convert("RGB").quantize(_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        colors.save(path, optimize=True, pnginfo=told)


def titles(parts: Sequence[Panel | Heading]) -> str:
    """Of all panels."""
    return "; ".join(part.title for part in parts if isinstance(part, Panel))


class _Box(Struct, frozen=True):
    """Pixels, from the left and from the top."""

    left: float
    top: float
    width: float
    height: float


class _Sheet:
    """A figure that is drawn on in pixels, from its upper left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure = figure
        self._height = height

    def box(self, place: Place) -> _Box:
        cell = (_WIDTH - 2 * _MARGIN + _GAP) / 24
        return _Box(
            _MARGIN + place.x * cell,
            _HEADER + place.y * _CELL,
            place.width * cell - _GAP,
            place.height * _CELL - _GAP,
        )

    def text(self, left: float, middle: float, text: str, pixels: float, **look: Any) -> float:
        """Returns where it ends."""
        look.setdefault("color", _TEXT)
        written = self.figure.text(
            left / _WIDTH, 1 - middle / self._height, text, fontsize=_points(pixels), va="center_baseline", **look
        )
        return float(written.get_window_extent().x1)

    def width(self, text: str, pixels: float) -> float:
        """That it would take."""
        written = self.figure.text(0, 0, text, fontsize=_points(pixels))
        found = float(written.get_window_extent().width)
        written.remove()
        return found

    def rectangle(self, box: _Box, fill: str, edge: str = "none") -> None:
        corner = (box.left / _WIDTH, 1 - (box.top + box.height) / self._height)
        size = (box.width / _WIDTH, box.height / self._height)
        self.figure.add_artist(Rectangle(corner, *size, facecolor=fill, edgecolor=edge, linewidth=1, zorder=-1))

    def dash(self, left: float, middle: float, color: str) -> None:
        """Before a name in a legend."""
        ends = [left / _WIDTH, (left + 14) / _WIDTH]
        height = 1 - middle / self._height
        self.figure.add_artist(Line2D(ends, [height] * 2, color=color, linewidth=3, solid_capstyle="round"))

    def axes(self, box: _Box) -> Axes:
        bottom = 1 - (box.top + box.height) / self._height
        return self.figure.add_axes((box.left / _WIDTH, bottom, box.width / _WIDTH, box.height / self._height))


def _points(pixels: float) -> float:
    return pixels * 72 / _DPI


def _header(sheet: _Sheet, span: Span, title: str, events: Sequence[Event]) -> None:
    sheet.text(_MARGIN + 4, 28, title, 22, weight="bold")
    day, begin, end = f"{_moment(span.start):%Y-%m-%d}", _clock(span.start), _clock(span.end)
    sheet.text(_WIDTH - _MARGIN - 4, 28, f"{day}   {begin} to {end} UTC", 14, color=_MUTED, ha="right")
    left, middle = _MARGIN + 4.0, 56.0
    for letter, event in _lettered(events):
        text = f"{_clock(event.at)} {event.what}"
        if left + sheet.width(f"{letter}  {text}", 13) > _WIDTH - _MARGIN:
            left, middle = _MARGIN + 4.0, middle + 22
        left = sheet.text(left, middle, letter, 13, color=_EVENT, weight="bold") + 6
        left = sheet.text(left, middle, text, 13, color=_MUTED) + 24


def _lettered(events: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    for at, event in enumerate(events):
        yield chr(ord("A") + at), event


def _panel(sheet: _Sheet, panel: Panel, found: Sequence[Line], span: Span, events: Sequence[Event]) -> None:
    box = sheet.box(panel.place)
    sheet.rectangle(box, _PANEL, _BORDER)
    sheet.text(box.left + 12, box.top + 18, panel.title, 14.5, weight="bold")
    colors = _colors(panel, found)
    named = _legend(sheet, box, list(zip((line.name for line in found), colors, strict=True)))
    below = _TIMES + 10 + _LEGEND * (max(at for at, *_ in named) + 1)
    axes = sheet.axes(_Box(box.left + _AXIS, box.top + _TITLE, box.width - _AXIS - _SIDE, box.height - _TITLE - below))
    for row, left, text, color in named:
        middle = box.top + box.height - below + _TIMES + 13 + row * _LEGEND
        if color:
            sheet.dash(left, middle, color)
        sheet.text(left + 20, middle, text, 13)
    _plot(axes, panel, list(zip(found, colors, strict=True)), span)
    _mark(axes, span, events)


def _colors(panel: Panel, found: Sequence[Line]) -> list[str]:
    return [
        _NAMED[panel.colors[line.name]] if line.name in panel.colors else _LINES[at % len(_LINES)]
        for at, line in enumerate(found)
    ]


def _legend(sheet: _Sheet, box: _Box, names: Sequence[tuple[str, str]]) -> list[tuple[int, float, str, str]]:
    """Of each name: its line, where its dash begins, itself, its colour; what finds no room is counted in the end."""
    placed: list[tuple[int, float, str, str]] = []
    row, begin = 0, box.left + 14
    left, right = begin, box.left + box.width - 12
    for at, (name, color) in enumerate(names):
        width = sheet.width(name, 13) + 20
        more = sheet.width("+ 99 more", 13) + 20 if row == _LEGEND_LINES - 1 and at < len(names) - 1 else 0
        if left > begin and left + width + more > right:
            if row == _LEGEND_LINES - 1:
                return [*placed, (row, left - 14, f"+ {len(names) - at} more", "")]
            row, left = row + 1, begin
        placed.append((row, left, name, color))
        left += width + 16
    return placed


def _plot(axes: Axes, panel: Panel, found: Sequence[tuple[Line, str]], span: Span) -> None:
    most = max(value for line, _ in found for value in line.values if not math.isnan(value))
    factor, suffix = _unit(panel.unit, most)
    times = span.times()
    for at, (line, color) in enumerate(found):
        values = [value / factor for value in line.values]
        # What was drawn first lies on top, as its colour says more than that of the tenth.
        axes.plot(
            times, values, color=color, linewidth=1.5, zorder=3 + (len(found) - at) / 100, solid_joinstyle="round"
        )
        axes.fill_between(times, values, color=color, alpha=0.08, linewidth=0, zorder=2)
    top = most / factor * 1.12
    promised = math.inf if panel.promised is None else panel.promised / factor
    if promised < math.inf and promised < 2.5 * (top or math.inf):
        top = max(top, promised * 1.12)
        axes.axhline(promised, color=_PROMISED, linewidth=1.2, linestyle=(0, (5, 4)), zorder=2.5)
    axes.set_xlim(span.start, span.end)
    axes.set_ylim(0, top or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=panel.unit == "short" and top < 5))
    axes.yaxis.set_major_formatter(FuncFormatter(_labels(suffix)))
    ticks = _ticks(span)
    axes.set_xticks(ticks, [_clock(at) for at in ticks])
    axes.set_facecolor(_PANEL)
    axes.grid(color=_GRID, linewidth=0.8, zorder=0)
    axes.tick_params(length=0, labelsize=_points(12.5), labelcolor=_MUTED, pad=5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _unit(unit: str, most: float) -> tuple[float, str]:
    """What values are divided by, and what follows them."""
    return [(factor, suffix) for least, factor, suffix in UNITS[unit] if least <= most][-1]


def _labels(suffix: str) -> Callable[[float, int], str]:
    return lambda value, _: f"{value:g}{suffix}"


def _ticks(span: Span) -> list[float]:
    """Full minutes, or parts of one, at most six."""
    length = span.end - span.start
    every = next(each for each in (1, 5, 10, 15, 30, 60, 120, 300, 900, 3600, 14400, 86400) if length / each <= 6)
    first = math.ceil(span.start / every) * every
    # One at an edge would be cut off.
    return [
        float(at) for at in range(first, int(span.end) + 1, every) if 0.03 * length < at - span.start < 0.97 * length
    ]


def _mark(axes: Axes, span: Span, events: Sequence[Event]) -> None:
    for letter, event in _lettered(events):
        if span.start <= event.at <= span.end:
            axes.axvline(event.at, color=_EVENT, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.7, zorder=1)
            place = axes.get_xaxis_transform()
            look: dict[str, Any] = {"color": _EVENT, "fontsize": _points(10.5), "ha": "center", "va": "bottom"}
            axes.text(event.at, 1.0, letter, transform=place, **look)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _clock(at: float) -> str:
    return f"{_moment(at):%H:%M:%S}"
