"""What was measured, as it is kept in a file, and the arithmetic on it: medians, and ratios of the same round."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

Figure = Literal["rps", "cpu_us", "resident_mib", "server_idle", "load_idle", "50", "90", "99", "99.9", "max"]
"""A number that each round has; those that are numbers themselves are percentiles of latency, in microseconds."""

_SATURATED_IDLE = 0.03
"""A core that is idle for a smaller share than this has no more to give."""
_STRANGERS = 0.1
"""The share of a core that others than server and generator may use, such as the system for both."""


class Round(Struct, frozen=True):
    """One turn of one server."""

    calls: int
    failed: int
    """Calls without an answer, or with another than was expected."""
    seconds: float
    cpu_us: float
    """Of the server for each call, all its threads, until it is at rest again."""
    resident_mib: float
    server_idle: float
    """Share of the time in which the server's core had nothing to do; so for the generator's."""
    load_idle: float
    server_busy: float
    """Share of the time in which the server computed; more than the core's where work was left at the end."""
    generator_busy: float
    stolen: float
    """Share of the time that a hypervisor gave to others."""
    latencies: Mapping[str, float] = {}
    counters: Mapping[str, float] = {}
    """What the server counted of this round."""

    @property
    def rps(self) -> float:
        """Answers per second."""
        return self.calls / self.seconds

    @property
    def generator_bound(self) -> bool:
        """Whether the generator's core was used up: the server could have done more."""
        return self.load_idle < _SATURATED_IDLE

    @property
    def disturbed(self) -> bool:
        """Whether something else used the cores."""
        others = (1 - self.server_idle - self.server_busy, 1 - self.load_idle - self.generator_busy, self.stolen)
        return max(others) > _STRANGERS

    def value(self, figure: Figure) -> float | None:
        """None where it was not taken."""
        if figure[0].isdigit() or figure == "max":
            return self.latencies.get(figure)
        found: float = getattr(self, figure)
        return found


class Proof(Struct, frozen=True):
    """What was found in the audit trail of a process that had ended."""

    decisions: int
    """That the process counted."""
    events: int
    """Of decisions, in the trail."""
    verified: bool
    """Whether the chain holds."""

    @property
    def whole(self) -> bool:
        """Whether every decision is there."""
        return self.verified and self.events == self.decisions


class Measured(Struct):
    """All rounds of one server."""

    rounds: list[Round] = []
    proofs: list[Proof] = []
    """One for each process that recorded its decisions."""

    def values(self, figure: Figure) -> list[float]:
        """Of the rounds that have it."""
        return [value for each in self.rounds if (value := each.value(figure)) is not None]

    def median(self, figure: Figure) -> float | None:
        """None where no round has it."""
        values = self.values(figure)
        return statistics.median(values) if values else None

    def counted(self, counter: str) -> float:
        """In all rounds."""
        return sum(each.counters.get(counter, 0.0) for each in self.rounds)


class GroupResult(Struct):
    """Servers that took turns."""

    commit: str
    date: str
    seconds: float
    """Of a round."""
    servers: dict[str, Measured]

    @property
    def rounds(self) -> int:
        """That all servers have had."""
        return min((len(each.rounds) for each in self.servers.values()), default=0)


class Results(Struct):
    """Everything that a report tells of."""

    machine: Mapping[str, str]
    groups: dict[str, GroupResult] = {}


def ratio(measured: Measured, base: Measured, figure: Figure) -> float | None:
    """The median of the ratios of each round to the same round of another server; None where there is no such pair."""
    pairs = zip(measured.rounds, base.rounds, strict=False)
    values = [
        value / other for one, two in pairs if (value := one.value(figure)) is not None and (other := two.value(figure))
    ]
    return statistics.median(values) if values else None


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[0], ordered[-1]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as a Markdown table; floats with one decimal."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [f"{cell:,.1f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_json(path: Path | None, figures: Mapping[str, object]) -> None:
    """The figures of a script, for comparison; nothing without a path."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def read_results(path: Path) -> Results:
    """Raises SystemExit where the file holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except msgspec.MsgspecError as error:
        raise SystemExit(f"{path} holds no results of load runs ({error}); name another file, or remove it") from error


def write_results(path: Path, results: Results) -> None:
    """In one step: whoever reads it finds the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    encoded = msgspec.json.encode(_rounded(msgspec.to_builtins(results)))
    partial.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
    partial.replace(path)


def _rounded(value: object) -> object:
    """Floats with as many digits as mean something."""
    match value:
        case float():
            return float(f"{value:.6g}") if abs(value) < 1e5 else round(value, 1)
        case dict():
            return {key: _rounded(each) for key, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
        case _:
            return value
