"""`sprintf`, `strings.*` and `indexof_n`."""

from functools import lru_cache
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, integer, string, strings, within
from sark_pdp.engine.wasm.builtins.gofmt import parse, sprintf
from sark_pdp.engine.wasm.builtins.gotext import rego_text
from sark_pdp.engine.wasm.terms import dumps
from sark_pdp.model import Json

_REMEMBERED_FORMATS: Final = 256
_LONGEST_REMEMBERED: Final = 1024
"""Characters: a longer format is parsed each time, so that callers cannot fill memory with them."""

_PRINTED_AS_IS: Final = frozenset({str, int, float})

_MAX_DIRECTIVES: Final = 4_000
"""Percent signs of one format."""

_MAX_PRINTED: Final = 100_000
"""Characters, about, of the values in a call that are no strings."""

_MAX_COMPARED: Final = 20_000_000
"""Characters of all prefixes or suffixes, once for each string that is compared with them."""

_MAX_FOUND: Final = 50_000
_MAX_SEARCHED: Final = 10_000_000
"""Characters looked at, where the text begins to match at every place."""


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
        within(template.count("%"), _MAX_DIRECTIVES, "sprintf: percent signs in the format")
        form = remembered(template) if len(template) <= _LONGEST_REMEMBERED else parse(template)
        given = array(arguments)
        within(len(given), _MAX_DIRECTIVES, "sprintf: arguments")
        return sprintf(form, [value if type(value) in _PRINTED_AS_IS else _printed(value) for value in given])

    return call


def _printed(value: Json) -> str:
    within(len(dumps(value)), _MAX_PRINTED, "sprintf: bytes of an argument that is no string")
    return rego_text(value)


def _any_prefix_match(_: Context, search: Json, base: Json) -> bool:
    searched, prefixes = _affixes(search, base)
    return any(text.startswith(prefixes) for text in searched)


def _any_suffix_match(_: Context, search: Json, base: Json) -> bool:
    searched, suffixes = _affixes(search, base)
    return any(text.endswith(suffixes) for text in searched)


def _affixes(search: Json, base: Json) -> tuple[list[str], tuple[str, ...]]:
    searched = [search] if type(search) is str else strings(search)
    affixes = (base,) if type(base) is str else tuple(strings(base))
    # A comparison costs something even where the first characters differ.
    size = sum(map(len, affixes)) + 10 * len(affixes)
    within(len(searched) * size, _MAX_COMPARED, "characters of prefixes or suffixes, for each string")
    return searched, affixes


def _indexof_n(_: Context, base: Json, search: Json) -> list[int]:
    base, search = string(base), string(search)
    if not search:
        raise BuiltinError("indexof_n: the text to look for is empty")
    found: list[int] = []
    at = base.find(search)
    while at >= 0:
        found.append(at)
        within(len(found), _MAX_FOUND, "indexof_n: places where the text is")
        within(len(found) * len(search), _MAX_SEARCHED, "indexof_n: characters to look at")
        at = base.find(search, at + 1)
    return found


def _count(_: Context, base: Json, search: Json) -> int:
    return string(base).count(string(search))


def _split_n(_: Context, base: Json, delimiter: Json, count: Json) -> list[str]:
    base, delimiter, count = string(base), string(delimiter), integer(count)
    # Without a delimiter Go splits into characters.
    within(base.count(delimiter), _MAX_FOUND, "strings.split_n: parts")
    parts = base.split(delimiter) if delimiter else list(base)
    if count < 0:
        return parts[max(len(parts) + count, 0) :]
    if count < len(parts) - 1:
        return parts[:count]
    return parts[:count]
