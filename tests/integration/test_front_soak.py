"""The front for long: nothing leaks, whatever calls end with. `make soak` makes it a million calls."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from sark_pdp.addresses import TcpAddress, UnixAddress
from sark_pdp.model import Seconds
from tests.fix_front import TIMEOUT, Carried, failure, until

pytest.importorskip("sark_pdp._front", reason="the front was not built")

CALLS = int(os.environ.get("SARK_SOAK_CALLS", "5000"))
SECONDS_PER_CALL = 0.01
"""On a busy machine; a call takes a tenth of a millisecond."""
ROUND = 500
PAYLOAD = bytes(1000)


@pytest.fixture
def carried(short_dir: Path) -> Iterator[Carried]:
    made = Carried(UnixAddress(short_dir / "front.sock"))
    yield made
    made.close()


def a_round(carried: Carried) -> None:
    """Calls answered at once, by the pool, with a status, refused by their head, cancelled; streams and watches."""
    outcomes: list[Any] = []
    for number in range(ROUND):
        message = (b"x", b"slow", b"status", b"metadata")[number % 4] + b" " + PAYLOAD
        outcomes.append(carried.start(message, timeout=None if number % 3 else TIMEOUT))
        if number % 50 == 0:
            outcomes.append(carried.start(b"x", "/a.B/Nothing"))
            outcomes.append(carried.start(b"x", "/a.B/Reader", metadata=(("a", "1"), ("b-bin", b"\xff"))))
            carried.start(b"slow").cancel()
        if number % 4 == 3:
            # No more at a time than the limit of calls allows.
            for outcome in outcomes:
                outcome.exception()
            outcomes.clear()
    assert list(carried.open(iter([PAYLOAD, b"slow"]))) == [PAYLOAD, b"slow"]
    answers = carried.see(b"3")
    assert next(answers) == b"0"
    answers.cancel()
    for echo in (carried.unary, carried.stream, carried.watch, carried.reader):
        echo.metadata.clear()
        echo.begun.clear()


def held() -> tuple[int, int]:
    """Blocks of memory that the interpreter has given out, and bytes of the whole process."""
    gc.collect()
    return sys.getallocatedblocks(), psutil.Process().memory_info().rss


@pytest.mark.timeout(int(CALLS * SECONDS_PER_CALL) + 120)
def test_calls_leave_nothing_behind(carried: Carried) -> None:
    for _ in range(4):
        a_round(carried)
    blocks, resident = held()
    rounds = max(CALLS // ROUND, 10)
    for _ in range(rounds):
        a_round(carried)
    until(lambda: carried.told().calls_in_flight == carried.told().streams == carried.told().bytes_in_flight == 0)
    blocks_after, resident_after = held()
    calls = rounds * ROUND
    print(f"{calls} calls: {blocks_after - blocks} blocks, {(resident_after - resident) / 1024:.0f} KiB")
    # A reference that each call lost would be a block a call at least; a message, its size.
    assert blocks_after - blocks < calls / 10
    assert resident_after - resident < max(calls * 100, 16 << 20)


def test_a_stop_in_the_middle_of_calls_ends_them_all(short_dir: Path) -> None:
    """However often: no thread stays, no call hangs, and the socket is free for the next."""
    address = UnixAddress(short_dir / "front.sock")
    before = threading.active_count()
    for _ in range(10):
        made = Carried(address)
        calls = [made.start(b"slow %d" % number) for number in range(100)]
        calls += [made.start(b"wait") for _ in range(3)]
        stream = made.open(iter([b"x"] * 1000))
        assert next(stream) == b"x"
        made.server.stop(Seconds(0.05))
        ended = {call.exception() is None or call.code() for call in calls}
        assert ended <= {True, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert not address.path.exists()
        made.close()
    until(lambda: threading.active_count() <= before + 1)


def test_a_signal_reaches_python_while_the_front_answers() -> None:
    """The front's thread keeps no signal for itself: Python's handlers run on the main thread, at once."""
    import signal

    made = Carried(TcpAddress("127.0.0.1", 0))
    caught: list[str] = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: caught.append(threading.current_thread().name))
    try:
        for _ in range(20):
            pending = made.start(b"slow")
            os.kill(os.getpid(), signal.SIGUSR1)
            assert pending.result() == b"slow"
        until(lambda: caught)
        assert set(caught) == {"MainThread"}
        assert failure(lambda: made.call(b"status")).code() is grpc.StatusCode.NOT_FOUND
    finally:
        signal.signal(signal.SIGUSR1, previous)
        made.close()
