"""The chain values, recomputed here as the design words them, and the key file."""

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.audit.chain import FIRST, link, read_key
from sark_pdp.audit.source import Source
from sark_pdp.errors import StartError
from tests.fix_audit import ManualClock, a_record

PREVIOUS = st.binary(min_size=32, max_size=32)


def test_the_first_value_follows_on_32_zero_bytes() -> None:
    assert FIRST == b"\0" * 32


@given(PREVIOUS, st.binary())
def test_without_a_key_it_is_blake2b(previous: bytes, payload: bytes) -> None:
    assert link(None)(previous, payload) == hashlib.blake2b(previous + payload, digest_size=32).digest()


@given(st.binary(min_size=1, max_size=200), PREVIOUS, st.binary())
def test_with_a_key_it_is_hmac_sha256(key: bytes, previous: bytes, payload: bytes) -> None:
    each = link(key)
    assert each(previous, payload) == each(previous, payload) == hmac.digest(key, previous + payload, "sha256")


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_a_source_chains_its_events_and_numbers_them_from_one(key: bytes | None) -> None:
    source = Source("pod", 1, key, ManualClock())
    chain = FIRST
    for sequence in range(1, 5):
        event = source.seal(a_record())
        chain = link(key)(chain, event.payload)
        assert (event.chain, source.sequence) == (chain, sequence)


def test_each_start_is_another_source() -> None:
    names = {Source("pod", 1, None, ManualClock()).name for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith("pod/") for name in names)


def test_a_key_is_read_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "chain.key"
    file.write_bytes(b"0123456789abcdef\n")
    assert read_key(file) == b"0123456789abcdef"


@pytest.mark.parametrize(("content", "problem"), [(None, "No such file"), (b"", "0 bytes"), (b"short\n", "5 bytes")])
def test_an_unusable_key_file_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "chain.key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError, match=problem) as caught:
        read_key(file)
    assert str(file) in str(caught.value)
