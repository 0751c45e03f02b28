"""The picture of the dashboard shows what Prometheus answered, of every panel."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from bench.dashboard import DASHBOARD, VARIABLES
from bench.panels import Heading, Panel, Span, read_dashboard
from bench.picture import UNITS, Event, draw, save, titles
from tests.fix_tools import ROOT

PICTURE = ROOT / "docs" / "dashboard.png"
RECORDED = ROOT / "tests" / "charts" / "answers.json"
MOST_BYTES = 300 * 1024


def parts() -> list[Panel | Heading]:
    return read_dashboard(json.loads(DASHBOARD.read_text()), VARIABLES)


def drawn(wanted: list[Panel | Heading], answers: dict[str, Any], span: Span) -> Figure:
    return draw(wanted, answers, span, "A title", [Event(span.start + span.step, "something")])


def shown_values(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def recorded() -> tuple[list[Panel | Heading], dict[str, Any], Span]:
    """Two panels, what a real Prometheus answered for them, and for when."""
    found = json.loads(RECORDED.read_text())
    wanted = [part for part in parts() if part.title in {"Decisions by outcome", "Age of the oldest event on its way"}]
    return wanted, found["answers"], Span(**found["span"])


def test_every_panel_can_be_drawn() -> None:
    """Its unit is known, and nothing of Grafana's is left in an expression."""
    panels = [part for part in parts() if isinstance(part, Panel)]
    assert len(panels) == len([each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"])
    for panel in panels:
        assert panel.unit in UNITS
        assert panel.targets
        assert not [target for target in panel.targets if "$" in target.expression]


def test_the_lines_are_what_prometheus_answered() -> None:
    """In the panel's unit, named by the legend, in the dashboard's colours, with what is promised."""
    wanted, answers, span = recorded()
    figure = drawn(wanted, answers, span)
    texts = {text.get_text() for text in figure.texts}
    assert {"Decisions by outcome", "allow", "deny", "Age of the oldest event on its way", "lag"} <= texts
    outcomes, age = figure.axes
    for panel, axes, extra in zip(wanted, (outcomes, age), (0, 1), strict=True):
        assert isinstance(panel, Panel)
        series = [each for target in panel.targets for each in answers[target.expression]]
        shown = axes.get_lines()
        # Besides: one that marks the event, and one for the promise.
        assert len(shown) == len(series) + 1 + extra
        for one in series:
            values = {round((time - span.start) / span.step): float(value) for time, value in one["values"]}
            assert any(
                [values.get(at, math.nan) for at in range(span.steps)] == pytest.approx(shown_values(line), nan_ok=True)
                for line in shown
            )
    assert "#f2495c" in {str(line.get_color()) for line in age.get_lines()}, "the promise"
    assert {str(line.get_color()) for line in outcomes.get_lines()} >= {"#73bf69", "#ff780a"}


def test_a_step_without_a_value_is_a_gap() -> None:
    """Nothing is drawn over the time in which a process was not there."""
    wanted, answers, span = recorded()
    age = wanted[1]
    assert isinstance(age, Panel)
    (target,) = age.targets
    (series,) = answers[target.expression]
    without = {**answers, target.expression: [{**series, "values": series["values"][:2] + series["values"][4:]}]}
    line = drawn([age], without, span).axes[0].get_lines()[0]
    assert [math.isnan(value) for value in shown_values(line)[:5]] == [False, False, True, True, False]


def test_an_empty_panel_is_refused() -> None:
    """By its title; a picture never hides that something was not measured."""
    wanted, answers, span = recorded()
    nothing = dict.fromkeys(answers, ())
    with pytest.raises(ValueError, match="nothing to show in Decisions by outcome, Age of the oldest event"):
        drawn(wanted, nothing, span)


def test_what_is_saved_is_a_small_picture(tmp_path: Path) -> None:
    """With the titles of its panels as description."""
    wanted, answers, span = recorded()
    save(drawn(wanted, answers, span), tmp_path / "picture.png", wanted)
    with Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
        assert image.size[0] == 1560
        assert image.info["Description"] == titles(wanted)


def test_the_picture_of_the_readme_has_the_panels_of_the_dashboard() -> None:
    """`python -m bench.dashboard` draws it anew."""
    assert "docs/dashboard.png" in (ROOT / "README.md").read_text()
    assert PICTURE.stat().st_size < MOST_BYTES
    with Image.open(PICTURE) as image:
        assert image.info["Description"] == titles(parts())
