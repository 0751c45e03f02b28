"""The panels of a Grafana dashboard, read from its JSON, and what Prometheus answers for them as lines."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

Answers: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
"""By expression: the `result` of Prometheus' `query_range`."""

_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")


class Target(Struct, frozen=True):
    """One expression, its variables filled in."""

    expression: str
    legend: str
    """With labels in double braces."""


class Place(Struct, frozen=True):
    """In cells of Grafana's grid, of which a line has 24."""

    x: int
    y: int
    width: int
    height: int


class Panel(Struct, frozen=True):
    """One graph."""

    title: str
    unit: str
    place: Place
    targets: tuple[Target, ...]
    promised: float | None
    """Where a dashed line is."""
    colors: Mapping[str, str]
    """Grafana's word for that of a line, by its name; of those that have one of their own."""


class Heading(Struct, frozen=True):
    """What the panels below it have in common."""

    title: str
    place: Place


class Line(Struct, frozen=True):
    """One series: a value for each step, NaN where there is none."""

    name: str
    values: tuple[float, ...]


class Span(Struct, frozen=True):
    """The time that is looked at, in seconds since the epoch."""

    start: float
    step: float
    steps: int

    @property
    def end(self) -> float:
        """The last step's time."""
        return self.start + self.step * (self.steps - 1)

    def times(self) -> list[float]:
        """Of all steps."""
        return [self.start + self.step * at for at in range(self.steps)]


def read_dashboard(dashboard: Mapping[str, Any], variables: Mapping[str, str]) -> list[Panel | Heading]:
    """In the order of the JSON; `variables` have their `$`. Raises KeyError for a panel that has another form."""
    return [_read(each, variables) for each in dashboard["panels"]]


def _read(panel: Mapping[str, Any], variables: Mapping[str, str]) -> Panel | Heading:
    at = panel["gridPos"]
    place = Place(at["x"], at["y"], at["w"], at["h"])
    if panel["type"] == "row":
        return Heading(panel["title"], place)
    field = panel["fieldConfig"]["defaults"]
    steps = field.get("thresholds", {"steps": [{"value": None}]})["steps"]
    targets = tuple(Target(_filled(each["expr"], variables), each["legendFormat"]) for each in panel["targets"])
    colors = {
        each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
        for each in panel["fieldConfig"]["overrides"]
    }
    return Panel(panel["title"], field["unit"], place, targets, steps[-1]["value"], colors)


def _filled(expression: str, variables: Mapping[str, str]) -> str:
    # Longest first: one may begin with another.
    for name in sorted(variables, key=len, reverse=True):
        expression = expression.replace(name, variables[name])
    return expression


def lines(panel: Panel, answers: Answers, span: Span) -> list[Line]:
    """Those of all its targets that have a value anywhere, as Grafana names and orders them."""
    found = []
    for target in panel.targets:
        series = [(_named(target.legend, each["metric"]), each["values"]) for each in answers[target.expression]]
        for name, values in sorted(series, key=lambda each: each[0]):
            line = Line(name, _spread(values, span))
            if not all(map(math.isnan, line.values)):
                found.append(line)
    return found


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return _LABEL.sub(lambda label: labels.get(label[1], ""), legend).strip()


def _spread(values: Sequence[Sequence[Any]], span: Span) -> tuple[float, ...]:
    """Prometheus leaves out steps without a value; here they are gaps."""
    known = {round((time - span.start) / span.step): float(value) for time, value in values}
    finite = {at: value for at, value in known.items() if math.isfinite(value)}
    return tuple(finite.get(at, math.nan) for at in range(span.steps))
