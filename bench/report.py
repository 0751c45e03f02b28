"""Writes the results as Markdown with plots. It holds nothing that is not in them, so it can be written anew."""

from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, GroupResult, Measured, Results, ratio, table
from bench.groups import GROUPS, Group
from bench.plots import NAMES, plot
from bench.promises import PROMISES, losses

_HEAD = """\
# Results of the load runs

Written by `python -m bench`, from `results.json`; [how it is measured](../README.md). The server has one core for
itself, the generator the other. Servers take turns, so ratios within a run hold where times do not: a ratio is the
median of the ratios of each round, everything else the median of the rounds, with the least and the most in
parentheses. *CPU* is what all threads of the server used for each call, until all that the call left to do was done;
*ratio by CPU* compares it, which a busy machine disturbs least. A round in which the generator's core was used up
is counted as *generator-bound*: the server could have done more; one in which something else used more than a tenth
of either core, or a hypervisor took it away, as *disturbed*.
"""


def write_report(folder: Path, results: Results) -> None:
    """`README.md` and one SVG for each figure of each run that has results."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_HEAD, table(("machine", ""), sorted(results.machine.items())), "## Promises", _promises(results)]
    for group in GROUPS:
        result = results.groups.get(group.name)
        if result is not None and result.rounds:
            parts += _group(folder, group, result)
    (folder / "README.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


def _promises(results: Results) -> str:
    rows = []
    for promise in PROMISES:
        value = promise.value(results)
        shown = "not measured" if value is None else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
        kept = "" if value is None else "yes" if promise.kept(value) else "**no**"
        rows.append((promise.text, promise.limit, shown, _number(promise.by_cpu(results), 1), kept))
    lost = losses(results)
    text = "no call fails, each decision is in the trail"
    rows.append((text, "none lost", f"{len(lost)} losses", "-", "**no**" if lost else "yes"))
    shown = table(("what", "promised", "measured", "by CPU", "kept"), rows)
    return "\n\n".join([shown, *(f"- {line}" for line in lost)])


def _group(folder: Path, group: Group, result: GroupResult) -> Iterator[str]:
    length = result.seconds * group.stretch
    yield f"## {group.title}"
    yield f"{group.about} {result.rounds} rounds of {length:g} s, commit `{result.commit}`, {result.date}."
    yield _table(group, result)
    proofs = [(name, proof) for name, measured in result.servers.items() for proof in measured.proofs]
    if proofs:
        rows = [
            (name, f"{each.decisions:,}", f"{each.events:,}", "passes" if each.verified else "fails")
            for name, each in proofs
        ]
        yield table(("trail of", "decisions", "events in the spool", "`sark-pdp audit verify`"), rows)
    for name, measured in result.servers.items():
        if lines := measured.counted("logged"):
            calls = sum(each.calls for each in measured.rounds)
            # Those that were in flight when the generator stopped are logged, too.
            yield f"{name} wrote {lines:,.0f} lines into its decision log, for {calls:,} answers that were waited for."
    for figure in group.figures:
        name = f"{group.name}-{figure.replace('.', '_')}.svg"
        if plot(folder / name, group, result, figure):
            yield f"![{group.title}: {NAMES[figure]}]({name})"


def _table(group: Group, result: GroupResult) -> str:
    base = result.servers.get(group.base)
    taken: tuple[Figure, ...] = ("50", "99", "99.9", "max")
    latencies = tuple(figure for figure in taken if any(each.values(figure) for each in result.servers.values()))
    head = ["", "calls/s", "CPU, µs a call"]
    if base is not None:
        head += [f"ratio to {group.base}", "by CPU"]
    head += [f"{NAMES[figure]}, µs" for figure in latencies]
    head += ["server's core idle", "generator's", "generator-bound", "disturbed", "MiB", "L1 hits"]
    rows = []
    for name, measured in result.servers.items():
        row = [name, _spread(measured, "rps"), _spread(measured, "cpu_us", 1)]
        if base is not None:
            cpu = ratio(base, measured, "cpu_us")
            row += [_number(ratio(measured, base, "rps"), 2), _number(cpu, 2)]
        row += [_spread(measured, figure) for figure in latencies]
        row += [_percent(measured.median("server_idle")), _percent(measured.median("load_idle"))]
        bound = sum(each.generator_bound for each in measured.rounds)
        disturbed = sum(each.disturbed for each in measured.rounds)
        row += [str(bound), str(disturbed), _number(measured.median("resident_mib"), 1), _hits(measured)]
        rows.append(row)
    return table(head, rows)


def _spread(measured: Measured, figure: Figure, digits: int = 0) -> str:
    values = measured.values(figure)
    if not values:
        return "-"
    middle = _number(measured.median(figure), digits)
    return f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _hits(measured: Measured) -> str:
    """The share of lookups in L1 that found an answer."""
    hits, misses = measured.counted("l1_hits"), measured.counted("l1_misses")
    return f"{hits / (hits + misses):.2%}" if hits + misses else "-"
