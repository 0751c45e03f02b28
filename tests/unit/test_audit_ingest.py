"""Which events of a stream wait together."""

import pytest

from sark_pdp.audit_writer.batcher import Portion
from sark_pdp.audit_writer.ingest import _Stream

LATE_US = 1_000
OLD, NEW = 10, 5_000


def portion(sequence: int, oldest_us: int | None, stream: _Stream, source: str = "pod/1") -> Portion:
    return Portion(source, sequence, [], [], 100, stream.committed, oldest_us)


@pytest.mark.parametrize(("first", "second"), [(NEW, OLD), (OLD, NEW), (NEW, None), (OLD, None)])
def test_events_of_a_source_are_not_parted_while_one_of_them_is_not_committed(first: int, second: int | None) -> None:
    """Or the acknowledgement of the second would tell that the first is in the database, too."""
    stream = _Stream([])
    before = portion(1, first, stream)
    before.late = stream.goes_late(before, LATE_US)
    assert before.late is (first == OLD)
    stream.submitted(before)
    assert stream.goes_late(portion(2, second, stream), LATE_US) is before.late
    assert stream.goes_late(portion(1, OLD, stream, "pod/2"), LATE_US)
    before.committed(before)
    assert stream.acknowledged == {"pod/1": 1}
    assert not stream.waiting
    assert stream.goes_late(portion(2, second, stream), LATE_US) is (second == OLD)
