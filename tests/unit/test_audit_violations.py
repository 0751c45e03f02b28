"""Refused clients are recorded, and not without end."""

import pytest

from sark_pdp.audit import violations
from sark_pdp.audit.violations import Violations
from sark_pdp.model import LifecycleRecord
from tests.fix_audit import MemorySink


def recorded(sink: MemorySink) -> list[LifecycleRecord]:
    return [record for record in sink.records if isinstance(record, LifecycleRecord)]


def test_a_refused_client_is_recorded_with_what_it_said_it_is() -> None:
    sink = MemorySink()
    Violations(sink).client_refused("192.0.2.7", ["eve.example", "x" * 1000, *map(str, range(100))], "why")
    [record] = recorded(sink)
    assert (record.event_type, record.severity) == ("security_violation", "high")
    assert record.details["reason"] == "why"
    assert record.details["ip_address"] == "192.0.2.7"
    assert record.details["names"][:2] == ["eve.example", "x" * 256]
    assert len(record.details["names"]) == 10


def test_what_comes_too_often_is_counted_and_told_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MemorySink()
    refused = Violations(sink)
    for _ in range(1000):
        refused.client_refused("192.0.2.7", ["eve.example"], "why")
    assert [record.details["left_out"] for record in recorded(sink)] == [0] * 30
    monkeypatch.setattr(violations, "_INTERVAL", 0.0)
    refused.client_refused("192.0.2.7", ["eve.example"], "why")
    assert recorded(sink)[-1].details["left_out"] == 970
