"""The cases that are not evaluated, each with its reason; everything else must pass."""

from typing import Final

from tests.conformance.corpus import Case

_INTEGERS: Final = (
    "OPA's modules have no integers beyond 64 bits (https://github.com/open-policy-agent/opa/issues/3711); "
    "OPA's own WASM SDK skips it too"
)
_EXPONENTS: Final = "OPA's modules read JSON themselves, and do not limit exponents; OPA's own WASM SDK skips it too"

EXCEPTIONS: Final = {
    "data/toplevel integer": _INTEGERS,
    "data/nested integer": _INTEGERS,
    "strings/format_int: bignum exact (>64-bit integer, all bases + negative)": _INTEGERS,
    "arithmetic/bignum exact (>64-bit integers through plus, minus, multiply)": _INTEGERS,
    "aggregates/bignum exact (>64-bit integers through sum and product)": _INTEGERS,
    "arithmetic/bignum modulo (divisor a nonzero multiple of 2^64)": _INTEGERS,
    "aggregates/sum integer fast-path overflow (elements fit int64, sum does not)": _INTEGERS,
    "jsonbuiltins/unmarshal number beyond the supported exponent is undefined": _EXPONENTS,
    "jsonbuiltins/unmarshal number with too big an exponent is undefined": _EXPONENTS,
}
"""By note: those of `internal/wasm/sdk/test/e2e/exceptions.yaml` in OPA's module."""

BUILTINS: Final = {
    "http.send": "`http.send` reaches the network: a module that calls it is refused at load",
    "net.lookup_ip_addr": "`net.lookup_ip_addr` reaches the network: a module that calls it is refused at load",
    "opa.runtime": "`opa.runtime` reads the process's environment: a module that calls it is refused at load",
    "graphql": "`graphql.*` is not supported: a module that calls it is refused at load",
}
"""By built-in or namespace."""

_PARSER: Final = (
    "`rego.parse_module` returns OPA's own syntax tree of a policy, and only OPA has a parser of Rego: a module that "
    "calls it is refused at load"
)

EXPLAINED: Final = {"regoparsemodule/ok": _PARSER, "regoparsemodule/error": _PARSER}
"""By note: the cases that fail, and why they cannot pass."""


def reason_of_case(case: Case) -> str | None:
    """Why a case is skipped for what it is about."""
    return EXCEPTIONS.get(case.note)


def reason_of_builtin(name: str) -> str | None:
    """Why a case that calls this built-in is skipped."""
    return BUILTINS.get(name) or BUILTINS.get(name.partition(".")[0])
