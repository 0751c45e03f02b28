"""What load runs have in common: where load goes, how it is shaped, and what a generator counted."""

import resource
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
from msgspec import Struct

from bench.questions import Api, Question

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
_TIMEOUT = 10.0


class Certificates(Struct, frozen=True):
    """PEM files."""

    authority: Path
    certificate: Path
    key: Path
    client: bool
    """Whether a caller has to show the certificate, too."""


class Target(Struct, frozen=True):
    """Where load is sent."""

    address: str
    """HOST:PORT, or unix:PATH."""
    api: Api
    tls: Certificates | None = None

    def ask(self, question: Question) -> bytes:
        """One answer. Raises grpc.RpcError, or OSError where it is not gRPC."""
        message = self.api.write(question)
        if not self.api.grpc:
            headers = {"content-type": self.api.content_type}
            request = urllib.request.Request(f"http://{self.address}{self.api.path}", message, headers)
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - of our own peer
                body: bytes = response.read()
                return body
        with self._channel() as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self.api.path)
            return call(message, timeout=_TIMEOUT)

    def _channel(self) -> grpc.Channel:
        if self.tls is None:
            return grpc.insecure_channel(self.address)
        tls = self.tls
        shown = (tls.key.read_bytes(), tls.certificate.read_bytes()) if tls.client else (None, None)
        options = [("grpc.ssl_target_name_override", "localhost")]
        return grpc.secure_channel(
            self.address, grpc.ssl_channel_credentials(tls.authority.read_bytes(), *shown), options
        )


class Shape(Struct, frozen=True):
    """How load is sent."""

    clients: int
    """Connections."""
    streams: int
    """Calls in flight on each connection."""
    rate: int = 0
    """Calls per second of all clients together; 0: as fast as answers come."""
    latencies: bool = False
    """Whether each call's time is taken: the generator then writes a line for each."""


class Load(Struct, frozen=True):
    """What a generator counted in one round."""

    calls: int
    """Answered."""
    failed: int
    seconds: float
    generator_cpu: float = 0.0
    """Seconds."""
    answer_bytes: Sequence[float] = ()
    """The mean size of an answer, for each body that was sent; empty where it is not known."""
    latencies: Mapping[str, float] = {}
    """Microseconds, by percentile as in `50`, and `max`; empty where they were not taken."""

    @property
    def rps(self) -> float:
        """Answers per second."""
        return self.calls / self.seconds


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """By nearest rank, and `max`; empty for none."""
    if not times:
        return {}
    ordered = sorted(times)
    last = len(ordered) - 1
    found = {f"{percent:g}": float(ordered[min(last, int(len(ordered) * percent / 100))]) for percent in PERCENTILES}
    return {**found, "max": float(ordered[last])}


def children_cpu() -> float:
    """Seconds that those children of this process which have ended used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
