"""What becomes of payloads that no sidecar of ours makes: each is a row, or is refused with a reason."""

from typing import Any

import msgspec
import pytest

from sark_pdp.audit_writer.batcher import portion_of
from sark_pdp.audit_writer.columns import UnstorableError, columns_of, details_of, row_of
from tests.fix_writer_streams import Told

SOURCE = "pod-1/0123456789abcdef"
COLUMNS: dict[str, Any] = {
    "id": "0192f0c1-2a3b-7c4d-8e5f-001122334455",
    "timestamp": "2026-11-24T06:00:00Z",
    "source": SOURCE,
    "sequence": 1,
    "event_type": "authorization_denied",
    "severity": "medium",
    "details": {},
}


def payload(**columns: Any) -> bytes:
    return msgspec.json.encode({**COLUMNS, **columns})


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_day_can_name_is_refused(time: str) -> None:
    with pytest.raises(UnstorableError, match="outside the years 1 to 9999"):
        row_of(SOURCE, 1, bytes(32), payload(timestamp=time))


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_first_and_the_last_time_are_rows(time: str) -> None:
    assert row_of(SOURCE, 1, bytes(32), payload(timestamp=time)).sequence == 1


@pytest.mark.parametrize("name", ["chain", "payload"])
def test_fields_with_the_names_of_columns_that_are_none_of_the_payloads_say_nothing(name: str) -> None:
    # A number where a text belongs takes the longer way.
    assert row_of(SOURCE, 1, bytes(32), payload(user_id=7, **{name: "x"})).sequence == 1


def test_a_rejected_event_counts_all_its_bytes() -> None:
    chain = bytes(1 << 20)
    portion = portion_of(SOURCE, [(1, chain, b"nonsense")], Told())
    assert portion.rejections
    assert portion.size > len(chain)


@pytest.mark.parametrize(
    ("details", "stored"),
    [
        (b"[" * 1001 + b"]" * 1001, False),
        (b'{"a":' * 1001 + b"0" + b"}" * 1001, False),
        (b"[" * 900 + b"]" * 900, True),
        (b'["' + b"[" * 2000 + b'"]', True),
        (b'["\\"' + b"[" * 2000 + b'\\\\"]', True),
        (b"[" + b",".join([b"[]"] * 2000) + b"]", True),
    ],
)
def test_details_that_would_overflow_the_stack_of_the_server_are_no_column(details: bytes, stored: bool) -> None:
    columns = msgspec.structs.replace(columns_of(payload()), details=msgspec.Raw(details))
    assert details_of(columns) == (details if stored else None)
