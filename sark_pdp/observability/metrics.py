"""What is counted. Labels take values from closed sets: entrypoints that were loaded, methods that are served."""

from collections.abc import Callable, Sequence
from threading import Lock

from msgspec import Struct

from sark_pdp.model import Outcome, Seconds, Tier
from sark_pdp.observability.bundles import BundleMetrics
from sark_pdp.observability.instruments import Counter, Histogram

EVALUATION_BUCKETS = (
    *(0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5),
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
)
"""Seconds. Those from 1 ms are what SARK's dashboards expect; a policy in WebAssembly mostly falls below."""

CALL_BUCKETS = (
    *(0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Seconds. Those from 5 ms are Prometheus' defaults, which the usual gRPC dashboards expect."""

ACTIVATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds."""

_GRPC_CODES = 17
"""The gRPC status codes are numbered from 0 to 16."""


class FrontReadings(Struct, frozen=True):
    """What one front has on its hands, and what it did since the start."""

    connections: int
    """That are open."""
    connections_accepted: int
    connections_refused: int
    """Too many at a time, or no handshake."""
    calls_begun: int
    calls_in_flight: int
    """Of one message each way, that wait for an answer."""
    streams: int
    """Streams and watches that are open."""
    not_grpc: int
    """Requests that were no gRPC calls."""
    bytes_in: int
    bytes_out: int
    """Without those of TLS."""
    bytes_in_flight: int
    """Of messages that are being received or answered."""
    inline: int
    """Messages answered on the front's own thread."""
    pooled: int
    """Messages that a thread of the pool took."""
    pool_waited: float
    """How long those waited for it, in seconds."""
    pool_depth: int
    """Messages that wait for it."""


class CallMetrics:
    """The calls of one gRPC method."""

    __slots__ = ("_handled", "kind", "method", "seconds", "service")

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service, self.method, self.kind = service, method, kind
        self._handled = [0] * _GRPC_CODES
        self.seconds = Histogram(CALL_BUCKETS)

    def handled(self, code: int, seconds: float) -> None:
        """One call ended with this gRPC status code after this time."""
        self._handled[code] += 1
        self.seconds.observe(seconds)

    def add(self, by_code: Sequence[int], by_bucket: Sequence[int], seconds: float) -> None:
        """Calls that somebody else counted: by status code, by bucket of `CALL_BUCKETS`, and the time of all."""
        for code, number in enumerate(by_code):
            self._handled[code] += number
        self.seconds.add(by_bucket, seconds)

    def by_code(self) -> list[int]:
        """How many calls ended with each status code."""
        return self._handled.copy()


class Metrics:
    """The instruments. Whoever counts gets one of these methods, or what it returns, at start."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._refreshing = Lock()
        self._calls: dict[str, CallMetrics] = {}
        self._evaluations: dict[str, tuple[Histogram, ...]] = {}
        self._decisions = [[0] * (max(Tier) + 1) for _ in range(max(Outcome) + 1)]
        self._readings: list[Callable[[], None]] = []
        self._fronts: dict[str, Callable[[], FrontReadings]] = {}
        self.shed = Counter()
        """Calls refused because a limit was reached."""
        self.bundles = BundleMetrics()
        self.activation = Histogram(ACTIVATION_BUCKETS)
        """Seconds from reading a bundle to its first answer."""

    def decision(self, outcome: Outcome, tier: Tier) -> None:
        """One decision was answered."""
        self._decisions[outcome][tier] += 1

    def evaluation(self, entrypoint: str, outcome: Outcome, took: Seconds) -> None:
        """One evaluation ended."""
        by_outcome = self._evaluations.get(entrypoint)
        if by_outcome is None:
            by_outcome = self._new_evaluations(entrypoint)
        by_outcome[outcome].observe(took)

    def calls(self, full_method: str, kind: str) -> CallMetrics:
        """Of a method such as `/sark.pdp.v1.PolicyDecision/Check`, always the same; `kind` is the label `grpc_type`."""
        with self._lock:
            if full_method not in self._calls:
                service, _, method = full_method.removeprefix("/").partition("/")
                self._calls[full_method] = CallMetrics(service, method, kind)
            return self._calls[full_method]

    def other_calls(self) -> CallMetrics:
        """Of all methods that are not served: what they are called is up to callers, and no label."""
        return self.calls("/other/other", "unary")

    def decisions(self) -> list[tuple[Outcome, Tier, int]]:
        """How many decisions there were of each kind, zeros included."""
        return [(outcome, tier, self._decisions[outcome][tier]) for outcome in Outcome for tier in Tier]

    def evaluations(self) -> list[tuple[str, Outcome, Histogram]]:
        """The times of each entrypoint and outcome that there were."""
        with self._lock:
            known = list(self._evaluations.items())
        return [
            (name, outcome, times[outcome]) for name, times in known for outcome in Outcome if times[outcome].count()
        ]

    def read_before_scrape(self, read: Callable[[], None]) -> None:
        """`read` brings in what is counted elsewhere; one thread at a time calls it, before what is here is read."""
        self._readings.append(read)

    def read_front(self, name: str, read: Callable[[], FrontReadings]) -> None:
        """A front tells what it counts when `read` is called; `name` is what it listens for: `grpc`, `admin`."""
        self._fronts[name] = read

    def fronts(self) -> list[tuple[str, FrontReadings]]:
        """What each front tells now."""
        return [(name, read()) for name, read in tuple(self._fronts.items())]

    def refresh(self) -> None:
        """Brings in what is counted elsewhere."""
        with self._refreshing:
            for read in self._readings:
                read()

    def all_calls(self) -> list[CallMetrics]:
        """Of every method."""
        with self._lock:
            return list(self._calls.values())

    def _new_evaluations(self, entrypoint: str) -> tuple[Histogram, ...]:
        with self._lock:
            fresh = tuple(Histogram(EVALUATION_BUCKETS) for _ in range(max(Outcome) + 1))
            return self._evaluations.setdefault(entrypoint, fresh)
