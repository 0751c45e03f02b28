"""What masking costs an event whose input holds no secret: `python -m bench.audit_mask`.

Payloads of the same records are made with and without it, in turns; each record counts with the least time that it ever
took, which a busy machine hardly changes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sark_pdp.audit.event import Payloads
from sark_pdp.audit.mask import Mask
from sark_pdp.model import (
    Decision,
    DecisionId,
    DecisionRecord,
    Document,
    Outcome,
    PolicyRevision,
    Request,
    Seconds,
    Tier,
    Verdict,
)
from sark_pdp.projection import Path, Projection

_ID = DecisionId("019b0000-0000-7000-8000-000000000000")
_AGAIN = 200
_UNLIKE = 1500
"""More than are remembered."""
_ROUNDS = 40

_HTTP = {
    "method": "GET",
    "path": "/api/v1/items?page=2&sort=name",
    "headers": {":authority": "x.example", ":path": "/api/v1/items?page=2&sort=name", "user-agent": "curl/8"},
    "body": '{"q": "hello world", "n": 3}',
}
_INPUTS: dict[str, Document] = {
    "MCP call, what the policy reads": {
        "user": {"id": "alice", "roles": ["developer"]},
        "action": "tool:invoke",
        "tool": {"name": "search", "sensitivity_level": "medium"},
    },
    "MCP call, whole": {
        "user": {"id": "alice", "email": "alice@example.com", "roles": ["developer"], "teams": ["a", "b"]},
        "action": "tool:invoke",
        "tool": {"name": "search", "sensitivity_level": "medium", "owner": "bob"},
        "server": {"id": "s1", "name": "crm", "owner_id": "bob", "environment": "prod"},
        "context": {"timestamp": 1767268800, "client_ip": "10.0.0.7"},
        "parameters": {"q": "select", "limit": 10},
    },
    "HTTP, path and a header": {
        "attributes": {"request": {"http": {"method": "GET", "headers": {"x-user": "alice"}, "path": "/api/items"}}}
    },
    "HTTP, whole, with a body": {
        "attributes": {
            "request": {"http": _HTTP},
            "source": {"address": {"socketAddress": {"address": "10.0.0.7", "portValue": 1234}}},
        },
        "parsed_path": ["api", "v1", "items"],
        "parsed_query": {"page": ["2"], "sort": ["name"]},
    },
}


class _Entrypoint:
    """One that is never evaluated."""

    projection = Projection(((),))
    name = "sark/mcp/decision"
    revision = PolicyRevision("r-1")
    fingerprint = bytes(32)
    deterministic = True
    reads_data: tuple[Path, ...] = ()

    def evaluate(self, input_json: bytes) -> bytes | None:
        raise AssertionError("nothing is evaluated here")

    evaluate_nowait = evaluate


class _NoMask(Mask):
    """Looks at nothing."""

    def spares(self, document: Document) -> bool:
        return True


def _record(document: Document) -> DecisionRecord:
    request = Request(_Entrypoint(), document, "request-1")
    decision = Decision(_ID, Verdict(Outcome.ALLOW, "because"), Tier.L1, document, Seconds(1.5))
    return DecisionRecord(_ID, 1_767_268_800_123_456_789, request, decision, 1234, 0)


def _unmasked() -> Callable[[Any, int], bytes]:
    payloads = Payloads("pod/boot", _NoMask())
    # Nor does it look for inputs that it remembers.
    payloads._unlike = 1 << 60  # noqa: SLF001
    return payloads.payload


def _least(makers: Sequence[Callable[[Any, int], bytes]], records: Sequence[DecisionRecord]) -> list[float]:
    """Nanoseconds of each maker, the mean of the least of each record."""
    clock = time.perf_counter_ns
    least = [[1 << 60] * len(records) for _ in makers]
    for _ in range(_ROUNDS):
        for maker, mine in zip(makers, least, strict=True):
            for index, record in enumerate(records):
                began = clock()
                maker(record, 1)
                took = clock() - began
                mine[index] = min(mine[index], took)
    return [sum(each) / len(records) for each in least]


def main() -> None:
    """Prints a table."""
    print(
        "| input | bytes | event without masking, µs | masking, the input came before, µs | an input never seen, µs |"
    )
    print("|---|---|---|---|---|")
    for name, document in _INPUTS.items():
        raw = msgspec.json.encode(document)
        again = [_record(msgspec.json.decode(raw)) for _ in range(_AGAIN)]
        unlike = [_record({**msgspec.json.decode(raw), "n": number}) for number in range(_UNLIKE)]
        figures = []
        for records in (again, unlike):
            without, masked = _least((_unmasked(), Payloads("pod/boot").payload), records)
            figures += [without, masked - without]
        plain, first, _, second = (f"{figure / 1000:.2f}" for figure in figures)
        print(f"| {name} | {len(raw)} | {plain} | {first} | {second} |")


if __name__ == "__main__":
    main()
