"""A front with three methods that do what a message says, and a channel to it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from sark_pdp.addresses import Address
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import FrontReadings, Metrics
from sark_pdp.transport.carrier import Limits, Server, Transport, server_kind
from sark_pdp.transport.handler import RETRY_PUSHBACK, Kind, Metadata, Refusal, Reply, Status
from sark_pdp.transport.tls import Tls

LIMITS = Limits(max_concurrent=4, in_flight_bytes=1 << 20, max_message_bytes=1 << 18)
TIMEOUT = 60.0
"""Seconds for what takes milliseconds on an idle machine."""


class Echo:
    """Answers with the message; what it says first tells how."""

    def __init__(self, kind: Kind = Kind.UNARY, *, wants_pairs: bool = False) -> None:
        self.kind = kind
        self.wants_pairs = wants_pairs
        self.free = threading.Event()
        self.begun: list[bytes] = []
        self.metadata: list[Metadata] = []
        self.threads: set[str] = set()

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        if message.startswith((b"wait", b"slow")):
            return None
        return self.answer(metadata, message)

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        self.metadata.append(metadata)
        self.threads.add(threading.current_thread().name)
        match message.partition(b" ")[0]:
            case b"wait":
                self.begun.append(message)
                self.free.wait(TIMEOUT)
            case b"raise":
                raise ValueError("a method failed")
            case b"status":
                return Reply(status=Status.NOT_FOUND, details="50 % of \u00fc\n", trailing=(("a-bin", b"\xff\x00"),))
            case b"metadata":
                return Reply(message, initial=(("first", "1"),), trailing=(("last-bin", b"\x00"),))
            case b"own":
                return Reply(message, trailing=(("grpc-status", "5"),))
            case b"nonsense":
                return "no reply"  # type: ignore[return-value]
        return Reply(message)

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        self.metadata.append(metadata)
        try:
            for number in range(int(message)):
                yield Reply(b"%d" % number)
            while not self.free.wait(0.01):
                yield None
        finally:
            self.begun.append(b"ended")

    def refusal(self, reason: Refusal) -> Reply:
        return Reply(status=Status.RESOURCE_EXHAUSTED, details=reason.name, trailing=RETRY_PUSHBACK)


class Carried:
    """A front with its methods, and a channel to it; or grpcio in its place."""

    def __init__(
        self, address: Address, limits: Limits = LIMITS, tls: Tls | None = None, transport: Transport = "front"
    ) -> None:
        self.unary, self.stream, self.watch = Echo(), Echo(Kind.STREAM), Echo(Kind.WATCH)
        self.reader = Echo(wants_pairs=True)
        self.metrics = Metrics()
        methods = {
            "/a.B/Unary": self.unary,
            "/a.B/Stream": self.stream,
            "/a.B/Watch": self.watch,
            "/a.B/Reader": self.reader,
        }
        self.server: Server = server_kind(transport)(methods, limits, self.metrics, tls)
        self.address = self.server.listen(address, "listen.grpc", 0o640)
        self.server.start()
        self.channel = grpc.insecure_channel(str(self.address), [("grpc.use_local_subchannel_pool", 1)])

    def call(self, message: bytes, method: str = "/a.B/Unary", **options: Any) -> bytes:
        answer: bytes = self.start(message, method, **options).result()
        return answer

    def start(self, message: bytes, method: str = "/a.B/Unary", timeout: float | None = TIMEOUT, **options: Any) -> Any:
        call: Any = self.channel.unary_unary(method)
        return call.future(message, timeout=timeout, **options)

    def open(self, messages: Iterator[bytes]) -> Any:
        """A stream of questions."""
        call: Any = self.channel.stream_stream("/a.B/Stream")
        return call(messages, timeout=TIMEOUT)

    def see(self, message: bytes) -> Any:
        """A watch."""
        call: Any = self.channel.unary_stream("/a.B/Watch")
        return call(message, timeout=TIMEOUT)

    def codes(self, method: str = "/a.B/Unary") -> dict[int, int]:
        """How many calls ended with each code that there was."""
        self.metrics.refresh()
        by_code = self.metrics.calls(method, "").by_code()
        return {code: count for code, count in enumerate(by_code) if count}

    def told(self) -> FrontReadings:
        """What the front counts now."""
        [(name, readings)] = self.metrics.fronts()
        assert name == "grpc"
        return readings

    def close(self) -> None:
        for echo in (self.unary, self.stream, self.watch):
            echo.free.set()
        self.channel.close()
        self.server.stop(Seconds(5.0))


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT
    while not (result := what()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result


def failure(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def code(call: Callable[[], Any]) -> str:
    name: str = failure(call).code().name
    return name
