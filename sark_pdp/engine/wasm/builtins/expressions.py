"""Regular expressions of JSON schemas: Go's, on RE2, imported when the first schema has one."""

import re
from functools import lru_cache
from typing import Any, Final

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.values import LimitError

_REMEMBERED: Final = 100
_LONGEST: Final = 4096
"""Characters of an expression."""
_MEMORY: Final = 2 * 1024 * 1024
"""Bytes that one compiled expression may take."""


class Expressions:
    """Remembers compiled expressions."""

    def __init__(self) -> None:
        self._compiled = lru_cache(_REMEMBERED)(_compiled)

    def compile(self, pattern: str) -> Any:
        """What `search` finds bytes with. Raises BuiltinError where it is no expression, or LimitError."""
        if len(pattern) > _LONGEST:
            raise LimitError(f"a regular expression of {len(pattern)} characters is too large; the limit is {_LONGEST}")
        return self._compiled(pattern)

    def is_expression(self, text: str) -> bool:
        """Whether it is one of Go's."""
        try:
            self.compile(text)
        except BuiltinError:
            return False
        return True


def _compiled(pattern: str) -> Any:
    # A single byte is no character in Go, which refuses it.
    if "\\C" in re.findall(r"\\.", pattern):
        raise BuiltinError("not an expression that Go knows: \\C")
    try:
        import re2
    except ImportError:
        raise LimitError(
            "a JSON schema has a regular expression, and google-re2 is not installed: install sark-pdp[regex]"
        ) from None
    options = re2.Options()
    options.max_mem, options.log_errors = _MEMORY, False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as problem:
        if "too large" in str(problem):
            raise LimitError(f"a regular expression needs more than {_MEMORY} bytes") from None
        raise BuiltinError(f"not a regular expression: {problem}") from None
