"""A client keeps the id of each decision that it got; then the process ends, in order or not.

With SARK_SOAK_DECISIONS=100000 in the environment these tests take as many decisions, and hold the process to what it
promises on a machine that is not busy otherwise: that a kill costs no more than the last 50 ms. On any machine it costs
nothing that was committed before it.
"""

import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from sark_pdp.audit.event import Event
from tests.fix_native import CHECK, Channel, asking, assert_quiet, events, wait_until, wire_policy
from tests.fix_serve import Serve, Sidecar

SOAK = os.environ.get("SARK_SOAK_DECISIONS")
DECISIONS = int(SOAK or 5_000)
LOST_SECONDS = 0.05 if SOAK else math.inf
CLIENTS = 4

pytestmark = pytest.mark.timeout(900)


class Client(threading.Thread):
    """Asks one question after the other until there is no answer; `answers` are (decision id, time of its arrival)."""

    def __init__(self, target: str, number: int) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[str, float]] = []
        self._target = target
        self._number = number

    def run(self) -> None:
        from sark_pdp._proto.decision_pb2 import CheckResponse

        cases = ("allow", "deny", "object", "nothing known")
        asked = [
            asking(case, user={"id": f"client-{self._number}"}, salt=salt).SerializeToString()
            for salt in range(50)
            for case in cases
        ]
        with Channel(self._target) as channel:
            while True:
                try:
                    answer = channel.call(CHECK, asked[len(self.answers) % len(asked)])
                except grpc.RpcError as error:
                    known: Any = error
                    if known.code() is grpc.StatusCode.UNAVAILABLE or known.code() is grpc.StatusCode.CANCELLED:
                        return
                    raise
                self.answers.append((CheckResponse.FromString(answer).decision_id, time.monotonic()))


def take(served: Sidecar, end: Callable[[Sidecar], Any]) -> list[Client]:
    """Asks as fast as it goes, and ends the process in the middle."""
    clients = [Client(served.grpc, number) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    wait_until(lambda: sum(len(client.answers) for client in clients) >= DECISIONS, seconds=600)
    end(served)
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    return clients


def verified(sark_pdp: Path, served: Sidecar) -> dict[str, Any]:
    """What `sark-pdp audit verify` says; its exit code must be 0."""
    run = subprocess.run(
        [sark_pdp, "audit", "verify", "--json", "--spool", served.spool_dir],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    assert report["differences"] == 0
    return report


@pytest.fixture
def served(serve: Serve, wire_bundle: Path, shared_state: str) -> Sidecar:
    started = serve({**wire_policy(wire_bundle), "state_dir": shared_state})
    started.wait_ready()
    return started


def some_of(found: list[Event]) -> list[Event]:
    """All of them, once there are some."""
    return found if len(found) >= DECISIONS // 10 else []


def test_a_kill_costs_no_more_than_the_last_moment(sark_pdp: Path, served: Sidecar) -> None:
    committed: list[str] = []
    killed = 0.0

    def kill(served: Sidecar) -> None:
        nonlocal killed
        # Under load, too, one group after the other is committed: not when there is time for it.
        found = wait_until(lambda: some_of(events(served.spool_dir)), seconds=600)
        committed.extend(each.id for each in found)
        killed = time.monotonic()
        served.kill()

    clients = take(served, kill)
    everything = events(served.spool_dir)
    assert [each.id for each in everything[: len(committed)]] == committed
    recorded = [each.id for each in everything if each.decision]
    found = set(recorded)
    assert len(found) == len(recorded)
    late = 0.0
    lost = 0
    for client in clients:
        missing = [index for index, (id_, _) in enumerate(client.answers) if id_ not in found]
        # Nothing is missing in the middle: what is committed is committed in order.
        assert missing == list(range(len(client.answers) - len(missing), len(client.answers)))
        lost += len(missing)
        late = max([late, *(killed - client.answers[index][1] for index in missing)])
    print(f"answered {len(recorded) + lost}, lost {lost}, the oldest {late * 1000:.1f} ms before the kill")
    assert late <= LOST_SECONDS
    # Each client had at most one question on its way, the answer to which it did not get.
    known = {id_ for client in clients for id_, _ in client.answers}
    assert len(found - known) <= CLIENTS
    (source,) = verified(sark_pdp, served)["sources"]
    assert source["end"] == "unproven"
    assert source["events"] == source["last"] == len(everything)

    served.start()
    served.wait_ready()
    assert served.stop() == 0
    assert [each["end"] for each in verified(sark_pdp, served)["sources"]] == ["succeeded", "stopped"]


def test_told_to_stop_it_keeps_every_decision_and_proves_the_end(sark_pdp: Path, served: Sidecar) -> None:
    clients = take(served, Sidecar.stop)
    assert served.process.returncode == 0
    known = {id_ for client in clients for id_, _ in client.answers}
    recorded = [each.id for each in events(served.spool_dir) if each.decision]
    print(f"answered {len(known)}, recorded {len(recorded)}")
    assert len(recorded) == len(set(recorded))
    # Nothing is missing, and nothing was decided that did not reach its caller.
    assert set(recorded) == known
    (source,) = verified(sark_pdp, served)["sources"]
    assert source["end"] == "stopped"
    assert_quiet(served.log)
