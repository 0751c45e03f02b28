"""`semver.*`."""

import re
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.model import Json

_SEMVER: Final = re.compile(
    r"v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_DIGITS: Final = re.compile(r"[0-9]+")

Precedence = tuple[tuple[int, ...], bool, tuple[tuple[int, int, str], ...]]
"""Three numbers, whether it is a release, and the identifiers of a pre-release."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"semver.compare": _compare, "semver.is_valid": _is_valid}


def _is_valid(_: Context, version: Json) -> bool:
    try:
        _precedence(string(version))
    except BuiltinError:
        return False
    return True


def _compare(_: Context, left: Json, right: Json) -> int:
    first, second = _precedence(string(left)), _precedence(string(right))
    return (first > second) - (first < second)


def _precedence(version: str) -> Precedence:
    """Orders versions as https://semver.org/#spec-item-11 says; metadata counts for nothing."""
    match = _SEMVER.fullmatch(version)
    if match is None or any(len(match[part]) > 19 or int(match[part]) >= 1 << 63 for part in (1, 2, 3)):
        raise BuiltinError(f"not a semantic version: {version[:80]!r}")
    numbers = (int(match[1]), int(match[2]), int(match[3]))
    identifiers = (match[4] or "").split(".") if match[4] else []
    if any(len(part) > 1 and part[0] == "0" and _DIGITS.fullmatch(part) for part in identifiers):
        raise BuiltinError(f"a numeric identifier begins with a zero: {version[:80]!r}")
    return numbers, not identifiers, tuple(_identifier(part) for part in identifiers)


def _identifier(part: str) -> tuple[int, int, str]:
    # Numbers come before names; of two numbers the longer one is larger.
    return (0, len(part), part) if _DIGITS.fullmatch(part) else (1, 0, part)
