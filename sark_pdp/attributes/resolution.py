"""Finds the rows of requests: users and tools first, then servers, because a tool tells which server is asked about."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from sark_pdp.attributes.completion import Rows, contradiction, is_renamed
from sark_pdp.attributes.entries import Entry
from sark_pdp.attributes.names import NAMED_SERVER, NAMED_TOOL, SERVER, TOOL_OF, Names
from sark_pdp.attributes.remembered import Combination, Found, Remembered
from sark_pdp.attributes.tiers import AttributeTiers, Looked
from sark_pdp.errors import AttributesError
from sark_pdp.interfaces import RowKey
from sark_pdp.model import Deadline, Seconds

_MOST_NAMES: Final = 4096


Refusal: TypeAlias = str
"""The reason of a denial."""

Resolved: TypeAlias = Found | Refusal | AttributesError


class Resolver:
    """Looks up what documents name.

    `_ids` holds the ids of servers by name, for whoever asks by name: whether the server still has it is looked at each
    time. Any thread changes it, in single steps of C code; it is emptied when it is full.
    """

    def __init__(self, tiers: AttributeTiers) -> None:
        self._tiers = tiers
        self._remembered = Remembered(tiers.generations)
        self._ids: dict[str, str] = {}

    def known(self, names: Names, max_age: Seconds | None) -> Found | Combination | Refusal | None:
        """What memory has of it; None where one row has to be looked for elsewhere."""
        now = time.monotonic()
        remembered = self._remembered.get(names, now, max_age)
        if remembered is not None:
            self._tiers.found_again(remembered.number)
            return remembered
        known = self._tiers.known
        user: Entry | None = None
        tool: Entry | None = None
        server: Entry | None = None
        if names.user is not None:
            user = known(names.user, now, max_age)
            if user is None or user.told.fields is None:
                return None if user is None else user.told.refusal
        if names.tool is not None:
            tool = known(self._by_id(names.tool), now, max_age)
            if tool is None or tool.told.fields is None:
                return None if tool is None else tool.told.refusal
        key = self._server_of(names, tool)
        if key is not None:
            server = known(key, now, max_age)
            if server is None or server.told.fields is None:
                return None if server is None else server.told.refusal
            if is_renamed(names, server.told.fields) and _server_name(names) in self._ids:
                return None
        found = _found(names, user, tool, server, now)
        if not isinstance(found, str):
            self._remembered.put(names, found, [entry for entry in (user, tool, server) if entry is not None])
        return found

    def read(self, asked: Sequence[Names], deadline: Deadline, max_age: Seconds | None) -> list[Resolved]:
        """The same for each, from wherever it is. May wait, not beyond `deadline`; raises DeadlineExceededError."""
        resolved = self._read(asked, deadline, max_age)
        again = [index for index, each in enumerate(resolved) if each is None]
        if again:
            # A server of a remembered name has another one by now: the names were forgotten, and are looked up.
            for index, each in zip(again, self._read([asked[i] for i in again], deadline, max_age), strict=True):
                resolved[index] = each
        return [AttributesError("the server is being renamed") if each is None else each for each in resolved]

    def _read(self, asked: Sequence[Names], deadline: Deadline, max_age: Seconds | None) -> list[Resolved | None]:
        first = [(names.user, None if names.tool is None else self._by_id(names.tool)) for names in asked]
        looked = self._tiers.read(_keys(key for pair in first for key in pair), deadline, max_age)
        servers: list[RowKey | None] = []
        for names, (user, tool) in zip(asked, first, strict=True):
            lost = _lost(user, looked) or _lost(tool, looked)
            servers.append(None if lost else self._server_of(names, _entry(tool, looked)))
        looked.update(self._tiers.read(_keys(servers), deadline, max_age))
        now = time.monotonic()
        return [
            self._resolved(names, (user, tool, server), looked, now)
            for names, (user, tool), server in zip(asked, first, servers, strict=True)
        ]

    def _resolved(
        self, names: Names, keys: tuple[RowKey | None, ...], looked: Mapping[RowKey, Looked], now: float
    ) -> Resolved | None:
        """None where a remembered name led to a server that has another one: it is forgotten then."""
        for key in keys:
            lost = _lost(key, looked)
            if lost:
                return lost
        user, tool, server = (_entry(key, looked) for key in keys)
        fields = None if server is None else server.told.fields
        named = _server_name(names)
        if named is not None and is_renamed(names, fields):
            if self._ids.pop(named, None) is not None:
                return None
        elif named is not None and fields is not None:
            self._remember(named, fields.get("id"))
        return _found(names, user, tool, server, now)

    def _remember(self, name: str, id_: object) -> None:
        if isinstance(id_, str) and self._ids.get(name) != id_:
            if len(self._ids) >= _MOST_NAMES:
                self._ids.clear()
            self._ids[name] = id_

    def _by_id(self, key: RowKey) -> RowKey:
        if key[0] == TOOL_OF:
            id_ = self._ids.get(key[1])
            return key if id_ is None else (NAMED_TOOL, id_, key[2])
        if key[0] == NAMED_SERVER:
            id_ = self._ids.get(key[1])
            return key if id_ is None else (SERVER, id_)
        return key

    def _server_of(self, names: Names, tool: Entry | None) -> RowKey | None:
        if names.registering:
            return None
        if tool is not None and tool.told.fields is not None:
            id_ = tool.told.fields.get("server_id")
            if id_ is not None:
                return (SERVER, id_)
        return None if names.server is None else self._by_id(names.server)


def _keys(keys: Iterable[RowKey | None]) -> list[RowKey]:
    """Each once."""
    return list(dict.fromkeys(key for key in keys if key is not None))


def _entry(key: RowKey | None, looked: Mapping[RowKey, Looked]) -> Entry | None:
    found = None if key is None else looked[key]
    return found if isinstance(found, Entry) else None


def _lost(key: RowKey | None, looked: Mapping[RowKey, Looked]) -> Refusal | AttributesError | None:
    """Why there is no answer for lack of this row."""
    found = None if key is None else looked.get(key)
    if isinstance(found, AttributesError):
        return found
    return found.told.refusal if found is not None and found.told.fields is None else None


def _server_name(names: Names) -> str | None:
    return names.server[1] if names.server is not None and names.server[0] == NAMED_SERVER else None


def _found(names: Names, user: Entry | None, tool: Entry | None, server: Entry | None, now: float) -> Found | Refusal:
    entries = [entry for entry in (user, tool, server) if entry is not None]
    rows = Rows(
        None if user is None else user.told.fields,
        None if tool is None else tool.told.fields,
        ({} if tool is not None and not names.registering else None) if server is None else server.told.fields,
    )
    refusal = contradiction(names, rows)
    if refusal:
        return refusal
    return Found(rows, min(entry.as_of for entry in entries), any(entry.expires <= now for entry in entries))
