"""Which events of a stream wait together."""

from datetime import timedelta
from typing import Any

import pytest

from sark_pdp._proto.audit_pb2 import Batch
from sark_pdp.audit_writer.batcher import Batcher, Pace, Portion
from sark_pdp.audit_writer.ingest import Clients, Ingest, Lanes, _Stream
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.model import Seconds
from tests.fix_writer_streams import event

LATE_US = 1_000
OLD, NEW = 10, 5_000


def portion(sequence: int, oldest_us: int | None, stream: _Stream, source: str = "pod/1") -> Portion:
    return Portion(source, sequence, [], [], 100, stream, oldest_us)


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
    stream.committed(before)
    assert stream.acknowledged == {"pod/1": 1}
    assert not stream.waiting
    assert stream.goes_late(portion(2, second, stream), LATE_US) is (second == OLD)


class NoStore:
    """Is asked for nothing."""

    def write(self, *_: Any) -> Any:
        raise NotImplementedError

    def ping(self) -> None:
        raise NotImplementedError


def test_late_events_come_in_small_portions_each_of_which_is_acknowledged() -> None:
    """A sidecar that hears of none of them for a minute would send them all again."""
    metrics, pace = WriterMetrics(), Pace(2000, Seconds(0.05), 1 << 20)
    usual, late = (Batcher(NoStore(), lambda: None, metrics, pace) for _ in range(2))
    made = Ingest(Lanes(usual, late, timedelta(days=7), 20), metrics, Clients())
    message = Batch(source="pod/1", events=[event(number, "pod/1") for number in range(1, 51)]).SerializeToString()
    old, new = 2**62, 0
    assert [(part.last, part.late) for part in made._portions(_Stream([]), message, new)] == [(50, False)]
    parts = list(made._portions(_Stream([]), message, old))
    assert [(part.last, part.late) for part in parts] == [(20, True), (40, True), (50, True)]
