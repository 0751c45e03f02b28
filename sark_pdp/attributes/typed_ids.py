"""Which keys can be looked up at all, given the type of the ids in the tables: PostgreSQL refuses what is none."""

import re
from typing import Final

from sark_pdp.attributes.names import NAMED_SERVER, NAMED_TOOL, SERVER, TOOL, TOOL_OF, USER
from sark_pdp.attributes.statements import IdTypes
from sark_pdp.interfaces import RowKey

_SHAPES: Final = {
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "bigint": re.compile(r"-?[0-9]{1,18}"),
    "integer": re.compile(r"-?[0-9]{1,9}"),
}
"""As the types write themselves: what is written otherwise would be found, and not be recognized."""
_VIEWS: Final = {USER: "users", TOOL: "tools", SERVER: "servers", NAMED_TOOL: "servers", TOOL_OF: "", NAMED_SERVER: ""}
"""Whose id comes first in the key."""


def can_be(key: RowKey, types: IdTypes) -> bool:
    """Whether there can be such a row."""
    shape = _SHAPES.get(types.get(_VIEWS[key[0]], ""))
    if shape is not None and not shape.fullmatch(key[1]):
        return False
    for name in key:
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                return False
    return True
