"""What kind of server Redis is: which one, in which role, and how its settings differ from what a cache wants."""

from collections.abc import Mapping
from typing import Final

from sark_pdp.cache.redis_connection import Command, RedisConnection
from sark_pdp.cache.redis_errors import ReplyError, UnusableServerError

_IDENTITY: Final[tuple[Command, ...]] = (("INFO", "server"), ("INFO", "replication"), ("PING",))
_LONGEST: Final = 64
"""Characters of a run id; Redis' own have 40."""
_WANTED: Final = ("maxmemory", "maxmemory-policy", "save", "appendonly", "appendfsync")


def run_id_of(connection: RedisConnection, deadline: float) -> bytes:
    """Which run of which server this is. Raises UnusableServerError, or what `exchange` raises."""
    server, replication, pong = connection.exchange(_IDENTITY, deadline)
    if isinstance(server, ReplyError) and str(server).startswith("NOAUTH"):
        raise UnusableServerError("credentials", "it wants a password; name its file in cache.l2.password_file")
    if isinstance(server, ReplyError) or isinstance(replication, ReplyError):
        raise UnusableServerError("credentials", "its user may not INFO, which tells its run id")
    if isinstance(pong, ReplyError):
        raise UnusableServerError(pong.reason, f"it answers PING with an error ({pong.reason})")
    if _fields(replication).get("role") != "master":
        raise UnusableServerError("read_only", "it is a replica, which takes no writes and may lag")
    run_id = _fields(server).get("run_id", "")
    if not 0 < len(run_id) <= _LONGEST:
        raise UnusableServerError("refused", "its INFO has no run_id")
    return run_id.encode()


def differences(connection: RedisConnection, deadline: float) -> tuple[str, ...] | None:
    """What of its settings does harm, each the end of a sentence that begins with Redis; None: it does not say.

    Raises what `exchange` raises.
    """
    replies = connection.exchange([("CONFIG", "GET", name) for name in _WANTED], deadline)
    settings: dict[str, str] = {}
    for reply in replies:
        if not isinstance(reply, list):
            return None
        texts = [each.decode("utf-8", "replace") for each in reply]
        settings |= dict(zip(texts[::2], texts[1::2], strict=True))
    return _differences(settings)


def _differences(settings: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    policy = settings.get("maxmemory-policy", "")
    if settings.get("maxmemory") == "0":
        found.append("has no maxmemory: it grows until the machine ends it")
    elif policy == "noeviction":
        found.append("has maxmemory-policy noeviction: once full, it refuses every write; expected allkeys-lru")
    if settings.get("save"):
        found.append("makes RDB snapshots (save is set): each forks it, which delays answers and doubles memory")
    if settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always":
        found.append("has appendfsync always: each write waits for the disk; expected everysec")
    return tuple(found)


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
