"""What the load runs must show: figures of one server, or ratios to another in the same rounds."""

from msgspec import Struct

from bench.figures import Figure, Results, ratio
from bench.groups import EVALUATED, GRPCIO_ECHO, GRPCIO_HITS, HITS, OPA_ENVOY, OPA_ENVOY_UNIX, UNIX_HITS


class Promise(Struct, frozen=True, kw_only=True):
    """At most, or at least, a limit."""

    text: str
    group: str
    server: str = HITS
    figure: Figure = "rps"
    against: str | None = None
    """Makes it a ratio to this server's figure."""
    at_least: float | None = None
    at_most: float | None = None

    def value(self, results: Results) -> float | None:
        """The median of the rounds; None where it was not measured."""
        return self._measured(results, self.figure)

    def by_cpu(self, results: Results) -> float | None:
        """Of throughput beside another's: how many times its CPU time for a call the other takes."""
        if self.figure != "rps" or self.against is None:
            return None
        found = self._measured(results, "cpu_us")
        return 1 / found if found else None

    def _measured(self, results: Results, figure: Figure) -> float | None:
        group = results.groups.get(self.group)
        measured = group.servers.get(self.server) if group else None
        if group is None or measured is None:
            return None
        if self.against is None:
            return measured.median(figure)
        base = group.servers.get(self.against)
        return None if base is None else ratio(measured, base, figure)

    def kept(self, value: float) -> bool:
        """Whether this value is within the limit."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def limit(self) -> str:
        """In words."""
        return f"at least {self.at_least:,g}" if self.at_least is not None else f"at most {self.at_most:,g}"


PROMISES = (
    Promise(text="L1 hits, no decision log: times the peer", group="no-log", against=OPA_ENVOY, at_least=8),
    Promise(
        text="evaluated every time, no decision log: times the peer",
        group="no-log",
        server=EVALUATED,
        against=OPA_ENVOY,
        at_least=3,
    ),
    Promise(text="L1 hits, spool against console log: times the peer", group="logged", against=OPA_ENVOY, at_least=12),
    Promise(
        text="evaluated, spool against console log: times the peer",
        group="logged",
        server=EVALUATED,
        against=OPA_ENVOY,
        at_least=5,
    ),
    Promise(
        text="one call at a time: median latency, share of the peer's",
        group="alone",
        figure="50",
        against=OPA_ENVOY,
        at_most=0.5,
    ),
    Promise(text="10,000 calls a second, audited: p99, µs", group="fixed", figure="99", at_most=2_000),
    Promise(text="10,000 calls a second, audited: p99.9, µs", group="fixed", figure="99.9", at_most=5_000),
    Promise(
        text="L1 hits over Unix sockets, no decision log: times the peer",
        group="ways",
        server=UNIX_HITS,
        against=OPA_ENVOY_UNIX,
        at_least=8,
    ),
    Promise(
        text="`Check` carried by grpcio, L1 hits: share of a bare grpcio echo",
        group="check",
        server=GRPCIO_HITS,
        against=GRPCIO_ECHO,
        at_least=0.55,
    ),
    Promise(
        text="resident memory, share of the grpcio carrier's",
        group="check",
        figure="resident_mib",
        against=GRPCIO_HITS,
        at_most=1.0,
    ),
)


def missed(results: Results) -> list[str]:
    """What was measured and does not hold, one line each."""
    lines = []
    for promise in PROMISES:
        value = promise.value(results)
        if value is not None and not promise.kept(value):
            lines.append(f"{promise.text}: {value:,.3g}, promised {promise.limit}")
    return lines + losses(results)


def losses(results: Results) -> list[str]:
    """Calls that failed, and decisions that are not in the trail."""
    lines = []
    for name, group in results.groups.items():
        for server, measured in group.servers.items():
            failed = sum(each.failed for each in measured.rounds)
            if failed:
                lines.append(f"{name}, {server}: {failed} calls failed")
            if dropped := measured.counted("dropped"):
                lines.append(f"{name}, {server}: {dropped:.0f} audit events were dropped")
            lines += [
                f"{name}, {server}: {proof.decisions} decisions, {proof.events} events in the trail, "
                f"which `audit verify` {'accepts' if proof.verified else 'refuses'}"
                for proof in measured.proofs
                if not proof.whole
            ]
    return lines
