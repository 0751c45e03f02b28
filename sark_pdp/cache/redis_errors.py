"""What goes wrong with Redis, as a few reasons that metrics and status can name."""

from collections.abc import Mapping
from typing import Final

import hiredis
from redis.exceptions import AuthenticationError, BusyLoadingError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sark_pdp.errors import SarkError

REASONS: Final = (
    *("timeout", "connection", "credentials", "loading", "read_only", "memory"),
    *("refused", "busy", "protocol", "other_server"),
)
"""Why Redis was of no use. `busy`: all connections were taken; `refused`: an error that is none of the others."""

PROBLEMS: Final[Mapping[str, str]] = {
    "timeout": "it does not answer in time",
    "connection": "no connection to it can be made, or lasts; see whether cache.l2.url (also its database) is right",
    "credentials": "it refuses who asks; see cache.l2.username_file and cache.l2.password_file",
    "loading": "it is loading its data, or has lost the master that it follows",
    "read_only": "it takes no writes",
    "protocol": "what answers at cache.l2.url is no Redis",
}
"""What a few of the reasons mean to an operator: clauses about Redis."""

_BY_CODE: Final = {
    "LOADING": "loading",
    "MASTERDOWN": "loading",
    "READONLY": "read_only",
    "OOM": "memory",
    "NOAUTH": "credentials",
    "WRONGPASS": "credentials",
    "NOPERM": "credentials",
}

OF_ONE_COMMAND: Final = frozenset({"memory", "refused"})
"""What says nothing against the server: other commands may well succeed."""


class ReplyError(Exception):
    """An error that Redis answered a command with."""

    @property
    def reason(self) -> str:
        """One of `REASONS`."""
        return _BY_CODE.get(str(self).partition(" ")[0], "refused")


class UnusableServerError(SarkError):
    """Redis answers, but is not what a cache can be kept in; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


def reason_of(error: Exception) -> str:
    """One of `REASONS`."""
    match error:
        case UnusableServerError() | ReplyError():
            return error.reason
        case TimeoutError() | RedisTimeoutError():
            return "timeout"
        case hiredis.ProtocolError():
            return "protocol"
        case BusyLoadingError():
            return "loading"
        case AuthenticationError() | FileNotFoundError() | PermissionError() | UnicodeDecodeError():
            return "credentials"
        case _:
            return "connection"
