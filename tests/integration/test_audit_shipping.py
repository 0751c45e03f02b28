"""A sidecar that ships what it records: to a writer that is there, that comes late, and that outlives it."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.audit.event import Event, event_of
from tests import fix_writer
from tests.fix_native import Channel, asking, events, wait_until, wire_policy
from tests.fix_serve import Serve, Sidecar, free_port
from tests.fix_writer import MemoryWriter


@pytest.fixture
def writer() -> Iterator[MemoryWriter]:
    made = MemoryWriter()
    yield made
    made.stop()


def shipped(writer: MemoryWriter) -> list[Event]:
    """In the order of the sources and of their sequences."""
    return [event_of(payload) for _, (_, payload) in sorted(writer.events.items())]


def ask(sidecar: Sidecar, number: int) -> list[str]:
    """The ids of so many decisions."""
    with Channel(sidecar.grpc) as channel:
        return [channel.check(case="allow", user={"id": "alice"}, salt=salt).decision_id for salt in range(number)]


def is_committed(id_: str, sidecar: Sidecar, writer: MemoryWriter) -> bool:
    return any(event.id == id_ for event in (*shipped(writer), *events(sidecar.spool_dir)))


def status(sidecar: Sidecar) -> Any:
    with Channel(sidecar.admin) as admin:
        return admin.status()


def test_every_decision_arrives_and_the_end_of_the_source_too(
    serve: Serve, wire_bundle: Path, writer: MemoryWriter
) -> None:
    sidecar = serve({**wire_policy(wire_bundle), "audit.writer": writer.target})
    sidecar.wait_ready()
    ids = ask(sidecar, 300)
    wait_until(lambda: len(writer.events) >= 302)
    wait_until(lambda: status(sidecar).audit.shipped >= 302)
    assert status(sidecar).audit.ships
    assert not status(sidecar).problems
    assert "sark_audit_shipped_total" in sidecar.get("/metrics")[1]
    assert sidecar.stop() == 0
    arrived = shipped(writer)
    counted = Counter(event.event_type for event in arrived)
    assert counted == {
        "source_started": 1,
        "policy_activated": 1,
        "authorization_allowed": 300,
        "source_stopped": 1,
        **({"audit_checkpoint": counted["audit_checkpoint"]} if "audit_checkpoint" in counted else {}),
    }
    assert {event.id for event in arrived} >= set(ids)
    assert events(sidecar.spool_dir) == []


def test_without_a_writer_answers_are_given_and_events_kept(serve: Serve, wire_bundle: Path, sark_pdp: Path) -> None:
    port = free_port()
    sidecar = serve({**wire_policy(wire_bundle), "audit.writer": f"127.0.0.1:{port}"})
    sidecar.wait_ready()
    ids = ask(sidecar, 50)
    wait_until(lambda: any("does not take events" in problem for problem in status(sidecar).problems))
    assert sidecar.ready()
    assert status(sidecar).serving
    late = MemoryWriter(port)
    wait_until(lambda: {event.id for event in shipped(late)} >= set(ids))
    assert sidecar.stop() == 0
    late.stop()


def test_what_a_killed_process_had_committed_is_shipped_by_the_next_one(
    serve: Serve, wire_bundle: Path, writer: MemoryWriter
) -> None:
    writer.behave = fix_writer.reset_between_acknowledgements
    sidecar = serve({**wire_policy(wire_bundle), "audit.writer": writer.target})
    committed: set[str] = set()
    for _ in range(3):
        sidecar.wait_ready()
        ids = ask(sidecar, 100)
        wait_until(partial(is_committed, ids[-1], sidecar, writer))
        committed.update(ids)
        sidecar.kill()
        sidecar.start()
    sidecar.wait_ready()
    writer.behave = fix_writer.acknowledge
    assert sidecar.stop() == 0
    arrived = shipped(writer)
    assert {event.id for event in arrived} >= committed
    assert len({event.id for event in arrived}) == len(arrived)
    # No source has a gap, and each but the last was named by the next one with where it ended.
    ends = {event.source: event.sequence for event in arrived}
    assert Counter(event.source for event in arrived) == ends
    named = [event.details["previous"] for event in arrived if event.event_type == "source_started"]
    assert {each["source"]: each["sequence"] for each in named if each}.items() <= ends.items()
    assert len(named) == 4
    assert events(sidecar.spool_dir) == []


def test_secrets_reach_neither_the_spool_nor_the_writer(serve: Serve, wire_bundle: Path, writer: MemoryWriter) -> None:
    masks = [{"path": "/input/parameters/query", "operation": "truncate", "length": 3}]
    sidecar = serve({**wire_policy(wire_bundle, "wire/other"), "audit.writer": writer.target, "audit.mask": masks})
    sidecar.wait_ready()
    parameters = {"api_key": "hunter2", "query": "select hunter3"}
    document: dict[str, Any] = {"parameters": parameters, "user": {"id": "alice"}}
    with Channel(sidecar.grpc) as channel:
        id_ = channel.check(asking("allow", "wire/decide", **document)).decision_id
    assert sidecar.stop() == 0
    (event,) = (event for event in shipped(writer) if event.id == id_)
    assert event.user_id == "alice"
    assert not any(b"hunter" in payload for _, payload in writer.events.values())
    assert not any(b"hunter" in file.read_bytes() for file in sidecar.spool_dir.iterdir())
