"""`sprintf`, `strings.*` and `indexof_n`."""

from functools import lru_cache
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, integer, string, strings
from sark_pdp.engine.wasm.builtins.gofmt import parse, sprintf
from sark_pdp.engine.wasm.builtins.gotext import rego_text
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_REMEMBERED_FORMATS: Final = 256
_LONGEST_REMEMBERED: Final = 1024
"""Characters: a longer format is parsed each time, so that callers cannot fill memory with them."""

_PRINTED_AS_IS: Final = frozenset({str, int, float})

_MAX_COMPARISONS: Final = 1_000_000
"""Prefixes or suffixes times strings."""


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "sprintf": _make_sprintf(),
        "indexof_n": _indexof_n,
        "strings.any_prefix_match": _any_prefix_match,
        "strings.any_suffix_match": _any_suffix_match,
        "strings.count": _count,
        "strings.split_n": _split_n,
    }


def _make_sprintf() -> Builtin:
    remembered = lru_cache(_REMEMBERED_FORMATS)(parse)

    def call(_: Context, template: Json, arguments: Json) -> str:
        template = string(template)
        form = remembered(template) if len(template) <= _LONGEST_REMEMBERED else parse(template)
        return sprintf(
            form,
            [value if type(value) in _PRINTED_AS_IS else rego_text(value) for value in array(arguments)],
        )

    return call


def _any_prefix_match(_: Context, search: Json, base: Json) -> bool:
    searched, prefixes = _affixes(search, base)
    return any(text.startswith(prefixes) for text in searched)


def _any_suffix_match(_: Context, search: Json, base: Json) -> bool:
    searched, suffixes = _affixes(search, base)
    return any(text.endswith(suffixes) for text in searched)


def _affixes(search: Json, base: Json) -> tuple[list[str], tuple[str, ...]]:
    searched = [search] if type(search) is str else strings(search)
    affixes = (base,) if type(base) is str else tuple(strings(base))
    if len(searched) * len(affixes) > _MAX_COMPARISONS:
        raise LimitError(f"more than {_MAX_COMPARISONS} comparisons of prefixes or suffixes in one call")
    return searched, affixes


def _indexof_n(_: Context, base: Json, search: Json) -> list[int]:
    base, search = string(base), string(search)
    if not search:
        raise BuiltinError("indexof_n: the text to look for is empty")
    found: list[int] = []
    at = base.find(search)
    while at >= 0:
        found.append(at)
        at = base.find(search, at + 1)
    return found


def _count(_: Context, base: Json, search: Json) -> int:
    return string(base).count(string(search))


def _split_n(_: Context, base: Json, delimiter: Json, count: Json) -> list[str]:
    base, delimiter, count = string(base), string(delimiter), integer(count)
    # Without a delimiter Go splits into characters.
    parts = base.split(delimiter) if delimiter else list(base)
    if count < 0:
        return parts[max(len(parts) + count, 0) :]
    if count < len(parts) - 1:
        return parts[:count]
    return parts[:count]
