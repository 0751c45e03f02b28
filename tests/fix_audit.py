"""Audit records of invented decisions, spools of them, and a sink that keeps them in memory."""

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import uuid_utils
from msgspec import Struct

from sark_pdp.audit.source import Source
from sark_pdp.audit.spool import Spool
from sark_pdp.model import (
    AuditRecord,
    Decision,
    DecisionId,
    DecisionRecord,
    FilterRecord,
    Origin,
    Outcome,
    PolicyRevision,
    Request,
    Seconds,
    Tier,
    Verdict,
)
from sark_pdp.projection import Path, Projection

NOON = 1_767_268_800_123_456_789
"""2026-01-01T12:00:00.123456789Z."""

NOWHERE = Origin()


class FakeEntrypoint(Struct, frozen=True):
    """An entrypoint that is never evaluated."""

    projection: Projection
    name: str = "sark/mcp/decision"
    revision: PolicyRevision = PolicyRevision("r-1")
    fingerprint: bytes = bytes(32)
    deterministic: bool = True
    reads_data: tuple[Path, ...] = ()

    def evaluate(self, input_json: bytes) -> bytes | None:
        raise AssertionError("the audit trail evaluates nothing")

    def evaluate_nowait(self, input_json: bytes) -> bytes | None:
        return self.evaluate(input_json)


class ManualClock:
    """Stands still until it is told otherwise."""

    def __init__(self, now_ns: int = NOON) -> None:
        self.time_ns = now_ns

    def now_ns(self) -> int:
        return self.time_ns


class MemorySink:
    """Keeps records in a list; the AuditSink that other tests use."""

    def __init__(self, capacity: int = 1_000_000, *, deny: bool = False) -> None:
        self.records: list[AuditRecord] = []
        self.dropped = 0
        self._capacity = capacity
        self.required = deny
        self.keeps = True

    def put_nowait(self, record: AuditRecord) -> bool:
        if len(self.records) >= self._capacity:
            self.dropped += 1
            return False
        self.records.append(record)
        return True

    def accepts(self) -> bool:
        return not self.required or len(self.records) < self._capacity


def new_id() -> DecisionId:
    return DecisionId(str(uuid_utils.uuid7()))


def a_request(document: Any, paths: tuple[Path, ...] = ((),), origin: Origin = NOWHERE) -> Request:
    return Request(FakeEntrypoint(Projection(paths)), document, "request-1", origin=origin)


def a_decision(request: Request, outcome: Outcome = Outcome.ALLOW, reason: str = "because") -> Decision:
    projected = request.entrypoint.projection.project(request.document)
    return Decision(new_id(), Verdict(outcome, reason), Tier.L1, projected, Seconds(1.5))


def a_record(
    document: Any = None,
    paths: tuple[Path, ...] = ((),),
    outcome: Outcome = Outcome.ALLOW,
    origin: Origin = NOWHERE,
    time_ns: int = NOON,
    size: int = 0,
) -> DecisionRecord:
    request = a_request({"user": {"id": "alice"}} if document is None else document, paths, origin)
    decision = a_decision(request, outcome)
    return DecisionRecord(decision.id, time_ns, request, decision, 1234, size)


def a_filter(field: str, documents: list[Any], outcome: Callable[[int], Outcome]) -> FilterRecord:
    requests = tuple(a_request(document) for document in documents)
    decisions = tuple(a_decision(request, outcome(index)) for index, request in enumerate(requests))
    return FilterRecord(new_id(), NOON, field, requests, decisions, 1234, 0)


def write_source(
    directory: FilePath, segments: list[int], key: bytes | None = None, *, stopped: bool = True, name: str = "pod"
) -> Source:
    """Writes one source, whose segments have so many decisions each, as the queue does, and returns it."""
    spool = Spool(directory, 2**30)
    try:
        source = Source(name, spool.next_number, key, ManualClock())
        spool.append(source.segment([source.started(spool.previous)]))
        for size in segments:
            spool.append(source.segment([source.seal(a_record()) for _ in range(size)]))
        if stopped:
            spool.append(source.segment([source.stopped()]))
    finally:
        spool.close()
    return source
