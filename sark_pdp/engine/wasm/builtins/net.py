"""`net.cidr_*`, those that the compiler leaves to the host."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, items, string, strings
from sark_pdp.engine.wasm.builtins.goip import MAPPED, Network, address_text, parse_address, parse_network
from sark_pdp.engine.wasm.values import LimitError, RegoObject, RegoSet
from sark_pdp.model import Json

MAX_EXPANDED: Final = {32: 1 << 14, 128: 1 << 12}
"""Addresses that `net.cidr_expand` lists, by bits: an IPv4 network of 18 bits; those of IPv6 take longer to print."""

_MAX_COMPARISONS: Final = 10_000

_FIRSTS: Final = (0, MAPPED)
"""The first address of IPv6, and that of IPv4: no other one is before it."""

Candidate = tuple[Network, tuple[int, int] | None]
"""A network, and the address where one was written instead."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "net.cidr_contains_matches": _cidr_contains_matches,
        "net.cidr_expand": _cidr_expand,
        "net.cidr_is_valid": _cidr_is_valid,
        "net.cidr_merge": _cidr_merge,
    }


def _cidr_is_valid(_: Context, cidr: Json) -> bool:
    try:
        parse_network(string(cidr))
    except BuiltinError:
        return False
    return True


def _cidr_expand(_: Context, cidr: Json) -> RegoSet:
    network = parse_network(string(cidr))
    most = MAX_EXPANDED[network.bits]
    if network.last - network.first >= most:
        raise LimitError(f"net.cidr_expand: {cidr} has more than {most} addresses")
    return RegoSet(address_text(network.bits, address) for address in range(network.first, network.last + 1))


def _cidr_contains_matches(_: Context, left: Json, right: Json) -> RegoSet:
    outer_texts = _labelled(left)
    inner_texts = _labelled(right) if outer_texts else []
    if not inner_texts:
        # What is compared with nothing need not be a network.
        return RegoSet()
    if len(outer_texts) * len(inner_texts) > _MAX_COMPARISONS:
        raise LimitError(f"net.cidr_contains_matches: more than {_MAX_COMPARISONS} comparisons")
    outer = [(parse_network(string(text)), key) for text, key in outer_texts]
    inner = [(_candidate(string(text)), key) for text, key in inner_texts]
    return RegoSet(
        [outer_key, inner_key]
        for network, outer_key in outer
        for (other, address), inner_key in inner
        if (network.contains(*address) if address else network.covers(other))
    )


def _candidate(text: str) -> Candidate:
    address = parse_address(text)
    return (Network(*address, address[0]), address) if address else (parse_network(text), None)


def _labelled(operand: Json) -> list[tuple[Json, Json]]:
    """The networks of an operand, each with what the result calls it by: an index, a key, or itself."""
    if type(operand) is str:
        return [(operand, operand)]
    if type(operand) is list:
        return [(_first(element), at) for at, element in enumerate(operand)]
    if type(operand) is RegoSet:
        return [(_first(element), element) for element in operand]
    if type(operand) in (dict, RegoObject):
        return [(_first(value), key) for key, value in items(operand)]
    return []


def _first(element: Json) -> Json:
    """The network itself, or the first of an array."""
    if type(element) is list and element:
        return element[0]
    return string(element)


def _cidr_merge(_: Context, networks: Json) -> RegoSet:
    blocks = sorted((_block(text) for text in strings(networks)), key=lambda block: (block.last, block.first))
    merged: list[_Block] = []
    for block in blocks:
        first, text = block.first, block.text
        while merged and (first if first in _FIRSTS else first - 1) <= merged[-1].last:
            first, text = min(first, merged.pop().first), ""
        merged.append(_Block(first, block.last, text))
    return RegoSet(text for block in merged for text in ([block.text] if block.text else _networks(block)))


class _Block(Struct, frozen=True):
    """Addresses as numbers of 128 bits, IPv4 ones as IPv6 maps them; a text only where it is one network as written."""

    first: int
    last: int
    text: str


def _block(text: str) -> _Block:
    address = parse_address(text)
    if address is not None and address[0] == 128 and address[1] >> 32 != 0xFFFF:
        raise BuiltinError("net.cidr_merge: an IPv6 address needs a prefix length")
    if address is None:
        network = parse_network(text)
        number, prefix = network.first, network.prefix
    else:
        # An address alone stands for the network of its class, as in the Internet of 1981, and is printed unmasked.
        number, prefix = address[1] & 0xFFFFFFFF, _class_prefix(address[1] & 0xFFFFFFFF)
        network = parse_network(f"{address_text(32, number)}/{prefix}")
    if network.bits == 128 and network.mapped:
        network = Network(32, network.first - MAPPED, network.prefix - 96)
        number, prefix = network.first, network.prefix
    offset = MAPPED if network.bits == 32 else 0
    return _Block(network.first + offset, network.last + offset, f"{address_text(network.bits, number)}/{prefix}")


def _class_prefix(address: int) -> int:
    return 8 if address >> 31 == 0 else 16 if address >> 30 == 0b10 else 24


def _networks(block: _Block) -> Iterator[str]:
    """The fewest networks that make up a block."""
    bits = 32 if block.first >> 32 == 0xFFFF and block.last >> 32 == 0xFFFF else 128
    first = block.first
    while first <= block.last:
        # The largest one that begins here and does not go beyond the end.
        size = min((first & -first).bit_length() - 1 if first else 128, (block.last - first + 1).bit_length() - 1)
        yield f"{address_text(bits, first)}/{bits - size}"
        first += 1 << size
