"""The callers of the cache simulation: users, tools and servers that change now and then, and what they ask.

Users and tools are drawn apart from each other, each by Zipf's law with exponent 1.1. One seed decides everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Final

from msgspec import Struct

from sark_pdp.model import Document, Json

EXPONENT: Final = 1.1
BEGINS: Final = 1_772_532_000
"""A Tuesday at 10:00 UTC, in seconds since the epoch: the shipped policy's working hours have hours to go."""
ACTION: Final = "tool:invoke"

LEVELS: Final = ("low", "medium", "high", "critical")
ROLES: Final = ("viewer", "developer", "team_lead", "oncall", "service", "auditor", "admin")
_ROLE_WEIGHTS: Final = (20, 50, 10, 6, 8, 4, 2)

_NEW_ROLES: Final = 3600.0
"""Mean seconds from one change of a user's roles to the next."""
_NEW_SESSION: Final = 600.0
"""Mean seconds from one sign-in of a user to the next."""
_NEW_LEVEL: Final = 100.0
"""Mean seconds from one tool that gets another level to the next, of all tools."""
_OTHER_LEVEL: Final = {"low": "medium", "medium": "high", "high": "medium", "critical": "high"}
_SECOND_FACTOR: Final = 0.9
"""Share of the sign-ins that have one."""
_TWICE: Final = 10
"""Each tool of so many is installed in staging as well."""
_STAGING: Final = 0.25
"""Share of the requests for one of those that go there."""

_BLOCK: Final = 10_000


class Workload(Struct, frozen=True):
    """How many ask for what."""

    users: int
    tools: int
    levels: tuple[float, ...]
    """Shares of the requests that are for tools of each of LEVELS."""
    rate: int
    """Requests per second, of all pods together."""


class Asked(Struct, frozen=True):
    """One request."""

    at: float
    """Seconds since the beginning."""
    document: Document
    facts: tuple[int, ...]
    """Equal only where user, tool and server are the same, in the same state: what the right answer depends on."""
    level: str
    """The sensitivity of the tool."""


class World:
    """Who and what there is, now. One thread."""

    def __init__(self, workload: Workload, seed: int) -> None:
        users, tools = workload.users, workload.tools
        self._rate = workload.rate
        self._random = Random(seed)
        self._users = [self._new_user(number) for number in range(users)]
        levels = dealt(zipf(tools), dict(zip(LEVELS, workload.levels, strict=True)))
        self._tools = [_tool(number, level, users) for number, level in enumerate(levels)]
        self._servers = [(_server(number, "production"), _server(number, "staging")) for number in range(tools)]
        self._user_states, self._tool_states = [0] * users, [0] * tools
        self._weights = list(accumulate(zipf(users))), list(accumulate(zipf(tools)))

    def requests(self, count: int) -> Iterator[Asked]:
        """Evenly spaced; no two have the same id, address, port, time and parameters."""
        random, users, tools = self._random, range(len(self._users)), range(len(self._tools))
        changes = {
            self._change_roles: len(users) / _NEW_ROLES,
            self._sign_in: len(users) / _NEW_SESSION,
            self._change_level: 1 / _NEW_LEVEL,
        }
        due = {change: random.expovariate(often) for change, often in changes.items()}
        number = 0
        while number < count:
            block = min(_BLOCK, count - number)
            who = random.choices(users, cum_weights=self._weights[0], k=block)
            what = random.choices(tools, cum_weights=self._weights[1], k=block)
            for user, tool in zip(who, what, strict=True):
                at = number / self._rate
                for change, when in due.items():
                    if at >= when:
                        change()
                        due[change] = when + random.expovariate(changes[change])
                yield self._asked(number, at, user, tool)
                number += 1

    def _asked(self, number: int, at: float, user: int, tool: int) -> Asked:
        random = self._random
        place = int(tool % _TWICE == _TWICE - 1 and random.random() < _STAGING)
        chance = random.getrandbits(32)
        document = {
            "request_id": f"{number:08x}-{chance:08x}",
            "user": self._users[user],
            "action": ACTION,
            "tool": self._tools[tool],
            "server": self._servers[tool][place],
            "context": {
                "timestamp": BEGINS + at,
                "client_ip": f"10.{chance & 255}.{chance >> 8 & 255}.{chance >> 16 & 255}",
                "client_port": 32_768 + number % 28_000,
            },
            "parameters": {"query": f"{chance:08x}", "limit": chance & 63, "page": number},
        }
        facts = (user, self._user_states[user], tool, self._tool_states[tool], place)
        level: str = self._tools[tool]["sensitivity_level"]
        return Asked(at, document, facts, level)

    def _new_user(self, number: int) -> Document:
        return {
            "id": f"user-{number}",
            "email": f"user-{number}@example.com",
            "roles": self._some_roles(),
            "teams": [f"team-{number % 12}"],
            "status": "active",
            "mfa_verified": self._random.random() < _SECOND_FACTOR,
        }

    def _some_roles(self) -> list[str]:
        return sorted(set(self._random.choices(ROLES, _ROLE_WEIGHTS, k=self._random.choice((1, 1, 2)))))

    def _change_roles(self) -> None:
        self._change_user("roles", self._some_roles())

    def _sign_in(self) -> None:
        self._change_user("mfa_verified", self._random.random() < _SECOND_FACTOR)

    def _change_user(self, field: str, value: Json) -> None:
        number = self._random.randrange(len(self._users))
        # A new object: the old one is in requests that were made.
        self._users[number] = {**self._users[number], field: value}
        self._user_states[number] += 1

    def _change_level(self) -> None:
        number = self._random.randrange(len(self._tools))
        tool = self._tools[number]
        self._tools[number] = {**tool, "sensitivity_level": _OTHER_LEVEL[tool["sensitivity_level"]]}
        self._tool_states[number] += 1


def zipf(count: int) -> list[float]:
    """The probability of each of so many, the most frequent one first."""
    weights = [rank**-EXPONENT for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def dealt(weights: Sequence[float], shares: Mapping[str, float]) -> list[str]:
    """A name for each weight, so that down to each of them every name has about its share of what came so far."""
    given = dict.fromkeys(shares, 0.0)
    names, total = [], 0.0
    for weight in weights:
        total += weight
        name = max(shares, key=lambda each: shares[each] * total - given[each])
        given[name] += weight
        names.append(name)
    return names


def _tool(number: int, level: str, users: int) -> Document:
    return {
        "id": f"tool-{number}",
        "name": f"tool_{number}",
        "sensitivity_level": level,
        "owner": f"user-{number % users}",
        "managers": [f"user-{(number + 1) % users}"],
    }


def _server(number: int, environment: str) -> Document:
    return {
        "id": f"server-{number // 5}-{environment}",
        "name": f"server-{number // 5}",
        "environment": environment,
        "visibility": "internal",
        "status": "active",
        "managed_by_team": f"team-{number % 12}",
    }
