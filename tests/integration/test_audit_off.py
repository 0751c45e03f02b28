"""`audit.spool_max_bytes: 0`: answers as ever, no trail, and nobody who looks is left to believe that there is one."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sark_pdp.audit.off import NoTrail
from sark_pdp.interfaces import AuditSink
from tests.fix_audit import a_record
from tests.fix_native import Channel
from tests.fix_serve import Sidecar

Serve = Callable[[dict[str, object]], Sidecar]


def put_some(sink: AuditSink) -> None:
    assert all(sink.put_nowait(a_record()) for _ in range(3))
    assert sink.accepts()
    assert not sink.required


def test_the_sink_takes_everything_and_keeps_nothing() -> None:
    trail = NoTrail()
    put_some(trail)
    statistics = trail.statistics()
    assert (statistics.source, statistics.queued, statistics.dropped, statistics.sequence) == ("", 0, 0, 0)


@pytest.fixture
def off(serve: Serve) -> Sidecar:
    served = serve({"audit.spool_max_bytes": 0})
    served.wait_ready()
    return served


def test_decisions_are_answered_and_nothing_is_written(off: Sidecar) -> None:
    with Channel(off.grpc) as channel:
        answers = [channel.check(case="allow") for _ in range(3)]
    assert len({answer.decision_id for answer in answers}) == 3
    assert off.stop() == 0
    assert not off.spool_dir.exists()


def test_the_log_and_the_status_say_so(off: Sidecar, sark_pdp: Path) -> None:
    [warning] = [line for line in map(json.loads, off.log.splitlines()) if "audit trail is off" in line["message"]]
    assert warning["level"] == "warning"

    def status(*options: str) -> str:
        command = [str(sark_pdp), "status", "--set", f"listen.admin={off.admin}", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert json.loads(status("--json"))["audit"]["source"] == ""
    row = status().split("Audit source")[1].splitlines()
    assert any(line.split()[:1] == ["off"] or " off " in line for line in row)
