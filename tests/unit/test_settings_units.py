"""Durations, sizes and addresses: what is written is what is meant, and what is shown can be written again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.addresses import TcpAddress, UnixAddress, parse_address
from sark_pdp.settings.units import format_duration, format_size, parse_duration, parse_size

DURATIONS = [
    ("0", 0.0),
    ("0s", 0.0),
    ("5ms", 0.005),
    ("1.5s", 1.5),
    ("90s", 90.0),
    ("10m", 600.0),
    ("2h", 7200.0),
    ("90d", 7_776_000.0),
]
NOT_DURATIONS = [
    "",
    "10",
    "1",
    "-1s",
    "1 s",
    "1S",
    "1min",
    "s",
    "1.s",
    ".5s",
    "1e3s",
    "1h30m",
    "٣s",
    "1s\n",
    "9" * 30 + "s",
]
SIZES = [("0", 0), ("512", 512), ("1KiB", 1024), ("64MiB", 64 * 2**20), ("3GiB", 3 * 2**30)]
NOT_SIZES = ["", "-1", "1KB", "1 KiB", "1kib", "1.5GiB", "MiB", "0x10", "1_000", "٣", "1\n", "9" * 30]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", NOT_DURATIONS)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="length of time"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", NOT_SIZES)
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_shown_duration_means_the_same(number: int, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.decimals(0, 10_000, places=6))
def test_a_shown_fraction_means_the_same(number: object) -> None:
    seconds = parse_duration(f"{number}s")
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_a_shown_size_means_the_same(size: int) -> None:
    assert parse_size(format_size(parse_size(str(size)))) == size


ADDRESSES = [
    ("127.0.0.1:9001", TcpAddress("127.0.0.1", 9001), True),
    ("127.1.2.3:0", TcpAddress("127.1.2.3", 0), True),
    ("localhost:65535", TcpAddress("localhost", 65535), True),
    ("[::1]:9001", TcpAddress("::1", 9001), True),
    ("0.0.0.0:9001", TcpAddress("0.0.0.0", 9001), False),  # noqa: S104 (parsed, not listened on)
    ("[::]:9001", TcpAddress("::", 9001), False),
    ("10.0.0.1:1", TcpAddress("10.0.0.1", 1), False),
    ("pdp.example.org:443", TcpAddress("pdp.example.org", 443), False),
    ("localhost.example.org:443", TcpAddress("localhost.example.org", 443), False),
]
NOT_ADDRESSES = [
    ("", "no port"),
    ("127.0.0.1", "no port"),
    ("127.0.0.1:", "no port"),
    ("127.0.0.1:x", "no port"),
    ("127.0.0.1:-1", "no port"),
    ("127.0.0.1:65536", "above 65535"),
    (":9001", "no valid host"),
    ("*:9001", "no valid host"),
    ("http://host:80", "without brackets"),
    ("::1:9001", "without brackets"),
    ("[::g]:9001", "IPv6"),
    ("[127.0.0.1]:9001", "IPv6"),
    ("127.0.0.256:9001", "IPv4"),
    ("1.2.3:9001", "IPv4"),
    ("ho st:1", "no valid host"),
    ("unix:pdp.sock", "absolute path"),
    ("unix://pdp.sock", "absolute path"),
    ("unix:///", "socket file"),
    ("unix:///run/", "socket file"),
    ("unix:///" + "a" * 107, "107 bytes"),
    ("unix:///" + "ä" * 54, "107 bytes"),
]


@pytest.mark.parametrize(("text", "address", "loopback"), ADDRESSES)
def test_a_tcp_address_is_read_and_written(text: str, address: TcpAddress, loopback: bool) -> None:
    parsed = parse_address(text)
    assert parsed == address
    assert str(parsed) == text
    assert address.loopback is loopback


def test_a_unix_address_may_fill_what_the_kernel_allows() -> None:
    text = "unix:///" + "a" * 106
    parsed = parse_address(text)
    assert isinstance(parsed, UnixAddress)
    assert str(parsed) == text


@pytest.mark.parametrize(("text", "problem"), NOT_ADDRESSES)
def test_anything_else_is_no_address(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_address(text)
