"""`net.cidr_*` on the host knows the networks that OPA knows."""

from ipaddress import IPv4Network, collapse_addresses
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

CIDRS: list[Any] = [
    "10.0.0.0/8", "10.0.0.5/24", "10.1.2.3/32", "0.0.0.0/0", "255.255.255.252/30", "10.0.0.0/33", "10.0.0.0/-1",
    "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/ 8", "10.0.0.0/+8", "10.0.0/8", "010.0.0.0/8", "10.0.0.0", "1.2.3.4/8/9",
    "/8", "", "x/8", "::/0", "::1/128", "2001:db8::/32", "2001:DB8::1/126", "fe80::1%eth0/64", "::ffff:10.0.0.0/104",
    "::ffff:10.0.0.1/128", "::ffff:0:0/96", "::ffff:0:0/90", "1::2::3/64", "::/129", "10.0.0.0/9999999999",
    "10.0.0.0/\u0661", 5, None, ["10.0.0.0/8"],
]  # fmt: skip
ADDRESSES = ["10.0.0.1", "11.0.0.1", "::1", "2001:db8::5", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.01", "10.0.0.256"]
MERGED: list[Any] = [
    [], ["10.0.0.0/24"], ["10.0.0.0/24", "10.0.1.0/24"], ["10.0.1.0/24", "10.0.2.0/24"],
    ["10.0.0.0/24", "10.0.0.128/25"], ["10.0.0.0/24", "10.0.0.0/24"], ["10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/25"],
    ["0.0.0.0/1", "128.0.0.0/1"], ["192.0.128.0/24", "192.0.129.0/24"], ["1.2.3.4"], ["130.2.3.4", "200.1.2.3"],
    ["224.0.0.1"], ["10.0.0.0/8", "1.2.3.4"], ["2001:db8::/32", "2001:db9::/32"], ["2601:600:8a80:207e::/64"], ["::1"],
    ["10.0.0.0/24", "2001:db8::/32"], ["x"], [5], "10.0.0.0/8", RegoSet(["10.0.0.0/24", "10.0.1.0/24"]),
    ["10.0.0.0/30", "10.0.0.4/32", "10.0.0.6/31"], ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"],
    ["255.255.255.0/24", "255.255.254.0/24"], ["fe80::/64", "fe80:0:0:1::/64"], ["2001:db8::1/128", "2001:db8::2/128"],
]  # fmt: skip
SIDES: list[Any] = [
    "10.0.0.0/8", ["10.0.0.0/8", "::/0"], [["10.0.0.0/8", "a"], ["11.0.0.0/8"]],
    {"a": "10.0.0.0/24", "b": "192.168.0.0/16"}, RegoSet(["10.0.0.0/8", "10.0.0.0/24"]),
    RegoObject([(1, "10.0.0.0/8"), ("x", ["10.1.0.0/16", 5])]), [], [[]], [5], 5, None, ["10.0.0.1", "11.0.0.0/8"],
    "x",
]  # fmt: skip

EXPANDED: list[Any] = [
    "10.0.0.5/29", "10.1.2.3/32", "255.255.255.252/30", "::1/128", "2001:DB8::1/126", "::ffff:10.0.0.0/126", "x", 5,
]  # fmt: skip

CASES: list[Call] = [
    *(("net.cidr_is_valid", [cidr]) for cidr in CIDRS),
    *(("net.cidr_expand", [cidr]) for cidr in EXPANDED),
    *(("net.cidr_contains_matches", [a, b]) for a, b in product(CIDRS[:32], [*CIDRS[:32], *ADDRESSES])),
    *(("net.cidr_contains_matches", [a, b]) for a, b in product(SIDES, SIDES)),
    *(("net.cidr_merge", [cidrs]) for cidrs in MERGED),
]


def test_each_call_returns_what_opa_returns(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, CASES) == []


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=8))
def test_merged_networks_are_those_that_python_collapses_to(networks: list[tuple[int, int]]) -> None:
    written = [IPv4Network((address, prefix), strict=False) for address, prefix in networks]
    expected = sorted(str(network) for network in collapse_addresses(written))
    assert call_builtin("net.cidr_merge", [[str(network) for network in written]]) == expected


def test_too_many_addresses_or_comparisons_fail_the_evaluation() -> None:
    assert len(call_builtin("net.cidr_expand", ["10.0.0.0/18"])) == 1 << 14
    many = [f"10.0.{number >> 8}.{number & 255}/32" for number in range(400)]
    calls: list[Call] = [("net.cidr_expand", ["10.0.0.0/17"]), ("net.cidr_contains_matches", [many, many])]
    for name, operands in calls:
        with pytest.raises(EvaluationError, match="more than"):
            call_builtin(name, operands)
