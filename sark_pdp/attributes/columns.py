"""What is read of the registry: the columns of its three views, and the fields of a document that they speak for.

The views are all that is known of the database; whoever has tables of his own writes views over them. A column that is
null says nothing of its row.
"""

from typing import Final

from msgspec import Struct

SCHEMA: Final = "sark_pdp"


class View(Struct, frozen=True):
    """One view, one section of a document: `users` for `user`, `tools` for `tool`, `servers` for `server`."""

    name: str
    section: str
    columns: tuple[str, ...]
    """In the order in which they are read. Text, but for `lists` and `active`, which is a boolean."""
    lists: frozenset[str]
    """Those that are arrays of text."""
    owned: frozenset[str]
    """Fields of the section that only the registry speaks for: what a caller put there is dropped, null or not."""

    @property
    def qualified(self) -> str:
        """As in SQL."""
        return f"{SCHEMA}.{self.name}"


def _view(name: str, section: str, columns: tuple[str, ...], lists: set[str], also: set[str]) -> View:
    return View(name, section, columns, frozenset(lists), frozenset({*columns, *also}))


# Each second set holds what policies call the same things: who may write `team_ids` is in every team.
USERS: Final = _view(
    "users",
    "user",
    ("id", "email", "role", "roles", "teams", "permissions", "active"),
    {"roles", "teams", "permissions"},
    {"status", "team", "team_id", "team_ids"},
)
SERVERS: Final = _view(
    "servers",
    "server",
    (
        *("id", "name", "owner_id", "team_id", "managed_by_team"),
        *("visibility", "environment", "sensitivity_level", "status"),
    ),
    set(),
    {"owner", "managers", "team", "teams", "team_ids", "active"},
)
TOOLS: Final = _view(
    "tools",
    "tool",
    ("id", "server_id", "name", "sensitivity_level", "owner", "managers", "team", "active"),
    {"managers"},
    {"owner_id", "team_id", "team_ids", "teams", "status", "server_name"},
)
VIEWS: Final = (USERS, SERVERS, TOOLS)
