"""Addresses and networks as Go's package net reads, compares and prints them."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import BuiltinError

MAPPED: Final = 0xFFFF << 32
"""IPv6 addresses from here hold the IPv4 ones."""

_LENGTH: Final = re.compile(r"[0-9]{1,7}")


class Network(Struct, frozen=True):
    """A network as it was written: one in IPv6 notation stays so, although it may hold IPv4 addresses only."""

    bits: int
    """32 or 128."""
    first: int
    prefix: int

    @property
    def last(self) -> int:
        """The last address."""
        return self.first | (1 << self.bits - self.prefix) - 1

    @property
    def mapped(self) -> bool:
        """Whether it is in IPv6 notation and holds IPv4 addresses."""
        return self.bits == 128 and self.first >> 32 == 0xFFFF

    def contains(self, bits: int, address: int) -> bool:
        """Whether an address is in it; IPv4 addresses in either notation are alike."""
        own_bits, first, prefix = self.bits, self.first, self.prefix
        if self.mapped:
            own_bits, first, prefix = 32, first - MAPPED, prefix - 96
        if bits == 128 and address >> 32 == 0xFFFF:
            bits, address = 32, address - MAPPED
        return bits == own_bits and (address ^ first) >> own_bits - prefix == 0

    def covers(self, other: "Network") -> bool:
        """Whether all of another network is in it."""
        if self.bits == 128 and other.bits == 128 and not self.mapped and not other.mapped:
            return self.prefix <= other.prefix and (self.first ^ other.first) >> 128 - self.prefix == 0
        return self.contains(other.bits, other.first) and self.contains(other.bits, other.last)


def parse_address(text: str) -> tuple[int, int] | None:
    """Bits and number of an address, None where it is none."""
    try:
        if ":" not in text:
            return 32, int(IPv4Address(text))
        # A zone is fit for a connection, and for no comparison.
        return None if "%" in text else (128, int(IPv6Address(text)))
    except AddressValueError:
        return None


def parse_network(text: str) -> Network:
    """The network of `address/length`; bits behind the length count for nothing."""
    address_text, _, length = text.partition("/")
    address = parse_address(address_text)
    if address is None or not _LENGTH.fullmatch(length) or int(length) > address[0]:
        raise BuiltinError(f"not a network: {text[:80]!r}")
    bits, number = address
    prefix = int(length)
    return Network(bits, number >> bits - prefix << bits - prefix, prefix)


def address_text(bits: int, address: int) -> str:
    """The address as Go prints it: IPv4 in dots, whatever the notation."""
    if bits == 32 or address >> 32 == 0xFFFF:
        return str(IPv4Address(address & 0xFFFFFFFF))
    return str(IPv6Address(address))
