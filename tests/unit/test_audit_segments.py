"""What is packed is unpacked alike, and bytes from anywhere else are refused at no cost."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lz4.block import compress

from sark_pdp.audit.segments import pack, unpack
from sark_pdp.audit.source import Sealed, Source
from tests.fix_audit import ManualClock, a_record

EVENTS = st.lists(st.builds(Sealed, st.binary(min_size=32, max_size=32), st.binary(max_size=300)), max_size=20)


@given(EVENTS)
def test_what_is_packed_is_unpacked_alike(events: list[Sealed]) -> None:
    assert unpack(pack(events)) == events


def test_decisions_of_one_kind_take_a_quarter_or_less() -> None:
    source = Source("pod", 1, None, ManualClock())
    chance = random.Random(7)
    users = [f"user-{chance.randrange(10**6)}" for _ in range(256)]
    events = [source.seal(a_record({"user": {"id": user, "roles": ["developer"]}})) for user in users]
    assert len(pack(events)) < sum(len(event.chain) + len(event.payload) for event in events) / 4


@given(st.binary(max_size=400))
def test_bytes_of_something_else_are_no_events(blob: bytes) -> None:
    events = unpack(blob)
    assert events is None or unpack(pack(events)) == events


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xff\xff\x7f" + b"\x00" * 60, id="claims 2 GiB"),
        pytest.param(pack([])[:-1], id="cut off"),
        pytest.param(compress(b"\xc1"), id="no MessagePack"),
        pytest.param(compress(msgspec.msgpack.encode([[1, 2]])), id="no events"),
    ],
)
def test_what_no_writer_stores_is_refused(blob: bytes) -> None:
    assert unpack(blob) is None
