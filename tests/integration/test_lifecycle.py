"""A process from its start to its end: when it answers, how it lets go, and what it leaves behind."""

import os
import queue
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from sark_pdp._proto.decision_pb2 import CheckResponse
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.verify import Report, verify
from sark_pdp.engine.bundle import read_bundle
from tests.fix_native import (
    CHECK,
    Channel,
    asking,
    assert_quiet,
    events,
    failure,
    http,
    wait_until,
    wire_policy,
)
from tests.fix_serve import Serve, Sidecar

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
HEALTH, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


def health(channel: Channel) -> int:
    return int(HealthCheckResponse.FromString(channel.call(HEALTH, b"")).status)


def statuses(watched: Any) -> list[int]:
    """All that a watch is told until it is let go."""
    told = []
    # How the call ends is told by whoever asks for it.
    with suppress(grpc.RpcError):
        for message in watched:
            told += [HealthCheckResponse.FromString(message).status]
    return told


def verified(served: Sidecar) -> Report:
    with SpoolReader(served.spool_dir) as reader:
        return verify(reader)


def assert_stopped(served: Sidecar) -> None:
    """It ended in order."""
    assert served.wait_exit() == 0
    report = verified(served)
    assert (report.differences, report.sources[-1].end) == (0, "stopped")
    assert events(served.spool_dir)[-1].event_type == "source_stopped"
    assert not [path for path in served.folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert_quiet(served.log)


@pytest.fixture
def held(serve: Serve, wire_bundle: Path, short_dir: Path) -> Iterator[tuple[Sidecar, Callable[[], None]]]:
    """A process that cannot activate its bundle until it is let go.

    Where it looks for the compiled policy there is a pipe, which it waits at until somebody writes to it.
    """
    compiled = short_dir / "state" / "compiled"
    compiled.mkdir(parents=True, mode=0o700)
    pipes = [compiled / f"{module.digest}.cwasm" for module in read_bundle(wire_bundle).modules]
    for pipe in pipes:
        os.mkfifo(pipe, 0o600)

    def let_go() -> None:
        for pipe in pipes:
            if stat.S_ISFIFO(pipe.stat().st_mode):
                # Fails while nobody reads.
                with suppress(OSError):
                    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    served = serve({**wire_policy(wire_bundle), "state_dir": str(short_dir / "state")})
    try:
        yield served, let_go
    finally:
        if served.process.poll() is None and not served.ready():
            served.kill()


def test_it_is_not_serving_until_a_bundle_is_active(held: tuple[Sidecar, Callable[[], None]]) -> None:
    served, let_go = held
    wait_until(lambda: _answers(served))
    with Channel(served.grpc) as channel, Channel(served.admin) as admin:
        assert health(channel) == NOT_SERVING
        watched = channel.watch(WATCH)
        assert HealthCheckResponse.FromString(next(watched)).status == NOT_SERVING
        assert served.get("/readyz") == (503, "not ready: no policy bundle is active yet\n")
        assert served.get("/healthz") == (200, "ok\n")
        refused = failure(lambda: channel.check(case="allow"))
        assert (refused.code, refused.details) == ("UNAVAILABLE", "no policy bundle is active yet")
        assert failure(lambda: channel.batch(asking("allow"))).code == "UNAVAILABLE"
        denied = channel.envoy(http("/allow"))
        assert denied.denied_response.status.code == 503
        (streamed,) = channel.stream(iter([asking("allow").SerializeToString()]))
        assert b"no policy bundle is active yet" in streamed
        status = admin.status()
        assert (status.serving, list(status.problems)) == (False, ["Not serving: no policy bundle is active yet."])
        wait_until(lambda: let_go() or served.ready())
        assert HealthCheckResponse.FromString(next(watched)).status == SERVING
        assert health(channel) == SERVING
        assert channel.check(case="allow").allow
    assert served.stop() == 0
    assert_stopped(served)
    # A minute that ends meanwhile leaves a checkpoint anywhere.
    types = [each.event_type for each in events(served.spool_dir) if each.event_type != "audit_checkpoint"]
    # What got no decision is counted, not audited.
    assert types == ["source_started", "policy_activated", "authorization_allowed", "source_stopped"]


def test_told_to_stop_while_it_starts_it_ends_in_order(held: tuple[Sidecar, Callable[[], None]]) -> None:
    served, let_go = held
    wait_until(lambda: _answers(served))
    served.process.send_signal(signal.SIGTERM)
    wait_until(lambda: let_go() or served.process.poll() is not None)
    assert_stopped(served)


def _answers(served: Sidecar) -> bool:
    try:
        return served.get("/healthz")[0] == 200 and Path(served.admin.removeprefix("unix://")).exists()
    except OSError:
        return False


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_finish_and_open_streams_do_not_hold_the_end(
    serve: Serve, wire_bundle: Path, shared_state: str, short_dir: Path, signal_: signal.Signals
) -> None:
    """With a grace that nobody would wait for: what is not being answered must not take it."""
    served = serve({
        **wire_policy(wire_bundle),
        "state_dir": shared_state,
        "listen.grpc": f"unix://{short_dir}/pdp.sock",
        "limits.eval_timeout": "500ms",
        "shutdown.grace": "1h",
    })  # fmt: skip
    served.wait_ready()
    asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with Channel(served.grpc) as channel, Channel(served.admin) as admin:
        idle = [channel.stream(iter(queue.SimpleQueue[bytes]().get, b"")) for _ in range(2)]
        stream = channel.stream(iter(asked.get, None))
        asked.put(asking("allow").SerializeToString())
        assert next(stream)
        watched = [channel.watch(WATCH), channel.watch(WATCH)]
        for each in watched:
            assert HealthCheckResponse.FromString(next(each)).status == SERVING
        assert admin.status().serving
        # Twice as many as are answered at a time: the later ones wait for a thread.
        slow = [channel.start(CHECK, asking("timeout", salt=salt)) for salt in range(8)]
        asked.put(asking("timeout", salt=-1, request_id="of the stream").SerializeToString())
        # Calls on one connection reach the process in order, so those above are there.
        assert health(channel) == SERVING
        served.process.send_signal(signal_)
        ids = {_decision_id(call.result()) for call in slow} | {_decision_id(next(stream))}
        assert [statuses(each) for each in watched] == [[NOT_SERVING]] * 2
        for each in (*idle, stream):
            assert failure(lambda: next(each)).code in {"CANCELLED", "UNAVAILABLE"}  # noqa: B023  # called at once
        assert_stopped(served)
        assert failure(lambda: channel.check(case="allow")).code == "UNAVAILABLE"
        asked.put(None)
    assert len(ids) == 9
    assert ids <= {each.id for each in events(served.spool_dir)}
    assert not (short_dir / "pdp.sock").exists()


def _decision_id(message: bytes) -> str:
    answer = CheckResponse.FromString(message)
    assert "limits.eval_timeout" in answer.reason
    return answer.decision_id


def test_the_grace_bounds_calls_that_go_on(serve: Serve, wire_bundle: Path, shared_state: str) -> None:
    """An evaluation that may take an hour holds neither its caller nor the process."""
    served = serve({
        **wire_policy(wire_bundle),
        "state_dir": shared_state,
        "limits.eval_timeout": "1h",
        "shutdown.grace": "300ms",
    })  # fmt: skip
    served.wait_ready()
    with Channel(served.grpc) as channel:
        looping = [channel.start(CHECK, asking("timeout"), timeout=600) for _ in range(2)]
        answered = channel.check(case="allow").decision_id
        served.process.send_signal(signal.SIGTERM)
        for call in looping:
            assert failure(call.result).code in {"CANCELLED", "UNAVAILABLE"}
        assert_stopped(served)
    assert answered in {each.id for each in events(served.spool_dir)}


def test_a_second_start_goes_on_with_the_same_trail(serve: Serve, wire_bundle: Path, shared_state: str) -> None:
    served = serve({**wire_policy(wire_bundle), "state_dir": shared_state})
    ids = []
    for run in range(3):
        if run:
            served.start()
        served.wait_ready()
        with Channel(served.grpc) as channel:
            ids += [
                channel.check(case="allow").decision_id,
                channel.envoy(http("/deny")).dynamic_metadata["decision_id"],
            ]
        assert served.stop() == 0
    assert_stopped(served)
    report = verified(served)
    assert [(source.end, source.differences) for source in report.sources] == [("stopped", 0)] * 3
    recorded = [each.id for each in events(served.spool_dir) if each.decision]
    assert recorded == ids


def test_it_prints_what_listens_and_which_policy_is_active(serve: Serve, shared_state: str) -> None:
    served = serve({"state_dir": shared_state})
    served.wait_ready()
    assert served.stop() == 0
    words = {line.split()[0]: line.split()[-1] for line in served.output.splitlines() if line}
    for key in ("listen.grpc", "listen.metrics", "listen.admin"):
        assert words[key] == served.settings[key]
    assert "policy revision" in served.output


def test_signals_in_any_number_do_not_keep_it_from_ending(serve: Serve, wire_bundle: Path) -> None:
    served = serve(wire_policy(wire_bundle))
    served.wait_ready()
    for _ in range(5_000):
        served.process.send_signal(signal.SIGHUP)
        # Far enough apart for each to be taken alone, wherever the process is just then.
        time.sleep(1e-4)
    served.process.send_signal(signal.SIGTERM)
    assert_stopped(served)
